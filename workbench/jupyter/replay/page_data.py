"""An episode as plain data for the page: solids and poses, or pictures, and the numbers of every frame."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from workbench.envs.base import TeamEnv
from workbench.envs.sampled_game import SampledGame
from workbench.envs.scene import Scene, Solid
from workbench.episodes import Episode
from workbench.jupyter import look
from workbench.jupyter.assets import ArrayBlock

SECONDS = 0.2  # from one picture to the next, where an environment has no clock of its own
WIDEST = 800  # pixels of a picture


@dataclass(frozen=True)
class ReplayScene:
    """Who plays where: what is the same in all frames.

    env     the environment, for its agents and their actions
    scene   its solids; None where it shows pictures
    """

    env: TeamEnv
    scene: Scene | None

    @staticmethod
    def of(env: TeamEnv) -> ReplayScene:
        return ReplayScene(env, env.scene())

    @property
    def kind(self) -> str:
        """PlayOptions it is drawn: "poses" of solids, a "game" of states, or "pictures"."""
        return "poses" if self.scene is not None else "game" if isinstance(self.env, SampledGame) else "pictures"

    @property
    def seconds(self) -> float:
        """From one frame to the next."""
        return SECONDS if self.scene is None else self.scene.seconds_per_step

    def color(self, solid: Solid) -> list[str]:
        """The colours of a solid: those of the agents that move it."""
        return [look.agent_color(self.env.agents, agent) for agent in solid.owners]


def agents_of(cast: ReplayScene, episodes: Sequence[Episode]) -> list[dict[str, Any]]:
    """What the page says of each agent: name, colour, and the components of its action with their limits."""
    found = []
    for agent in cast.env.agents:
        space = cast.env.action_spaces[agent]
        discrete = not isinstance(space, gymnasium.spaces.Box)
        names: Sequence[str] = cast.scene.components[agent] if cast.scene is not None else ()
        size = int(np.prod(space.shape or (1,)))
        if len(names) != size:
            names = ["action"] if size == 1 else [f"action {k}" for k in range(size)]
        low, high = _limits(space, [episode.actions[agent] for episode in episodes])
        scales = zip(names, low.tolist(), high.tolist(), strict=True)
        components = [{"name": name, "low": least, "high": most} for name, least, most in scales]
        color = look.agent_color(cast.env.agents, agent)
        found.append({"name": agent, "color": color, "discrete": discrete, "components": components})
    return found


def _limits(
    space: gymnasium.Space[Any], taken: Sequence[npt.NDArray[Any]]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The ends of the scale that each component is drawn on: the space's own, or the largest seen."""
    if not isinstance(space, gymnasium.spaces.Box):
        size = int(np.prod(space.shape or (1,)))
        return np.zeros(size), np.ones(size)
    largest = max((float(np.abs(actions).max(initial=1e-6)) for actions in taken), default=1.0)
    low = np.where(np.isfinite(space.low), space.low, -largest).astype(np.float64)
    high = np.where(np.isfinite(space.high), space.high, largest).astype(np.float64)
    return low, high


def scene_data(cast: ReplayScene) -> dict[str, Any]:
    """The solids of a cast: each surface once, each solid in as many parts as agents move it."""
    scene = cast.scene
    assert scene is not None
    columns = {k: column for column, k in enumerate(moving(scene))}
    shapes: list[dict[str, Any]] = []
    numbers: dict[tuple[int, int, int], int] = {}
    parts = []
    still = scene.resting
    for k, solid in enumerate(scene.solids):
        colors = cast.color(solid)
        bands = scene.shapes[solid.shape].bands(max(1, len(colors)))
        for band, shape in enumerate(bands):
            key = (solid.shape, band, len(bands))
            if key not in numbers:
                numbers[key] = len(shapes)
                shapes.append({"vertices": shape.vertices, "normals": shape.normals, "triangles": shape.triangles})
            parts.append(
                {
                    "shape": numbers[key],
                    "column": columns.get(k, -1),
                    "pose": None if solid.moves else still[k].tolist(),
                    "color": colors[band] if colors else None,
                    "owner": solid.owners[band] if colors else None,
                    "solid": solid.name,
                    "opacity": solid.color[3],
                }
            )
    floors = [
        {"position": floor.position, "quaternion": floor.quaternion, "extents": floor.extents} for floor in scene.floors
    ]
    return {"shapes": shapes, "parts": parts, "floors": floors, "columns": len(columns), "radius": scene.radius}


def moving(scene: Scene) -> list[int]:
    """The solids whose poses are sent, in their order."""
    return [k for k, solid in enumerate(scene.solids) if solid.moves]


class PngBlock:
    """PngBlock as PNG, one after the other in one block, each different one once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0
        self._known: dict[bytes, list[int]] = {}

    def add(self, picture: npt.NDArray[np.uint8]) -> list[int]:
        """[offset, length] of a picture (height, width, 3)."""
        from PIL import Image

        key = picture.tobytes()
        if key not in self._known:
            image = Image.fromarray(picture)
            if image.width > WIDEST:
                image = image.resize((WIDEST, round(image.height * WIDEST / image.width)))
            packed = io.BytesIO()
            image.save(packed, "PNG")
            self._known[key] = [self._length, len(packed.getvalue())]
            self._parts.append(packed.getvalue())
            self._length += len(packed.getvalue())
        return self._known[key]

    def bytes(self) -> bytes:
        return b"".join(self._parts)


def stills(cast: ReplayScene, episode: Episode, frames: Sequence[int]) -> npt.NDArray[np.uint8]:
    """(n, height, width, 3): pictures of some frames of a cast without a scene; a game of states is drawn here."""
    if isinstance(cast.env, SampledGame):
        from workbench.jupyter.replay.game_board import draw_game

        return draw_game(cast.env, episode, frames)
    pictures: npt.NDArray[np.uint8] = episode.sights[list(frames)]
    return pictures


def episode_data(cast: ReplayScene, episode: Episode, pictures: PngBlock) -> dict[str, Any]:
    """One episode, its arrays still as arrays."""
    shown: dict[str, Any]
    if cast.scene is not None:
        shown = {"poses": cast.scene.poses(episode.sights)[:, moving(cast.scene)]}
    elif cast.kind == "game":
        shown = {"states": episode.sights}
    else:
        shown = {"pictures": [pictures.add(picture) for picture in episode.sights]}
    return {
        **shown,
        "frames": len(episode) + 1,
        "rewards": episode.rewards,
        "terms": [[term_label(name), values] for name, values in episode.terms.items()],
        "actions": [episode.actions[agent] for agent in cast.env.agents],
        "end": episode.end,
        "before": episode.before,
        "returned": episode.returned,
    }


def term_label(name: str) -> str:
    """What the page calls a number of a step.

    >>> term_label("reward_forward"), term_label("x_velocity"), term_label("reward/agent_0")
    ('forward', 'x velocity', 'reward agent_0')
    """
    return name.removeprefix("reward_").replace("_", " ") if "/" not in name else name.replace("/", " ")


def packed(spec: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """A spec with all arrays moved into one block of float32, and the block."""
    block = ArrayBlock()
    return block.pack(spec), block.bytes()
