"""An episode as plain data for the page: solids and poses, or pictures, and the numbers of every frame."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from workbench.envs.base import TeamEnv
from workbench.envs.sampled_game import SampledGame
from workbench.envs.scene import Scene, Shape
from workbench.episodes import Episode
from workbench.jupyter import look
from workbench.jupyter.look import Spec

Frames = npt.NDArray[np.uint8]  # (n, height, width, 3)

SECONDS = 0.2  # from one picture to the next, where an environment has no clock of its own
WIDEST = 800  # pixels of a picture


@dataclass(frozen=True, eq=False)
class Surface:
    """The part of a solid that one agent moves, or a whole solid that no agent moves.

    solid         its number among the scene's
    key           equal for equal shapes
    color, owner  of the agent; None where there is none
    """

    solid: int
    key: tuple[int, int, int]
    shape: Shape
    color: str | None
    owner: str | None


@dataclass(frozen=True, eq=False)
class ReplayScene:
    """What is the same in all frames.

    env       the environment, for its agents and their actions
    geometry  its solids; None where it shows pictures
    """

    env: TeamEnv
    geometry: Scene | None

    @staticmethod
    def of(env: TeamEnv) -> ReplayScene:
        return ReplayScene(env, env.scene())

    @property
    def kind(self) -> str:
        """How it is drawn: "poses" of solids, a "game" of states, or "pictures"."""
        return "poses" if self.geometry is not None else "game" if isinstance(self.env, SampledGame) else "pictures"

    @property
    def seconds(self) -> float:
        """From one frame to the next."""
        return SECONDS if self.geometry is None else self.geometry.seconds_per_step

    @cached_property
    def surfaces(self) -> list[Surface]:
        """All that is drawn of the solids, solid by solid."""
        found: list[Surface] = []
        for k, solid in enumerate(self.geometry.solids if self.geometry is not None else ()):
            assert self.geometry is not None
            owners = solid.owners or (None,)
            bands = self.geometry.shapes[solid.shape].bands(len(owners))
            for band, (owner, shape) in enumerate(zip(owners, bands, strict=True)):
                color = None if owner is None else look.agent_color(self.env.agents, owner)
                found.append(Surface(k, (solid.shape, band, len(bands)), shape, color, owner))
        return found

    @property
    def moving(self) -> list[int]:
        """The solids whose poses change, in their order."""
        return [k for k, solid in enumerate(self.geometry.solids) if solid.moves] if self.geometry is not None else []


def agents_of(scene: ReplayScene, episodes: Sequence[Episode]) -> list[Spec]:
    """What the page says of each agent: name, colour, and the components of its action with their limits."""
    found = []
    for agent in scene.env.agents:
        space = scene.env.action_spaces[agent]
        discrete = not isinstance(space, gymnasium.spaces.Box)
        names: Sequence[str] = scene.geometry.components[agent] if scene.geometry is not None else ()
        size = int(np.prod(space.shape or (1,)))
        if len(names) != size:
            names = ["action"] if size == 1 else [f"action {k}" for k in range(size)]
        low, high = _limits(space, [episode.actions[agent] for episode in episodes])
        scales = zip(names, low.tolist(), high.tolist(), strict=True)
        components = [{"name": name, "low": least, "high": most} for name, least, most in scales]
        color = look.agent_color(scene.env.agents, agent)
        found.append({"name": agent, "color": color, "discrete": discrete, "components": components})
    return found


def _limits(
    space: gymnasium.Space[Any], taken: Sequence[npt.NDArray[np.generic]]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The ends of the scale that each component is drawn on: the space's own, or the largest seen."""
    if not isinstance(space, gymnasium.spaces.Box):
        size = int(np.prod(space.shape or (1,)))
        return np.zeros(size), np.ones(size)
    largest = max((float(np.abs(actions).max(initial=1e-6)) for actions in taken), default=1.0)
    low = np.where(np.isfinite(space.low), space.low, -largest).astype(np.float64)
    high = np.where(np.isfinite(space.high), space.high, largest).astype(np.float64)
    return low, high


def scene_data(scene: ReplayScene) -> Spec | None:
    """The solids: each shape once, each surface with where it is; None where there are none."""
    geometry = scene.geometry
    if geometry is None:
        return None
    columns = {k: column for column, k in enumerate(scene.moving)}
    shapes = {surface.key: surface.shape for surface in scene.surfaces}
    numbers = {key: number for number, key in enumerate(shapes)}
    parts = [
        {
            "shape": numbers[surface.key],
            "column": columns.get(surface.solid, -1),
            "pose": None if surface.solid in columns else geometry.resting[surface.solid].tolist(),
            "color": surface.color,
            "owner": surface.owner,
            "solid": geometry.solids[surface.solid].name,
            "opacity": geometry.solids[surface.solid].color[3],
        }
        for surface in scene.surfaces
    ]
    return {
        "shapes": [
            {"vertices": shape.vertices, "normals": shape.normals, "triangles": shape.triangles}
            for shape in shapes.values()
        ],
        "parts": parts,
        "floors": [
            {"position": floor.position, "quaternion": floor.quaternion, "extents": floor.extents}
            for floor in geometry.floors
        ],
        "columns": len(columns),
        "radius": geometry.radius,
    }


class PngBlock:
    """Pictures as PNG, one after the other in one block, each different one once."""

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


def stills(scene: ReplayScene, episode: Episode, frames: Sequence[int]) -> Frames:
    """Pictures of some frames of an environment without solids; a game of states is drawn here."""
    if isinstance(scene.env, SampledGame):
        from workbench.jupyter.replay.game_board import draw_game

        return draw_game(scene.env, episode, frames)
    pictures: Frames = episode.sights[list(frames)]
    return pictures


def episode_data(scene: ReplayScene, episode: Episode, pictures: PngBlock) -> Spec:
    """One episode, its arrays still as arrays."""
    shown: Spec
    if scene.geometry is not None:
        shown = {"poses": scene.geometry.poses(episode.sights)[:, scene.moving]}
    elif scene.kind == "game":
        shown = {"states": episode.sights}
    else:
        shown = {"pictures": [pictures.add(picture) for picture in episode.sights]}
    return {
        **shown,
        "frames": len(episode) + 1,
        "rewards": episode.rewards,
        "terms": [[term_label(name), values] for name, values in episode.terms.items()],
        "actions": [episode.actions[agent] for agent in scene.env.agents],
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
