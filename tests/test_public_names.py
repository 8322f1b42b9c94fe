"""The public names, used as the documentation shows them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from public_surface import surface

import workbench as wb


@pytest.fixture(scope="module")
def env():
    return wb.envs.mujoco("Ant", "4x2", n_envs=2, agent_obsk=None)


def test_environments(env):
    assert env.agents == ("agent_0", "agent_1", "agent_2", "agent_3")
    game = wb.envs.tabular(wb.theory.simultaneous_game(), n_envs=4)
    wb.envs.check(game)
    assert callable(wb.envs.pettingzoo)


def test_a_trainer(env, tmp_path):
    trainer = wb.happo(env, seed=0, clip_epsilon=0.2, n_steps=5, hidden_sizes=(8,))
    assert trainer.phase == "collect"
    assert trainer.step().phase == "collect"
    trainer.order = (2, 0, 3, 1)
    trainer.clip_epsilon = 0.1
    trainer.step()
    assert trainer.remaining == ("agent_2", "agent_0", "agent_3", "agent_1")
    assert list(trainer.m_factors) == ["agent_2"]
    assert trainer.m_factors["agent_2"].shape == (5, 2)
    trainer.iterate()
    trainer.run(iterations=1, progress=False)
    trainer.run(env_steps=30, progress=False)
    assert isinstance(trainer.history, pd.DataFrame)
    assert len(trainer.history) == 3
    assert len(trainer.agent_history) == 12
    assert trainer.evaluate(episodes=2).shape == (2,)
    fork = trainer.fork(clip_epsilon=0.05)
    trainer.rewind(phases=1)
    trainer.rewind(iterations=1)
    trainer.fingerprint()
    trainer.save(tmp_path / "run")
    assert wb.load(tmp_path / "run").fingerprint() == trainer.fingerprint()
    assert wb.load(tmp_path / "run", env=env).fingerprint() == trainer.fingerprint()
    for order in ("random", "fixed", "reversed", "greedy", lambda context: context.remaining):
        fork.order = order
    for view in (wb.views.returns(trainer), wb.views.m_factors(fork)):
        assert view.figure.data
    assert wb.views.compare({"a": trainer, "b": fork}, "return").figure is not None
    assert isinstance(trainer.interventions, tuple)


@pytest.mark.parametrize("method", ["happo", "hatrpo", "mappo", "ippo", "shared_ppo", "haa2c"])
def test_every_method_has_a_recipe(env, method):
    trainer = getattr(wb, method)(env, seed=np.int64(0), n_steps=4, hidden_sizes=(8,))
    assert trainer.iterate()[-1].phase == "update_critic"
    assert list(inspect.signature(getattr(wb, method)).parameters)[:2] == ["env", "seed"]


def test_theory():
    game = wb.theory.TabularGame(
        np.zeros((2, 2, 3)), np.full((2, 2, 3, 2), 0.5), initial=np.array([1.0, 0.0]), discount=0.5
    )
    policies = (np.full((2, 2), 1 / 2), np.full((2, 3), 1 / 3))
    found = wb.theory.evaluate(game, policies)
    assert found.objective == 0
    assert found.values.shape == (2,)
    assert found.action_values.shape == found.advantages.shape == (2, 2, 3)
    assert found.visitation.sum() == pytest.approx(2)  # unnormalised: 1/(1 − γ)
    assert wb.theory.multi_agent_action_value(game, policies, agents=(1, 0)).shape == (2, 3, 2)
    assert wb.theory.multi_agent_advantage(game, policies, given=(1,), agents=(0,)).shape == (2, 3, 2)
    trace = wb.theory.algorithm1(game, policies, iterations=2, seed=0, floor=1e-3)
    assert len(trace.objectives) == 3
    assert len(trace.orders) == len(trace.penalties) == 2
    assert trace.policies is not None
    assert wb.theory.nash_gap(game, policies, floor=0.0) == pytest.approx(0)
    wb.theory.best_shared_policy(wb.theory.sharing_game(4))


def fields(line):
    """A line of the record: (the name, its positional parameters in order, all of its parameters)."""
    name, _, inside = re.fullmatch(r"([\w.]+)(\((.*)\))?", line).groups()
    given = inside.split(", ") if inside else []
    return name, given[: given.index("*")] if "*" in given else given, set(given) - {"*"}


def test_nothing_public_is_missing():
    """Every call that the last release took is taken still; python tests/public_surface.py makes the record."""
    record = (Path(__file__).parent / "public_surface.txt").read_text().splitlines()
    now = {name: rest for name, *rest in map(fields, surface())}
    lost = []
    for name, positional, every in map(fields, record):
        present, have = now.get(name, ([], None))
        kept = have is not None and present[: len(positional)] == positional and every <= have
        required = (
            set() if have is None else {one for one in have - every if not one.startswith("*") and one[-1] != "="}
        )
        if not kept or required:
            lost.append(name)
    assert len(record) > 400
    assert lost == []
