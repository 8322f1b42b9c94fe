"""Studies: what has finished is kept in one small file a run, agrees with the spec, and is never done again."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from tiny_notebook import PARAMETERS, value_of, write_notebook

import workbench as wb
from workbench.__main__ import main
from workbench.sweeps import files, kept

SPEC = """\
notebook: ../tiny.ipynb
fixed: {rate: 0.2}
sweeps:
  long: {seeds: [0], fixed: {env_steps: 40}}
  short: {seeds: [0, 1], grid: {order: [random, fixed]}}
"""
TRAINED = """\
notebook: NOTEBOOK
fixed: {scenario: Walker2d, agent_conf: 2x3, n_envs: 2, n_steps: 8, env_steps: 64, evaluate_every: 32,
        evaluate_episodes: 2}
policies: {method: [happo]}
sweeps:
  all:
    seeds: [0, 1]
    zip:
      method: [happo]
      clip_epsilon: [0.1]
      settings: [{hidden_sizes: [8], lr: 0.002}]
"""


def make_study(tmp_path, text=SPEC, **given):
    home = tmp_path / "study"
    home.mkdir(exist_ok=True)
    (home / "spec.yaml").write_text(text)
    if not (tmp_path / "tiny.ipynb").exists():
        write_notebook(tmp_path / "tiny.ipynb")
    return wb.Study(home, **given)


def contents(study):
    return {path.name: path.read_bytes() for path in (study.home / "runs").glob("*")}


def test_what_has_finished_is_kept_and_never_done_again(tmp_path, client, monkeypatch):
    study = make_study(tmp_path)
    told = [(run.parameters["env_steps"], run.parameters["seed"]) for run in study.plan.runs]
    assert told == [(20, 0), (20, 0), (20, 1), (20, 1), (40, 0)], "the short first, seed by seed"
    assert "not known before a run is finished" in repr(study)
    study.pick(seed=0, env_steps=20).run(client=client, progress=False)
    assert [run.status for run in study.runs] == ["finished", "finished", "waiting", "waiting", "waiting"]
    before = contents(study)
    assert len(before) == 2

    # Elsewhere: the runs' own places are gone, and the notebook has got a parameter since then.
    shutil.rmtree(tmp_path / "scratch")
    write_notebook(tmp_path / "tiny.ipynb", parameters=PARAMETERS + "further: int = 3  # ≥ 0: something new\n")
    there = make_study(tmp_path)
    assert len(there.missing) == 3
    assert there.missing[0].name not in {run.name for run in study.plan.runs}, "the hash is another one now"
    assert "2 of 5 runs" in repr(there)
    assert "by the measured pace" in repr(there)
    there.run(client=client, progress=False)
    assert there.finished
    assert there.complaints() == []
    assert {name: content for name, content in contents(there).items() if name in before} == before
    begun = sorted(path.name for path in (tmp_path / "scratch/study/runs").glob("*"))
    assert len(begun) == 3, "the kept ones were begun anew"

    table = there.table("iterations")
    for (steps, order, seed), rows in table.groupby(["parameter_env_steps", "order", "seed"]):
        expected = [value_of(seed, step, order, 0.2) for step in range(1, steps + 1)]
        assert rows["return"].tolist() == expected
    assert "seconds" not in table
    # A value that differs from the default when the file was written is another run.
    other = make_study(tmp_path, SPEC.replace("rate: 0.2", "rate: 0.2, further: 4"))
    assert len(other.missing) == 5
    assert len(other.complaints()) == 5


def test_a_repetition_is_compared_with_what_is_kept(tmp_path, client):
    study = make_study(tmp_path).pick(seed=0, env_steps=20, order="fixed")
    study.run(client=client, progress=False)
    (before,) = study.kept
    for _ in range(2):
        again = make_study(tmp_path, again=True).pick(seed=0, env_steps=20, order="fixed")
        again.run(client=client, progress=False)
        assert list(again.repeated.values()) == ["the same, bit for bit"]
    table = kept.read_table(before.path)
    record = {**kept.read_record(before.path), "digest": "another", "git": {"revision": "another"}}
    kept.write(before.path, table, record)
    again.repeated.clear()
    again.run(client=client, progress=False)
    assert "DIFFERS" in next(iter(again.repeated.values()))
    assert "another revision" in next(iter(again.repeated.values()))


def test_a_trained_run_is_kept_with_its_settings_and_its_policies(tmp_path, client, root):
    study = make_study(tmp_path, TRAINED.replace("NOTEBOOK", str(root / "notebooks" / "experiment.ipynb")))
    study.run(client=client, progress=False)
    assert study.complaints() == []
    first, second = study.kept
    assert first.path.name.startswith("Walker2d-2x3_happo_seed-0_")
    record = kept.read_record(first.path)
    assert record["settings"]["clip_epsilon"] == 0.1
    assert record["settings"]["epochs"] == wb.happo(wb.envs.mujoco("Hopper", "3x1", n_envs=1)).epochs
    assert {"versions", "git", "machine", "threads", "started", "ended"} <= set(record)
    assert len(record["summary"]["fingerprint"]) == 64
    assert "host" not in json.dumps(record)

    evaluations = study.table()
    assert evaluations.groupby("seed")["env_steps"].apply(list).tolist() == [[0, 32, 64]] * 2
    agents = study.table("agents")
    assert len(agents) == 2 * 4 * 2
    assert agents["effective_sample_size"].between(0, 1).all()
    assert set(study.table("iterations")["order"]) <= {"agent_0 agent_1", "agent_1 agent_0"}
    best = max((first, second), key=lambda run: run.summary["return"])
    assert study.shipped == ("Walker2d-2x3_happo_6e1",)
    policies = study.policies(*study.shipped)
    assert policies.about["seed"] == best.parameters["seed"]
    assert policies.about["env_steps"] == 64
    assert len(wb.replay(policies, max_steps=3).episodes[0]) <= 3

    # What was edited, or made with other settings than the spec's, is told.
    rows = kept.read_table(first.path).to_pandas()
    rows.loc[0, "return"] += 1
    kept.write(first.path, pyarrow.Table.from_pandas(rows, preserve_index=False), record)
    record = kept.read_record(second.path)
    changed = {"settings": {**record["settings"], "lr": 0.5}, "summary": {**record["summary"], "steered": True}}
    kept.write(second.path, kept.read_table(second.path), {**record, **changed})
    told = "\n".join(study.complaints())
    assert "its rows are not those that were written" in told
    assert "it was trained with lr=0.5, the spec has 0.002" in told
    assert "it was changed by hand" in told


@pytest.mark.parametrize("task", ["a/b", "../../../outside", "..", "C:\\x", "nul\x00", ".hidden", "a b" * 200])
def test_a_value_with_a_path_in_it_never_leaves_the_directory(task, tmp_path, client):
    home = tmp_path / "deep" / "er"
    home.mkdir(parents=True)
    write_notebook(home / "tiny.ipynb", parameters=PARAMETERS + "scenario: str = 'plain'\nmethod: str = 'happo'\n")
    spec = {
        "notebook": "../tiny.ipynb",
        "sweeps": {"all": {"seeds": [0], "grid": {"scenario": [task], "method": [task]}}},
    }
    study = make_study(home, json.dumps(spec))
    study.run(client=client, progress=False)
    assert study.finished
    assert study.complaints() == []
    (run,) = study.kept
    assert run.path.parent == study.home / "runs"
    assert run.parameters["scenario"] == task
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in home.iterdir()} == {"tiny.ipynb", "study", "scratch"}


def test_values_make_file_names_one_for_each():
    values = [
        "Ant",
        "4x2",
        "seed-0",
        "1e6",
        "a/b",
        "a-b",
        "a:b",
        "..",
        "../..",
        "",
        ".hidden",
        "x" * 300,
        "x" * 301,
        "é",
    ]
    longest = {"method": "é" * 300, "scenario": "名/" * 300, "agent_conf": "\udc80" * 300, "seed": 10**300}
    assert len(kept.file_name("0" * 16, longest).encode()) < 255
    names = list(map(files.file_name, values))
    assert names[:4] == values[:4]
    assert len(set(names)) == len(names)
    assert all(name and len(name) < 80 and name[0] != "." and not set("/\\:\x00") & set(name) for name in names)


def rewrite(path, **summary):
    """Edit the summary in a kept run's record, as with any tool for parquet."""
    table = pyarrow.parquet.read_table(path)
    record = json.loads(table.schema.metadata[kept.RECORD])
    record["summary"] |= summary
    pyarrow.parquet.write_table(table.replace_schema_metadata({kept.RECORD: json.dumps(record)}), path)


def test_damage_and_edits_are_told_by_the_files_name(tmp_path, root, client):
    study = make_study(tmp_path).pick(seed=0, env_steps=20)
    study.run(client=client, progress=False)
    first, second = (run.path for run in study.kept)
    assert study.complaints() == []
    whole = first.read_bytes()
    first.write_bytes(whole[:4] + b"\xff" * 196 + whole[200:])  # the first page; the footer stays
    (told,) = study.complaints()
    assert told.startswith(f"{first.name}: it is damaged, its rows cannot be read")
    with pytest.raises(ValueError, match=f"{first.name} is damaged"):
        study.table("iterations")
    first.write_bytes(whole[: len(whole) // 2])
    (told,) = study.complaints()
    assert told.startswith(f"{first.name} is no kept run")
    first.write_bytes(whole)
    rewrite(second, **{"return": 1e9})
    assert study.complaints() == [f"{second.name}: its record is not the one that was written"]


def test_an_edit_of_a_record_from_before_there_were_seals_is_told(tmp_path, root):
    home = tmp_path / "data" / "study"
    shutil.copytree(root / "data" / "walker2d", home)
    (tmp_path / "notebooks").mkdir()
    shutil.copy(root / "notebooks" / "experiment.ipynb", tmp_path / "notebooks")
    path = wb.Study(home).kept[0].path
    assert kept.SEAL not in kept.read_record(path)
    rewrite(path, **{"return": 1e9})
    assert wb.Study(home).complaints() == [f"{path.name}: its record is not the one that was written"]


def test_after_its_hours_no_run_is_begun(tmp_path, client):
    study = make_study(tmp_path)
    study.run(client=client, progress=False, hours=0.0)
    assert not study.finished
    assert study.progress.state == "not running"
    study.run(client=client, progress=False)
    assert study.finished


def test_long_runs_are_thinned_evenly():
    rows = [{"iteration": i, "agent": agent} for i in range(2500) for agent in "ab"]
    left = kept.thinned(rows)
    assert len(left) == 2 * kept.MOST_ITERATIONS
    assert np.unique(np.diff(sorted({row["iteration"] for row in left}))).tolist() == [10]
    assert left[-1]["iteration"] == 2499
    assert kept.thinned(rows[:500]) == rows[:500]


def test_the_file_is_plain_parquet(tmp_path):
    row = {"iteration": 0, "env_steps": 10, "return": 0.1, "order": ["b", "a"], "seconds": 3.0}
    table = kept.tabulated({"evaluations": [], "iterations": [row], "agents": [{**row, "kl": None, "agent": "a"}]})
    kept.write(tmp_path / "run.parquet", table, {"format": 1, "digest": kept.digest(table)})
    found = pd.read_parquet(tmp_path / "run.parquet")
    assert found["return"].tolist() == [0.1, 0.1]
    assert found["order"].tolist() == ["b a", "b a"]
    assert "seconds" not in found
    assert kept.digest(kept.read_table(tmp_path / "run.parquet")) == kept.digest(table)
    with pytest.raises(ValueError, match="is no kept run"):
        kept.read_record(tmp_path / "absent.parquet")
    pyarrow.parquet.write_table(table.replace_schema_metadata(None), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="is no kept run"):
        kept.read_record(tmp_path / "other.parquet")
    kept.write(tmp_path / "later.parquet", table, {"format": 99})
    with pytest.raises(ValueError, match=r"later\.parquet has format 99; this version reads 1"):
        kept.read_record(tmp_path / "later.parquet")


def test_the_command_says_what_is_missing_and_what_is_wrong(tmp_path, capsys):
    study = make_study(tmp_path)
    home = str(study.home)
    assert main(["study", home, "--plan", "--only", "seed=0", "--only", "order=random,fixed"]) == 0
    assert "0 of 3 runs" in capsys.readouterr().out
    for words, message in (
        (["--only", "sed=0"], "did you mean 'seed'"),
        (["--only", "seed"], "expected NAME=VALUE"),
        (["--only", "seed=7"], "no run of the study"),
    ):
        with pytest.raises(SystemExit):
            main(["study", home, *words])
        assert message in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=r"has no spec\.yaml"):
        wb.Study(tmp_path)
    with pytest.raises(ValueError, match="did you mean 'fixed'"):
        make_study(tmp_path, SPEC.replace("fixed: {rate", "fixd: {rate"))
    with pytest.raises(ValueError, match=r"spec\.yaml needs notebook, a path relative to it, and sweeps, a mapping"):
        make_study(tmp_path, SPEC.split("sweeps:")[0])
    with pytest.raises(ValueError, match="unknown cell with policies"):
        study.policies("happo")


@pytest.mark.parametrize("name", ["tuning", "results", "walker2d"])
def test_what_is_committed_agrees_with_its_spec(root, name):
    study = wb.Study(root / "data" / name)
    assert study.complaints() == []
    for run in study.kept:
        assert run.path.stat().st_size < 200_000
        assert not files.read_json(run.path)
    held = [path for folder in ("runs", "policies") for path in (study.home / folder).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in held) < 20_000_000
