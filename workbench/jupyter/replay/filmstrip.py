"""The picture that a notebook keeps of a replay: the episode frame beside frame, drawn without a graphics system.

Solids are triangles, sorted by how far they are away, as bright as they face the light, in the colours that the player
gives them. The same episode always gives the same picture.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from workbench.envs.scene import Scene
from workbench.episodes import Episode
from workbench.jupyter import look
from workbench.jupyter.figures.plots import Floats
from workbench.jupyter.replay.page_data import ReplayScene, stills

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from workbench.jupyter.replay.viewer import Replay


FRAMES = 5
WIDTH, HEIGHT = look.WIDTH, 250  # pixels
NO_OWNER = "#b4bac4"
VIEW = np.array([0.3, -0.87, 0.39])  # from the scene to the eye, as the player begins
LIGHT = np.array([0.35, -0.6, 1.0]) / np.linalg.norm([0.35, -0.6, 1.0])


def frames_of(episode: Episode) -> list[int]:
    """The frames that stand for an episode, from its first to its last."""
    spread = np.linspace(0, len(episode), min(FRAMES, len(episode) + 1)).round()
    return [int(frame) for frame in np.unique(spread)]


def filmstrip(replay: Replay) -> bytes:
    """The first episode of the last take as a PNG: some frames side by side, and who has which colour."""
    from matplotlib.figure import Figure

    scene, episode = replay.scene, replay.takes[-1].episodes[0]
    frames = frames_of(episode)
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100)
    figure.patch.set_alpha(0.0)
    geometry = scene.geometry
    pictures = stills(scene, episode, frames) if geometry is None else ()
    triangles = () if geometry is None else _triangles(scene, episode, frames)
    ink = look.INKS["neutral"].text
    for k, frame in enumerate(frames):
        axes = figure.add_axes((k / len(frames), 0.16, 1 / len(frames), 0.68))
        axes.set_axis_off()
        if geometry is not None:
            _draw_triangles(axes, geometry, *triangles[k])
        else:
            axes.imshow(pictures[k], interpolation="antialiased")
        seconds = f" · {frame * scene.seconds:.2f} s" if geometry is not None else ""
        figure.text((k + 0.5) / len(frames), 0.1, f"frame {frame}{seconds}", color=ink, fontsize=8, ha="center")
    end = f" · {episode.end}" if episode.end else ""
    title = f"{replay.title} · {replay.takes[-1].label} · return {episode.total:.4g} in {len(episode)} steps{end}"
    figure.text(0.01, 0.93, title, color=ink, fontsize=9)
    _name_agents(figure, scene)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", transparent=True, metadata={"Software": None})
    return picture.getvalue()


def _name_agents(figure: Figure, scene: ReplayScene) -> None:
    agents = scene.env.agents
    width = min(0.12, 0.98 / len(agents))
    for k, agent in enumerate(agents):
        color = look.agent_color(agents, agent)
        size = 8 if width > 0.07 else 6
        figure.text(0.01 + k * width, 0.02, "■ ", color=color, fontsize=size)
        name = agent if width > 0.07 else str(k)
        figure.text(0.026 + k * width, 0.02, name, color=look.INKS["neutral"].text, fontsize=size)


def _triangles(scene: ReplayScene, episode: Episode, frames: list[int]) -> list[tuple[Floats, list[str]]]:
    """Of each frame: the corners of all triangles (n, 3, 3) in space, and their colours before any light."""
    assert scene.geometry is not None
    found = []
    for pose in scene.geometry.poses(episode.sights[frames]).astype(np.float64):
        corners, colors = [], []
        for surface in scene.surfaces:
            place, turn = pose[surface.solid, :3], pose[surface.solid, [4, 5, 6, 3]]
            corners.append((Rotation.from_quat(turn).apply(surface.shape.vertices) + place)[surface.shape.triangles])
            colors += [surface.color or NO_OWNER] * len(surface.shape.triangles)
        found.append((np.concatenate(corners), colors))
    return found


def _draw_triangles(axes: Axes, scene: Scene, corners: Floats, colors: list[str]) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgb

    away = VIEW / np.linalg.norm(VIEW)
    right = np.cross([0.0, 0.0, 1.0], away)
    right /= np.linalg.norm(right)
    up = np.cross(away, right)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    towards = across @ away > 0  # the others are hidden behind them
    order = np.argsort(corners.mean(1) @ away)
    order = order[towards[order]]
    flat = np.stack([corners @ right, corners @ up], -1)[order]
    bright = (0.55 + 0.45 * np.clip(across @ LIGHT, 0, 1))[order, None]
    shaded = np.array([to_rgb(colors[i]) for i in order]) * bright
    if scene.floors:
        level = scene.floors[0].position[2]
        above = corners[across[:, 2] > 0]  # seen from the light, straight up; the others add nothing to the shadow
        low = np.concatenate([above[..., :2], np.full((*above.shape[:2], 1), level)], -1)
        shadow = np.stack([low @ right, low @ up], -1)
        axes.add_collection(PolyCollection(list(shadow), facecolors="#8a8a8a", edgecolors="#8a8a8a", linewidths=0.3))
    axes.add_collection(PolyCollection(list(flat), facecolors=shaded, edgecolors=shaded, linewidths=0.3))
    middle = corners.reshape(-1, 3).mean(0)
    x, y, reach = float(middle @ right), float(middle @ up), 1.15 * scene.radius
    axes.set_xlim(x - reach, x + reach)
    axes.set_ylim(y - reach, y + reach)
    axes.set_aspect("equal")
