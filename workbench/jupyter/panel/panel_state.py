"""What a panel shows of its session: the runs, the order and the setting that may be changed, the status line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.jupyter.panel.history_buffer import HistoryBuffer
from workbench.jupyter.panel.message import Message

if TYPE_CHECKING:
    from workbench.running.trainer import Trainer

ARRANGED, OWN = "arranged", "own"  # orders beside the named rules: as the user has put the agents, a function


@dataclass(frozen=True)
class AdjustableSetting:
    """A number of a method that the panel has a slider for."""

    setting: str
    label: str
    title: str
    low: float
    high: float
    logarithmic: bool = False


ADJUSTABLE_SETTINGS = (
    AdjustableSetting(
        "clip_epsilon", "clip ε", "How far the ratio of an agent's policies may move the surrogate", 0.01, 0.5
    ),
    AdjustableSetting(
        "team_max_kl", "team's KL δ", "How far the whole team may move in one iteration, in nats", 1e-3, 0.5, True
    ),
    AdjustableSetting(
        "max_kl", "max KL δ", "How far an agent's policy may move in one update, in nats", 1e-4, 0.1, True
    ),
)


@dataclass(frozen=True)
class PanelState:
    """What there is to show.

    buffers         {name: buffer} of all runs; ``active`` the name of the one that the panel drives
    running         whether it trains; ``fraction`` how far it is on the way to its goal, where that is known
    evaluating      whether it plays episodes with the policies as they are
    message         of the status line; ``trouble`` what went wrong beside it, in a listener
    asked_order     an order that was asked for and is not in effect yet; ``asked_value`` of the setting likewise
    """

    buffers: Mapping[str, HistoryBuffer]
    active: str
    running: bool
    evaluating: bool
    fraction: float | None
    message: Message
    trouble: Message
    asked_order: tuple[str, ...] | None
    asked_value: float | None

    @property
    def trainer(self) -> Trainer:
        return self.buffers[self.active].trainer

    @property
    def setting(self) -> AdjustableSetting | None:
        """The setting of the trainer's method that may be adjusted, if it has one."""
        held = self.trainer.settings
        return next((each for each in ADJUSTABLE_SETTINGS if getattr(held, each.setting, None) is not None), None)

    @property
    def order(self) -> tuple[str, ...]:
        """The order to show: what was asked for, else this iteration's order, else the next one's."""
        trainer = self.trainer
        if self.asked_order is not None:
            return self.asked_order
        if trainer.phase in ("update_agent", "update_critic"):
            return tuple(trainer.iteration_order)
        try:
            return tuple(trainer.remaining)
        except Exception:  # a user's own rule may need what is not there yet
            return tuple(trainer.units)
