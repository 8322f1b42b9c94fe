"""PngBlock of a tabular game: its states on a circle, the one that the team is in, and what each agent does there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workbench.envs.sampled_game import SampledGame
from workbench.episodes import Episode
from workbench.jupyter import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (560, 320)  # pixels
MOST_LABELS = 40  # states, beyond which their numbers are left out

INK, MUTED, GROUND, LINE = "#2b2f36", "#5b6470", "#ffffff", "#c9ced6"


def draw_game(env: SampledGame, episode: Episode, frames: Sequence[int]) -> npt.NDArray[np.uint8]:
    """(n, height, width, 3), pictures of some frames."""
    board = Board(env)
    pictures = []
    for frame in frames:
        taken = tuple(int(episode.actions[agent][frame - 1]) for agent in env.agents) if frame else None
        before = int(episode.sights[frame - 1]) if frame else None
        reward = float(episode.rewards[frame - 1]) if frame else None
        pictures.append(board.draw(int(episode.sights[frame]), before, taken, reward))
    return np.stack(pictures)


class Board:
    """A game's states, laid out once."""

    def __init__(self, env: SampledGame) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.env = env
        self.figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor=GROUND)
        self.canvas = FigureCanvasAgg(self.figure)
        n = env.game.n_states
        angles = math.pi / 2 - 2 * math.pi * np.arange(n) / n
        self.places = np.stack([np.cos(angles), np.sin(angles)], 1) if n > 1 else np.zeros((1, 2))
        self.radius = min(0.2, 2.2 / n) if n > 1 else 0.2

    def draw(
        self, state: int, before: int | None, taken: tuple[int, ...] | None, reward: float | None
    ) -> npt.NDArray[np.uint8]:
        """The picture of one frame: (height, width, 3)."""
        self.figure.clear()
        axes = self.figure.add_axes((0.0, 0.0, 0.57, 1.0))
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.set_xlim(-1.35, 1.35)
        axes.set_ylim(-1.35, 1.35)
        self._states(axes, state, before)
        self._agents(taken, reward)
        self.canvas.draw()  # type: ignore[no-untyped-call]
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]

    def _states(self, axes: Axes, state: int, before: int | None) -> None:
        from matplotlib.patches import Circle

        for k, place in enumerate(self.places):
            here = k == state
            axes.add_patch(Circle(place, self.radius, facecolor=INK if here else GROUND, edgecolor=LINE, linewidth=1.5))
            if len(self.places) <= MOST_LABELS:
                color = GROUND if here else MUTED
                axes.text(place[0], place[1], f"s{k}", ha="center", va="center", color=color, fontsize=9)
        if before is not None and before != state:
            start, end = self.places[before], self.places[state]
            way = (end - start) / np.linalg.norm(end - start)
            arrow = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.5}
            axes.annotate("", end - 1.15 * self.radius * way, start + 1.15 * self.radius * way, arrowprops=arrow)

    def _agents(self, taken: tuple[int, ...] | None, reward: float | None) -> None:
        agents = self.env.agents
        shown = agents[:12]
        for k, agent in enumerate(shown):
            y = 0.86 - 0.78 * k / max(len(shown), 6)
            action = "–" if taken is None else str(taken[k])
            self.figure.text(0.6, y, "■", color=look.agent_color(agents, agent), fontsize=12, va="center")
            self.figure.text(0.645, y, f"{agent}", color=INK, fontsize=10, va="center")
            self.figure.text(0.86, y, f"action {action}", color=INK, fontsize=10, va="center")
        text = "the start" if reward is None else f"reward {reward:.4g}"
        self.figure.text(0.6, 0.07, text, color=MUTED, fontsize=10, va="center")
