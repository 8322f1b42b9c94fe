"""The numbers of a run, told to a logger while it trains: TensorBoard, or anything with ``log(numbers, step)``."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from workbench.learning.state import State


class Logger(Protocol):
    """What Weights & Biases' runs, trackio and others offer."""

    def log(self, numbers: dict[str, float], step: int, /) -> object:
        """Keep the numbers of one step."""


class TensorBoard:
    """TensorBoard's events in a directory, by default one of runs/; steps from ``purge_step`` on are written anew."""

    def __init__(self, directory: Path | None = None, purge_step: int | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("TensorBoard is not installed: pip install tensorboard.") from None
        where = None if directory is None else str(directory)
        self._writer: Any = SummaryWriter(where, purge_step=purge_step, flush_secs=5)

    def log(self, numbers: Mapping[str, float], step: int, /) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def numbers_of(prefix: str, row: Mapping[str, object]) -> dict[str, float]:
    """The finite floats of a row of a table, under the names that loggers show: "agents/agent_0/kl"."""
    name = f"{prefix}/{row['agent']}" if "agent" in row else prefix
    return {f"{name}/{key}": float(x) for key, x in row.items() if isinstance(x, float) and np.isfinite(x)}


def check_logger(log: object) -> None:
    """Refuse what numbers cannot be told to, before anything runs."""
    if log is not None and log != "tensorboard" and not callable(getattr(log, "log", None)):
        raise ValueError(
            f'log is {log!r}; expected "tensorboard", or an object with log(numbers, step), such as wandb.init() gives.'
        )


@contextlib.contextmanager
def logging_to(
    log: str | Logger | None, directory: Path | None, env_steps: int
) -> Iterator[Callable[[State, int], None]]:
    """What is to be called after each iteration with the state, and how many of its evaluations are known already.

    A logger that fails is warned of; it stops no training.
    """
    own: TensorBoard | None = None
    if log == "tensorboard":
        log = own = TensorBoard(None if directory is None else directory / "tensorboard", env_steps + 1)

    def tell(state: State, evaluated: int) -> None:
        numbers = numbers_of("run", state.history[-1])
        updates, evaluations = state.agent_history, state.evaluations
        for index in range(max(0, len(updates) - len(state.policies)), len(updates)):
            numbers |= numbers_of("agents", updates[index])
        for index in range(evaluated, len(evaluations)):
            numbers |= numbers_of("evaluation", evaluations[index])
        try:
            cast(Logger, log).log(numbers, state.env_steps)
        except Exception as error:
            warnings.warn(f"{log!r} failed to log: {error!r}; training goes on.", stacklevel=3)

    try:
        yield tell if log is not None else lambda state, evaluated: None
    finally:
        if own is not None:
            own.close()
