"""A live view reads its numbers off the events, and they are the trainer's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sessions import make_trainer

from workbench.jupyter.panel.history_buffer import HistoryBuffer


def assert_buffer_is_the_trainer(buffer: HistoryBuffer) -> None:
    trainer = buffer.trainer
    run = buffer.run()
    history, rows = trainer.history, trainer.agent_history
    for name in ("env_steps", "return", "reward", "value_loss", "explained_variance"):
        np.testing.assert_array_equal(run.column("iterations", name), history[name].to_numpy(dtype=float), err_msg=name)
    assert sum(len(run.updates_of(unit, "kl")) for unit in run.updates) == len(rows)
    for unit in run.updates:
        mine = rows[rows["agent"] == unit]
        for name in ("iteration", "position", "kl", "effective_sample_size"):
            np.testing.assert_array_equal(run.updates_of(unit, name), mine[name].to_numpy(dtype=float))
    assert run.order == trainer.iteration_order
    assert list(run.m_factors) == list(trainer.m_factors)
    pd.testing.assert_frame_equal(pd.DataFrame(dict(run.evaluations)), trainer.evaluations, check_dtype=False)


def test_a_buffer_holds_what_the_trainer_holds_whatever_happens() -> None:
    trainer = make_trainer()
    trainer.iterate()
    buffer = HistoryBuffer(trainer, "r")
    assert_buffer_is_the_trainer(buffer)
    rng = np.random.default_rng(0)
    actions: list[Callable[[], Any]] = [
        trainer.step,
        trainer.step,
        trainer.step,
        trainer.iterate,
        lambda: trainer.rewind(phases=int(rng.integers(1, 6))),
        lambda: trainer.rewind(iterations=1) if trainer.iteration > 1 else None,
        lambda: trainer.evaluate(1),
        lambda: setattr(trainer, "clip_epsilon", float(rng.uniform(0.1, 0.3))),
    ]
    for _ in range(24):
        actions[rng.integers(len(actions))]()
        assert_buffer_is_the_trainer(buffer)


def test_a_settled_run_is_the_last_complete_iteration() -> None:
    trainer = make_trainer()
    buffer = HistoryBuffer(trainer, "r")
    trainer.iterate()
    order, factors = trainer.iteration_order, trainer.m_factors
    for _ in range(4):
        trainer.step()
    run = buffer.run(settled=True)
    assert (run.upto, run.order) == (0, order)
    assert all(np.array_equal(run.m_factors[agent], factors[agent]) for agent in factors)


def test_a_buffer_that_nobody_holds_is_forgotten() -> None:
    trainer = make_trainer()
    HistoryBuffer(trainer, "r")
    assert not trainer._listeners
