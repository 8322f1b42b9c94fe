"""What is written can be read by others, and what others wrote by us."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from run_tables import sweep_table

from workbench.errors import UnknownNameError
from workbench.statistics import compare, export_results, read_results

TASKS = ("HalfCheetah 2x3", "Walker2d 6x1")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_come_back_as_they_were(suffix, tmp_path):
    table = sweep_table(tasks=TASKS, seeds=2, points=3).assign(order=[(0, 1)] * 24, hidden_sizes=[[64, 64]] * 24)
    path = export_results(table, tmp_path / "new" / f"results.{suffix}")
    back = read_results(path)
    expected = table.assign(order="0 → 1", hidden_sizes="64 → 64")
    pd.testing.assert_frame_equal(back, expected, check_dtype=False, rtol=1e-15)
    assert compare(back, resamples=200).summary().table.equals(compare(table, resamples=200).summary().table)
    assert table["order"].iloc[0] == (0, 1)  # ours is left as it was
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing half written is left


def test_marl_eval_layout(tmp_path):
    table = sweep_table(tasks=TASKS, seeds=3, points=4).assign(win=0.5, absolute_win=0.75)
    path = export_results(table, tmp_path / "results.json", metrics=("return", "win"), environment="mamujoco")
    layout = json.loads(path.read_text())
    assert list(layout) == ["mamujoco"]
    assert list(layout["mamujoco"]) == list(TASKS)
    for task, algorithms in layout["mamujoco"].items():
        assert list(algorithms) == ["happo", "mappo"]
        for algorithm, runs in algorithms.items():
            assert list(runs) == ["seed_0", "seed_1", "seed_2"]
            for k, run in enumerate(runs.values()):
                assert list(run) == ["step_0", "step_1", "step_2", "step_3", "absolute_metrics"]  # the last one last
                rows = table[(table["run"] == f"{algorithm}-{TASKS.index(task)}-{k}")]
                for step, row in zip(list(run.values())[:-1], rows.itertuples(), strict=True):
                    value = rows.loc[row.Index, "return"]
                    assert step == {"step_count": row.env_steps, "return": [value], "win": [0.5]}
                    assert type(step["step_count"]) is int
                best = rows["absolute_return"].iloc[0]
                assert run["absolute_metrics"] == {"return": [best], "win": [0.75]}


def test_marl_eval_layout_comes_back(tmp_path):
    table = sweep_table(tasks=TASKS, seeds=3, points=4)
    back = read_results(export_results(table, tmp_path / "results.json"))
    assert back.columns.tolist() == ["environment", "task", "method", "seed", "env_steps", "return", "absolute_return"]
    for at in ("end", "absolute"):
        theirs, ours = (
            compare(t, at=at, task=task, **{"resamples": 200}) for t, task in ((back, "task"), (table, None))
        )
        np.testing.assert_array_equal(theirs.summary().table["iqm"], ours.summary().table["iqm"])


def test_others_episodes_are_averaged(tmp_path):
    run = {"step_1": {"step_count": 10, "Return": [1, 3]}, "absolute_metrics": {"Return": [4, 6, 8]}}
    (tmp_path / "theirs.json").write_text(json.dumps({"smax": {"3m": {"ippo": {"7": run}}}}))
    (row,) = read_results(tmp_path / "theirs.json").to_dict("records")
    about = {"environment": "smax", "task": "3m", "method": "ippo", "seed": "7", "env_steps": 10}
    assert row == {**about, "Return": 2.0, "absolute_Return": 6.0}


def test_what_is_left_out_of_statistics_is_left_out_here(tmp_path):
    table = sweep_table(seeds=3)
    table.loc[table["run"] == "happo-0-1", "steered"] = True
    table.loc[table["run"] == "mappo-0-2", "status"] = "running"
    layout = json.loads(export_results(table, tmp_path / "r.json").read_text())["workbench"]["HalfCheetah 2x3"]
    assert {name: list(runs) for name, runs in layout.items()} == {
        "happo": ["seed_0", "seed_2"],
        "mappo": ["seed_0", "seed_1"],
    }
    kept = json.loads(export_results(table, tmp_path / "r.json", steered=True, unfinished=True).read_text())
    assert all(len(runs) == 3 for runs in kept["workbench"]["HalfCheetah 2x3"].values())


def test_metrics_known_at_other_steps_stand_at_their_own(tmp_path):
    table = sweep_table(("a",), seeds=1, points=3).assign(win=[np.nan, 0.5, np.nan])
    path = export_results(table, tmp_path / "r.json", metrics=("return", "win"), absolute="end")
    run = json.loads(path.read_text())["workbench"]["HalfCheetah 2x3"]["a"]["seed_0"]
    assert [sorted(step) for step in list(run.values())[:3]] == [
        ["return", "step_count"],
        ["return", "step_count", "win"],
        ["return", "step_count"],
    ]


def test_the_absolute_metric_is_not_made_up(tmp_path):
    table = sweep_table(seeds=2, absolute=False)
    with pytest.raises(ValueError, match=r"happo on HalfCheetah 2x3, seed 0, has no absolute_return.*absolute='end'"):
        export_results(table, tmp_path / "r.json")
    assert not list(tmp_path.iterdir())
    layout = json.loads(export_results(table, tmp_path / "r.json", absolute="end").read_text())
    run = layout["workbench"]["HalfCheetah 2x3"]["happo"]["seed_0"]
    assert run["absolute_metrics"]["return"] == run["step_11"]["return"]


def test_other_files_are_refused(tmp_path):
    for name in ("results.xlsx", "results"):
        with pytest.raises(UnknownNameError, match=r"Known: \.csv, \.parquet, \.json"):
            export_results(sweep_table(seeds=2), tmp_path / name)
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="cannot be read as marl-eval's layout"):
        read_results(tmp_path / "list.json")
