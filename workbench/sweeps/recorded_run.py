"""Training that leaves its results in a directory: what the notebook of a sweep calls."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import torch

from workbench.errors import path_of
from workbench.learning.settings import whole
from workbench.running.resume import CheckpointDirectory
from workbench.running.trainer import Trainer
from workbench.statistics.protocol import absolute_metric
from workbench.sweeps import layout
from workbench.sweeps.files import Json, append_lines, write_json, write_lines


def record(
    trainer: Trainer,
    directory: str | Path | None = None,
    *,
    env_steps: int,
    evaluate_every: int | None = None,
    evaluate_episodes: int = 32,
    sampled_episodes: int = 0,
    absolute_episodes: int = 0,
    save_every: int = 10,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Train to ``env_steps`` in all, evaluating under way, with everything in a directory; returns the summary.

    directory          where metrics, evaluations, checkpoints and at last ``summary.json`` go; a run that it holds is
                       taken up where it was, bit for bit. None keeps nothing
    evaluate_every     env steps between two evaluations, rounded up to whole iterations; the untrained and the final
                       policies are evaluated too. None: no evaluation
    evaluate_episodes  episodes in each
    sampled_episodes   episodes beside them in which actions are drawn as in training: ``sampled_return``
    absolute_episodes  episodes on which the policies of the best evaluation are judged at the end, other ones than they
                       were chosen by: the absolute metric (``wb.statistics.absolute_metric``). 0: none. Only where
                       there is a directory, and something was evaluated
    save_every         iterations between two checkpoints
    progress           whether to show a bar; None: in a terminal and in Jupyter

    Metrics are written after every iteration, so that others can read them while it trains.
    """
    if not isinstance(trainer, Trainer):
        raise TypeError(f"trainer is {trainer!r}; expected a trainer, such as wb.happo(env) makes.")
    env_steps = whole("env_steps", env_steps, 0)
    every = _iterations_between(evaluate_every, trainer)
    keeper = _Keeper(directory, env_steps, evaluate_episodes if every else None, sampled_episodes)
    checkpoints = None if directory is None else CheckpointDirectory(keeper.directory / layout.CHECKPOINTS).make()
    begun = checkpoints is not None and checkpoints.newest() is not None
    if every and not begun and trainer.env_steps == 0:
        trainer.evaluate(evaluate_episodes, sampled_episodes=sampled_episodes)
        if checkpoints is not None:
            checkpoints.write_best(*trainer._document())
    trainer.run(
        env_steps=env_steps,
        evaluate_every=every,
        evaluate_episodes=evaluate_episodes,
        sampled_episodes=sampled_episodes,
        directory=None if checkpoints is None else checkpoints.path,
        save_every=save_every,
        progress=_watched() if progress is None else progress,
        after_iteration=keeper,
    )
    keeper.write(trainer)
    summary = _summary(trainer)
    if absolute_episodes and checkpoints is not None and every:
        order = trainer.order if callable(trainer.order) else None
        summary |= absolute_metric(checkpoints.path, trainer.env, episodes=absolute_episodes, order=order)
    if directory is not None:
        write_json(keeper.directory / layout.SUMMARY, summary)
    return summary


def _iterations_between(evaluate_every: int | None, trainer: Trainer) -> int | None:
    """Env steps as whole iterations, rounded up."""
    if evaluate_every is None:
        return None
    try:
        return math.ceil(whole("evaluate_every", evaluate_every, 1) / (trainer.env.n_envs * trainer.settings.n_steps))
    except ValueError:
        raise ValueError(
            f"evaluate_every is {evaluate_every!r}; expected None or env steps ≥ 1, such as 50_000."
        ) from None


def _watched() -> bool:
    """Whether a progress bar would be seen: Jupyter names the notebooks that it shows, papermill does not."""
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ


def _summary(trainer: Trainer) -> Json:
    history, evaluations = trainer.history, trainer.evaluations
    ended = history["return"].dropna()
    final = evaluations["return"] if len(evaluations) else ended
    seconds = float(history["seconds"].sum())
    return {
        "agents": list(trainer.env.agents),
        "env_steps": trainer.env_steps,
        "iterations": trainer.iteration,
        "return": float(final.iloc[-1]) if len(final) else None,
        "train_return": float(ended.iloc[-1]) if len(ended) else None,
        "steered": trainer.steered,
        "fingerprint": trainer.fingerprint(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "train_seconds": seconds,
        "env_steps_per_second": trainer.env_steps / seconds if seconds else None,
    }


class _Keeper:
    """Evaluates at the end, if that was not due anyway, and writes what is new; called after each iteration."""

    def __init__(
        self, directory: str | Path | None, env_steps: int, evaluate_episodes: int | None, sampled_episodes: int
    ) -> None:
        self._kept = directory is not None
        self.directory = Path() if directory is None else path_of("directory", directory)
        if self._kept:
            self.directory.mkdir(parents=True, exist_ok=True)
        self._goal, self._episodes, self._sampled = env_steps, evaluate_episodes, sampled_episodes
        self._written: dict[str, int] = {}

    def __call__(self, trainer: Trainer) -> None:
        evaluated = {row["iteration"] for row in trainer._state.evaluations}
        if self._episodes and trainer.env_steps >= self._goal and trainer.iteration not in evaluated:
            trainer.evaluate(self._episodes, sampled_episodes=self._sampled)
        self.write(trainer)

    def write(self, trainer: Trainer) -> None:
        """Append what is new; the first time, put what a killed process left there in accord with the trainer."""
        if not self._kept:
            return
        state = trainer._state
        for name, log in (
            (layout.METRICS, state.history),
            (layout.AGENTS, state.agent_history),
            (layout.EVALUATIONS, state.evaluations),
        ):
            rows = list(log)
            if name in self._written:
                append_lines(self.directory / name, rows[self._written[name] :])
            else:
                write_lines(self.directory / name, rows)
            self._written[name] = len(rows)
