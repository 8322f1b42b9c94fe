"""``python -m workbench``: what it prints, writes and refuses."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from workbench.__main__ import main
from workbench.commands import bench, bench_defaults, bench_machine, bench_processes


@pytest.fixture
def small(monkeypatch):
    """The benchmark at a size that takes a second; its figures are nobody's."""
    monkeypatch.setattr(bench, "STEPPING_ENVS", 4)
    monkeypatch.setattr(bench, "TRAINING_ENVS", 2)
    monkeypatch.setattr(bench, "STEPS_A_ROUND", 5)
    monkeypatch.setattr(bench, "TRAINING", {"n_steps": 5, "hidden_sizes": (8,)})
    monkeypatch.setattr(bench_defaults, "N_ENVS", 2)
    monkeypatch.setattr(bench_defaults, "ITERATIONS_A_ROUND", 1)
    monkeypatch.setattr(bench_defaults, "EPISODES", 2)
    monkeypatch.setattr(bench_defaults, "EVALUATE_EVERY", 256)
    monkeypatch.setattr(bench_defaults, "AT_MOST", 512)
    monkeypatch.setattr(bench_defaults, "RETURNS", (-1e6, 1e6))


def test_bench_prints_a_row_for_each_task(small, capsys):
    assert main(["bench", "Ant 4x2", "Humanoid 17x1", "--rounds", "2"]) == 0
    printed = capsys.readouterr().out
    assert "cores" in printed
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert rows["Ant 4x2"].count("%") == 3
    assert rows["Humanoid 17x1"].count("%") == 1
    assert "fork" in printed.splitlines()[-2]
    assert "other processes took" in printed.splitlines()[-1]


def test_bench_speaks_json(small, capsys):
    main(["bench", "Walker2d 6x1", "--rounds", "3", "--json"])
    found = json.loads(capsys.readouterr().out)
    (rates,) = found["rates"]
    assert rates["task"] == "Walker2d 6x1"
    assert all(len(values) == 3 and min(values) > 0 for values in rates["rounds"].values())
    assert sorted(rates["rounds"]["physics"])[1] == rates["physics"]
    ratios = [rate / limit for rate, limit in zip(rates["rounds"]["happo"], rates["rounds"]["physics"], strict=True)]
    assert rates["shares"]["happo"] == sorted(ratios)[1]
    assert {name: sorted(rates["rounds"][name])[1] for name in ("happo", "hatrpo")} == rates["training"]
    assert found["costs"]["fork_ms"] > 0
    assert 0 < found["costs"]["snapshot_mb"] < found["costs"]["iteration_mb"]
    assert found["together"] is found["footprint"] is None


def test_a_whole_bench_measures_in_processes_too(small, monkeypatch, capsys):
    monkeypatch.setattr(bench, "TASKS", {"Ant 4x2": bench.TASKS["Ant 4x2"]})
    monkeypatch.setattr(bench_processes, "IMPORT_ROUNDS", 1)
    monkeypatch.setattr(bench_processes, "ITERATIONS", 1)
    assert main(["bench", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["together"]["training"] > 0
    assert found["together"]["physics"] > 0
    taken = found["footprint"]
    assert taken["peak_memory_mb"] > 50
    assert 0 < taken["workbench_seconds"] < taken["trainer_seconds"]
    defaults = found["defaults"]
    assert set(defaults["shares"]) == set(bench_defaults.DEFAULTS)
    assert all(0 < share < 2 for share in defaults["shares"].values())
    for returns in found["returns"]:
        assert returns["env_steps"]["-1000000"] == 256  # reached at the first evaluation
        assert math.isnan(returns["seconds"]["1000000"])


def test_the_reference_takes_what_its_curve_and_its_rate_say():
    assert bench_defaults.reference_seconds("happo", 1340) == pytest.approx(1e6 / 1250)
    assert bench_defaults.reference_seconds("hatrpo", (560 + 1490) / 2) == pytest.approx(3.5e6 / 490)
    assert bench_defaults.reference_seconds("hatrpo", 3000) == math.inf


def test_the_bench_says_what_does_the_products():
    machine, products, *_ = bench_machine.machine_lines()
    assert "cores" in machine
    assert re.search(r"[\d,]+ Gflop/s a core by \w+ [\d.]+ \(", products)


def test_raw_physics_along_a_trajectory_is_the_same_simulation():
    env = bench.Task("Hopper", "3x1").env(4)
    env.reset(seed=0)
    start = env.snapshot()
    actions = [{agent: np.full((4, 1), 1.0, np.float32) for agent in env.agents}] * 80
    trajectory = bench._trajectory(env, actions)
    reached = env.engine.save()
    assert sum(begun.size for _, begun, _ in trajectory) > 3
    env.restore(start)
    raw = bench._RawPhysics(env)
    raw.rate_along(env, trajectory)
    assert np.array_equal(raw._engine.state, reached)


def test_train_goes_on_where_it_was(tmp_path, capsys):
    command = ["train", "happo", "Hopper", "3x1", "--seeds", "0", "1", "--directory", str(tmp_path)]
    command += ["--set", "n_steps=5", "--set", "hidden_sizes=(8,)", "--set", "order=reversed"]
    assert main([*command, "--env-steps", "200"]) == 0
    first = pd.read_csv(tmp_path / "history.csv")
    assert main([*command, "--env-steps", "300"]) == 0
    both = pd.read_csv(tmp_path / "history.csv")
    assert both.groupby("seed")["env_steps"].max().tolist() == [320, 320]
    seed_0 = both[both["seed"] == 0].head(3)
    assert seed_0["reward"].tolist() == first[first["seed"] == 0]["reward"].tolist()
    assert set(both["order"]) == {"('agent_2', 'agent_1', 'agent_0')"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "Ant 4x3"], "did you mean 'Ant 4x2'"),
        (["train", "hapo", "Ant", "4x2"], "did you mean 'happo'"),
        (["train", "happo", "Ant", "5x2"], "unknown partition of Ant"),
        (["train", "happo", "Ant", "4x2", "--set", "clip_epsilion=0.1"], "did you mean 'clip_epsilon'"),
        (["train", "happo", "Ant", "4x2", "--set", "clip_epsilon"], "expected NAME=VALUE"),
        (["train", "happo", "Swimmer", "2x1", "--reference"], "unknown task with reference settings"),
    ],
)
def test_bad_commands_are_told_in_one_line(arguments, message, tmp_path, capsys):
    directory = ["--directory", str(tmp_path)] if arguments[0] == "train" else []
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *directory])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
