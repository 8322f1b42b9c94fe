"""Exports that need no workbench to be read."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from point_team import PointTeam

import workbench as wb
from workbench.errors import CheckpointError

SMALL = {"n_steps": 8, "hidden_sizes": (16, 12)}


def test_exported_policies_act_as_the_trained_ones(tmp_path):
    trainer = wb.happo(PointTeam(), seed=0, **SMALL).run(iterations=2, progress=False)
    loaded = wb.load_policies(wb.export_policies(trainer, tmp_path))
    step = trainer.env.reset(seed=3)
    actor = trainer._setup.team.actor(trainer._state.policies)
    theirs = actor.modes(step.observations, {})
    for agent, action in loaded.act(step.observations).items():
        np.testing.assert_allclose(action, theirs[agent], atol=1e-6)
    assert loaded.about["env_steps"] == trainer.env_steps
    assert "layer_2/weight" in " ".join(safetensors.numpy.load_file(tmp_path / "policies.safetensors"))
    assert json.loads((tmp_path / "policies.json").read_text())["agents"]["agent_1"]["layers"] == 3


def test_discrete_and_shared_policies_too(tmp_path):
    game = wb.theory.sharing_game(4)
    trainer = wb.shared_ppo(wb.envs.tabular(game, n_envs=8), seed=0, n_steps=4, hidden_sizes=(16,))
    trainer.iterate()
    loaded = wb.load_policies(wb.export_policies(trainer, tmp_path))
    step = trainer.env.reset(seed=3)
    theirs = trainer._setup.team.actor(trainer._state.policies).modes(step.observations, {})
    for agent, action in loaded.act(step.observations).items():
        np.testing.assert_array_equal(action, theirs[agent])


def test_what_is_no_export_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no exported policies"):
        wb.load_policies(tmp_path)
    (tmp_path / "policies.json").write_text("{}")
    (tmp_path / "policies.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read as exported policies"):
        wb.load_policies(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_tables_are_what_the_trainer_shows(kind, tmp_path):
    trainer = wb.happo(PointTeam(), seed=0, **SMALL).run(iterations=3, progress=False)
    wb.export_tables(trainer, tmp_path, kind=kind)
    read = pd.read_csv if kind == "csv" else lambda path: pd.read_json(path, lines=True)
    history = read(tmp_path / f"history.{kind}")
    np.testing.assert_allclose(history["reward"], trainer.history["reward"])
    assert tuple(history["order"].iloc[0].split()) == trainer.history["order"].iloc[0]
    assert len(read(tmp_path / f"agent_history.{kind}")) == 9


def test_an_unknown_kind_is_refused(tmp_path):
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    with pytest.raises(ValueError, match="did you mean 'csv'"):
        wb.export_tables(trainer, tmp_path, kind="cvs")
