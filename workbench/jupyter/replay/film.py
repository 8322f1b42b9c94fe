"""Films of a replay: a GIF, or an mp4 where ffmpeg is installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workbench.envs.arguments import positive_integer
from workbench.episodes import Episode
from workbench.episodes.rendering import INKS, Part, Picture, render
from workbench.errors import WorkbenchError, unknown_name
from workbench.jupyter.replay.page_data import Frames, ReplayScene, stills

if TYPE_CHECKING:
    from workbench.jupyter.replay.viewer import Replay


GHOST_OPACITY = 0.35
NO_OWNER = (0.7, 0.73, 0.77)


def film(
    replay: Replay,
    *,
    take: int = -1,
    episode: int = 0,
    start: int = 0,
    stop: int | None = None,
    fps: int = 20,
    speed: float = 1.0,
    width: int = 480,
    height: int = 320,
    theme: str = "light",
    ghost: bool = True,
) -> Frames:
    """The pictures of a film (n, height, width, 3), of the frames from ``start`` to ``stop`` of an episode.

    take, episode   which one; by default the first of the last take
    fps, speed      pictures a second, and how fast time goes: 0.5 is slow motion
    width, height   in pixels, where the scene is drawn here; an environment's own pictures keep their size
    theme           "light" or "dark"
    ghost           whether the ghost, if there is one, is drawn too

    Raises ``RenderingError`` (``workbench.episodes.rendering``) where MuJoCo finds no graphics system.
    """
    for name, value in (("fps", fps), ("width", width), ("height", height)):
        positive_integer(name, value)
    if theme not in INKS:
        raise unknown_name("theme", theme, INKS)
    if not speed > 0:
        raise ValueError(f"speed is {speed!r}; expected a number > 0.")
    scene, played = replay.scene, replay.takes[take].episodes[episode]
    last = len(played) if stop is None else stop
    if not 0 <= start <= last <= len(played):
        raise ValueError(f"start={start!r}, stop={stop!r}; expected 0 ≤ start ≤ stop ≤ {len(played)}.")
    shown = np.arange(start, last + 1e-9, speed / fps / scene.seconds).round().astype(int)
    geometry = scene.geometry
    if geometry is None:
        known, where = np.unique(shown, return_inverse=True)
        return stills(scene, played, known.tolist())[where]
    others = replay.ghost.episodes if ghost and replay.ghost is not None else ()
    parts, poses = _surfaces(scene, played, shown, 1.0)
    targets = geometry.poses(played.sights[shown])[:, scene.moving, :3].mean(1).astype(np.float64)
    targets[:, 2] = targets[:, 2].mean()
    if others:
        theirs = others[min(episode, len(others) - 1)]
        more, further = _surfaces(replay.ghost_scene, theirs, np.minimum(shown, len(theirs)), GHOST_OPACITY)
        parts, poses = [*parts, *more], np.concatenate([poses, further], 1)
    floor = geometry.floors[0].position[2] if geometry.floors else None
    return render(Picture(tuple(parts), floor, geometry.radius, width, height, theme), poses, targets)


def _surfaces(
    scene: ReplayScene, episode: Episode, frames: npt.NDArray[np.intp], opacity: float
) -> tuple[list[Part], npt.NDArray[np.float32]]:
    """The coloured surfaces of a scene, and where they are in each frame (n, parts, 7)."""
    geometry = scene.geometry
    assert geometry is not None
    poses = geometry.poses(episode.sights[frames])
    still = [k for k, solid in enumerate(geometry.solids) if not solid.moves]
    poses[:, still] = geometry.resting[still]
    parts = []
    for surface in scene.surfaces:
        color = _rgb(surface.color) if surface.color else NO_OWNER
        opaque = opacity * geometry.solids[surface.solid].color[3]
        parts.append(Part(surface.shape.vertices, surface.shape.triangles, (*color, opaque)))
    return parts, poses[:, [surface.solid for surface in scene.surfaces]]


def _rgb(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue


def write_gif(replay: Replay, path: Path, *, fps: int = 20, **options: Any) -> Path:
    """Write a film as a GIF that repeats; ``film`` has the options."""
    from PIL import Image

    pictures = film(replay, fps=fps, **options)
    # One palette for all, from frames all over the film, and no dithering: that flickers, and does not compress.
    some = pictures[np.unique(np.linspace(0, len(pictures) - 1, 6).round().astype(int))]
    palette = Image.fromarray(np.concatenate(list(some))).quantize(128, dither=Image.Dither.NONE)
    images = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    hundredths = round(100 / fps)  # as GIF counts
    images[0].save(path, save_all=True, append_images=images[1:], duration=10 * hundredths, loop=0, optimize=False)
    return path


def write_mp4(replay: Replay, path: Path, *, fps: int = 30, **options: Any) -> Path:
    """Write a film as an mp4 (H.264); ``film`` has the options."""
    program = _ffmpeg()
    pictures = film(replay, fps=fps, **options)
    height, width = pictures.shape[1:3]
    command = [
        *[program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"],
        *["-r", str(fps), "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"],
        *["-movflags", "+faststart", str(path)],
    ]
    done = subprocess.run(command, input=pictures.tobytes(), capture_output=True)
    if done.returncode:
        raise WorkbenchError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return path


def _ffmpeg() -> str:
    """The ffmpeg on the path, or that of the imageio-ffmpeg package."""
    if found := shutil.which("ffmpeg"):
        return found
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    raise WorkbenchError(
        "an mp4 needs ffmpeg, which is not installed: on Debian apt install ffmpeg, or pip install imageio-ffmpeg. "
        "to_gif() and to_html() do without."
    )
