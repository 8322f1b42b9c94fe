"""Exports that need no workbench to be read."""

from __future__ import annotations

import ast
import json
import os
import sys

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from point_team import PointTeam

import workbench as wb
from workbench.errors import CheckpointError
from workbench.learning.state import actor_of

SMALL = {"n_steps": 8, "hidden_sizes": (16, 12)}


def test_exported_policies_act_as_the_trained_ones(tmp_path):
    trainer = wb.happo(PointTeam(), seed=0, **SMALL).run(iterations=2, progress=False)
    loaded = wb.load_policies(wb.export_policies(trainer, tmp_path))
    step = trainer.env.reset(seed=3)
    actor = actor_of(trainer._setup, trainer._state)
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
    theirs = actor_of(trainer._setup, trainer._state).modes(step.observations, {})
    for agent, action in loaded.act(step.observations).items():
        np.testing.assert_array_equal(action, theirs[agent])


def test_exported_policies_heed_masks_and_name_who_is_missing(tmp_path):
    game = wb.theory.random_game(n_states=3, n_actions=(3, 2), seed=0)
    trainer = wb.happo(wb.envs.tabular(game, n_envs=6), seed=0, n_steps=4, hidden_sizes=(16,))
    loaded = wb.load_policies(wb.export_policies(trainer, tmp_path))
    seen = trainer.env.reset(seed=3).observations
    free = loaded.act(seen)
    forbidden = {"agent_0": np.arange(3) != free["agent_0"][:, None]}
    chosen = loaded.act(seen, forbidden)
    logits = loaded.outputs("agent_0", seen["agent_0"])
    np.testing.assert_array_equal(chosen["agent_0"], np.argsort(logits, axis=1)[:, 1])  # the second best
    np.testing.assert_array_equal(chosen["agent_1"], free["agent_1"])
    with pytest.raises(ValueError, match="observations has none for 'agent_1'"):
        loaded.act({"agent_0": seen["agent_0"]})
    with pytest.raises(ValueError, match=r"agent_0 takes \(n, 3\) inputs"):
        loaded.outputs("agent_0", np.zeros((2, 4)))
    with pytest.raises(ValueError, match="unknown agent 'agent0'; did you mean 'agent_0'"):
        loaded.outputs("agent0", seen["agent_0"])


def test_what_is_no_export_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no exported policies"):
        wb.load_policies(tmp_path)
    (tmp_path / "policies.json").write_text("{}")
    (tmp_path / "policies.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read as exported policies"):
        wb.load_policies(tmp_path)


READERS = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda path: pd.read_json(path, lines=True)}


@pytest.mark.parametrize("kind", READERS)
def test_tables_are_what_the_trainer_shows(kind, tmp_path):
    trainer = wb.happo(PointTeam(), seed=0, **SMALL).run(iterations=3, evaluate_every=2, progress=False)
    wb.export_tables(trainer, tmp_path, kind=kind)
    for name in ("history", "agent_history", "evaluations"):
        found, shown = READERS[kind](tmp_path / f"{name}.{kind}"), getattr(trainer, name)
        if "order" in shown:
            shown["order"] = shown["order"].map(" ".join)
        assert list(found) == list(shown)
        rtol = 0 if kind == "parquet" else 1e-9  # CSV and JSON round; Parquet has every bit
        if "returns" in shown:  # of each episode; CSV has them as text
            written = found.pop("returns").map(ast.literal_eval if kind == "csv" else tuple)
            np.testing.assert_allclose(np.stack(written), np.stack(shown.pop("returns")), rtol=rtol)
        pd.testing.assert_frame_equal(found, shown, rtol=rtol, check_dtype=kind == "parquet")
    assert len(trainer.agent_history) == 9


def test_the_tables_of_a_run_that_has_not_begun_are_empty(tmp_path):
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    for kind, read in READERS.items():
        wb.export_tables(trainer, tmp_path / kind, kind=kind)
        assert len(read(tmp_path / kind / f"history.{kind}")) == 0


def test_tensorboard_shows_every_finite_number_by_env_steps(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = wb.happo(PointTeam(), seed=0, **SMALL).run(iterations=3, evaluate_every=2, progress=False)
    shown = EventAccumulator(str(wb.export_tensorboard(trainer, tmp_path / "events")))
    shown.Reload()

    def curve(tag):
        return [(event.step, event.value) for event in shown.Scalars(tag)]

    history, agents = trainer.history, trainer.agent_history
    assert curve("run/reward") == list(zip(history["env_steps"], history["reward"].astype("float32"), strict=True))
    (evaluated,) = trainer.evaluations.to_dict("records")
    assert curve("evaluation/return") == [(evaluated["env_steps"], np.float32(evaluated["return"]))]
    for agent, rows in agents.groupby("agent"):
        expected = list(zip(rows["env_steps"], rows["kl"].astype("float32"), strict=True))
        assert curve(f"agents/{agent}/kl") == expected
    ended = history[history["episodes"] > 0]
    assert curve("run/return") == list(zip(ended["env_steps"], ended["return"].astype("float32"), strict=True))


class Kept:
    """A logger that keeps what it is told, and fails once."""

    def __init__(self):
        self.told = {}

    def log(self, numbers, step):
        self.told[step] = numbers
        if len(self.told) == 2:
            raise ConnectionError("no network")


def test_a_live_log_has_what_the_export_has_and_a_failing_one_stops_nothing(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"evaluate_every": 2, "progress": False}
    kept, live, twin = Kept(), tmp_path / "run", wb.happo(PointTeam(), seed=0, **SMALL).run(iterations=3, **options)
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    with pytest.warns(UserWarning, match="failed to log: ConnectionError.*training goes on"):
        trainer.run(iterations=3, log=kept, **options)
    assert trainer.fingerprint() == twin.fingerprint()
    wb.happo(PointTeam(), seed=0, **SMALL).run(env_steps=32, log="tensorboard", directory=live, **options)
    resumed = wb.happo(PointTeam(), seed=0, **SMALL)
    resumed.run(env_steps=96, log="tensorboard", directory=live, **options)
    afterwards = EventAccumulator(str(wb.export_tensorboard(resumed, tmp_path / "after"))).Reload()
    at_once = EventAccumulator(str(live / "tensorboard")).Reload()
    tags = afterwards.Tags()["scalars"]
    assert sorted(tags) == sorted(at_once.Tags()["scalars"])
    assert len(tags) > 30
    for tag in tags:
        curve = [(event.step, event.value) for event in afterwards.Scalars(tag)]
        assert curve == [(event.step, event.value) for event in at_once.Scalars(tag)]
        if tag not in ("run/seconds", "run/env_steps_per_second"):
            assert curve == [(step, np.float32(numbers[tag])) for step, numbers in kept.told.items() if tag in numbers]


@pytest.mark.parametrize("log", ["tensorbord", 3, print])
def test_what_cannot_be_logged_to_is_refused_before_anything_runs(log, tmp_path):
    with pytest.raises(ValueError, match=r'log is .*; expected "tensorboard", or an object with log\(numbers, step\)'):
        wb.happo(PointTeam(), seed=0, **SMALL).run(iterations=1, log=log, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="TensorBoard is not installed: pip install tensorboard"):
        wb.export_tensorboard(wb.happo(PointTeam(), seed=0, **SMALL), tmp_path / "events")
    assert not (tmp_path / "events").exists()


def test_an_unknown_kind_is_refused(tmp_path):
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    with pytest.raises(ValueError, match="did you mean 'csv'"):
        wb.export_tables(trainer, tmp_path, kind="cvs")


def exported(tmp_path):
    trainer = wb.happo(wb.envs.mujoco("Hopper", "3x1", n_envs=2), seed=0, **SMALL)
    return wb.export_policies(trainer, tmp_path), trainer.env.reset(seed=0).observations


def test_a_flipped_bit_of_exported_policies_is_told(tmp_path):
    directory, seen = exported(tmp_path)
    good, rng = wb.load_policies(directory).act(seen), np.random.default_rng(0)
    for name in ("policies.safetensors", "policies.json"):
        whole = (directory / name).read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
            (directory / name).write_bytes(content)
            try:
                acted = wb.load_policies(directory).act(seen)
            except CheckpointError:
                continue
            assert all(np.array_equal(acted[agent], good[agent]) for agent in good)  # a blank between two words
        (directory / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about, tensors: tensors.pop("agent_1/layer_1/bias"), "agent_1/layer_1/bias"),
        (lambda about, tensors: tensors.update({"agent_0/std": np.ones(7, np.float32)}), r"agent_0/std is .*\(7,\)"),
        (lambda about, tensors: tensors["agent_2/layer_0/bias"].fill(np.nan), "agent_2/layer_0/bias .* not finite"),
        (lambda about, tensors: about["agents"]["agent_0"].update(inputs=99), "agent_0/layer_0/weight"),
        (lambda about, tensors: about["agents"]["agent_0"].pop("distribution"), "distribution"),
        (lambda about, tensors: about["agents"]["agent_0"].update(activation="gelu"), "gelu"),
    ],
)
def test_forged_policies_are_refused_when_they_are_loaded(tmp_path, change, said):
    directory, _ = exported(tmp_path)
    about = json.loads((directory / "policies.json").read_text())
    tensors = {
        name: array.copy() for name, array in safetensors.numpy.load_file(directory / "policies.safetensors").items()
    }
    del about["sha256"]
    change(about, tensors)
    (directory / "policies.json").write_text(json.dumps(about))
    safetensors.numpy.save_file(tensors, directory / "policies.safetensors")
    with pytest.raises(CheckpointError, match=said):
        wb.load_policies(directory)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_called_like_policies_is_not_waited_for(tmp_path):
    directory, _ = exported(tmp_path)
    (directory / "policies.safetensors").unlink()
    os.mkfifo(directory / "policies.safetensors")
    with pytest.raises(FileNotFoundError, match=r"policies\.safetensors is missing"):
        wb.load_policies(directory)


def test_policies_that_the_first_version_exported_are_read(tmp_path):
    trainer = wb.happo(PointTeam(), seed=0, normalize_observations=False, activation="relu", layer_norm="all", **SMALL)
    wb.export_policies(trainer, tmp_path)
    about = json.loads((tmp_path / "policies.json").read_text())
    del about["sha256"]  # which it did not write
    for described in about["agents"].values():
        for name in ("normalized", "activation", "layer_norm"):
            del described[name]
    seen = trainer.env.reset(seed=3).observations
    before = wb.load_policies(tmp_path).act(seen)
    (tmp_path / "policies.json").write_text(json.dumps(about))
    for agent, action in wb.load_policies(tmp_path).act(seen).items():
        np.testing.assert_array_equal(action, before[agent])


def test_files_have_the_mode_that_the_umask_gives(tmp_path):
    before = os.umask(0o002)
    try:
        trainer = wb.happo(PointTeam(), seed=0, n_steps=8, hidden_sizes=(8,))
        wb.export_policies(trainer, tmp_path)
        trainer.run(iterations=1, directory=tmp_path, progress=False)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o664}
