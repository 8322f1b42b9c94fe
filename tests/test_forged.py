"""Files are data: whatever is damaged in one or forged, reading it ends in one sentence or in what the file says."""

from __future__ import annotations

import copy
import resource
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from point_team import PointTeam

import workbench as wb
from workbench.commands.run_sweep import read_spec
from workbench.errors import WorkbenchError
from workbench.running import checkpoint

SMALL = {"n_steps": 8, "hidden_sizes": (8,), "threads": 1}


def game():
    return wb.envs.tabular(wb.theory.random_game(n_agents=2, n_states=3, seed=0), n_envs=3, max_episode_steps=5)


def hopper():
    return wb.envs.mujoco("Hopper", "3x1", n_envs=2, n_threads=1)


RUNS = [  # what is made, the environment that loading is given, steps taken
    (lambda: wb.happo(PointTeam(), seed=0, **SMALL), PointTeam, 8),
    (lambda: wb.hatrpo(game(), seed=0, recurrent=True, sequence_length=4, **SMALL), None, 6),
    (lambda: wb.shared_ppo(game(), seed=0, normalize_observations=False, **SMALL), None, 5),
    (lambda: wb.ippo(hopper(), seed=0, dtype="float64", **SMALL), None, 5),
    (lambda: wb.haa2c(hopper(), seed=0, **SMALL), None, 5),
]
WRONG = [
    None,
    True,
    -1,
    0,
    1,
    7,
    10**6,
    10**12,
    10**400,
    2.5,
    1e308,
    float("nan"),
    "",
    "x",
    "../x",
    [],
    [1],
    {},
    {"a": 1},
]


def leaves(tree, at=()):
    """Where something stands in a tree of plain values."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in inner:
        yield (*at, name)
        yield from leaves(value, (*at, name))


def forged(arrays, held, rng):
    """One value of a document changed, taken away or doubled."""
    arrays, held = dict(arrays), copy.deepcopy(held)
    if rng.random() < 0.4:
        name = list(arrays)[rng.integers(len(arrays))]
        arrays[name] = forged_array(arrays[name], rng)
        if arrays[name] is None:
            del arrays[name]
        return arrays, held, name
    places = [at for at in leaves(held) if at[0] not in ("format", "workbench")]
    at = places[rng.integers(len(places))]
    inner = held
    for name in at[:-1]:
        inner = inner[name]
    kind = rng.integers(5)
    if kind == 0:
        del inner[at[-1]]
    elif kind == 1 and isinstance(inner, list):
        inner.append(inner[at[-1]])
    elif kind == 2 and isinstance(inner[at[-1]], int | float):
        inner[at[-1]] = inner[at[-1]] + int(rng.integers(-3, 4))
    else:
        inner[at[-1]] = WRONG[rng.integers(len(WRONG))]
    return arrays, held, at


def forged_array(array, rng):
    kind = rng.integers(6)
    if kind == 0:
        return None
    if kind == 1:
        return array[:-1]
    if kind == 2:
        return np.concatenate([array, array])
    if kind == 3:
        return array.astype(["float32", "float64", "int64", "bool", "uint8"][rng.integers(5)])
    if kind == 4 or not array.size:
        return array[None]
    changed = array.copy()
    special = [-1, 0, 1, 2, 99, 2**31] + [np.nan, np.inf, 1e300] * (array.dtype.kind == "f")
    with np.errstate(all="ignore"):
        changed.flat[rng.integers(array.size)] = np.array(special[rng.integers(len(special))]).astype(array.dtype)
    return changed


def contents(arrays):
    return {name: (array.dtype, array.tobytes()) for name, array in arrays.items()}


def said(error):
    assert "\n" not in str(error), str(error)
    assert str(error).endswith("."), str(error)


def check_forged(tmp_path, n, seed=0):
    """How many are refused; what loads is what the file says, and goes on or says why not."""
    files = []
    for make, env, steps in RUNS:
        trainer = make()
        for _ in range(steps):
            trainer.step()
            files.append((*checkpoint.read(trainer.save(tmp_path / "whole")), env))
    rng, refused = np.random.default_rng(seed), 0
    for _ in range(n):
        arrays, held, env = files[rng.integers(len(files))]
        arrays, held, what = forged(arrays, held, rng)
        path = checkpoint.write(tmp_path / "forged", arrays, held)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                loaded = wb.load(path, env=env and env())
            except WorkbenchError as error:
                said(error)
                refused += 1
                continue
            try:
                loaded.fork().iterate()
            except WorkbenchError as error:
                said(error)
        again_arrays, again = checkpoint.read(loaded.save(tmp_path / "again"))
        assert str(again) == str(held), what  # as text, for a NaN is no other
        assert contents(again_arrays) == contents(arrays), what
    return refused


def test_a_forged_checkpoint_is_refused_or_is_what_it_says(tmp_path):
    assert check_forged(tmp_path, 60) > 40


def test_sizes_are_held_against_the_files_own(tmp_path):
    trainer = wb.happo(hopper(), seed=0, **SMALL)
    arrays, held = checkpoint.read(trainer.save(tmp_path / "whole"))
    for forge, told in (
        (lambda: held["env"].update(n_envs=20_000_000), "it is of 20000000 environments, and holds what 2 show"),
        (
            lambda: held["env"].update(scenario="ManyAgentSwimmer", agent_conf="100000x1"),
            "it is of the team '100000x1', which is larger",
        ),
        (lambda: held["state"]["settings"].update(n_steps=10**9), "n_steps is 1000000000, which it was neither made"),
        (lambda: held["state"]["settings"].update(hidden_sizes=[10**9]), r"hidden_sizes is \[1000000000\], which it"),
    ):
        whole = copy.deepcopy(held)
        forge()
        path = checkpoint.write(tmp_path / "forged", arrays, held)
        with pytest.raises(WorkbenchError, match=told):
            wb.load(path)
        held.clear(), held.update(whole)


def damaged(whole, rng):
    """Bytes with one bit flipped, cut anywhere, or with a stretch overwritten."""
    content, at = bytearray(whole), int(rng.integers(len(whole)))
    kind = rng.integers(3)
    if kind == 0:
        content[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del content[at:]
    else:
        content[at : at + 16] = rng.bytes(16)
    return bytes(content)


def policies_files(place):
    trainer = wb.happo(hopper(), seed=0, **SMALL)
    wb.export_policies(trainer, place)
    seen = trainer.env.reset(seed=0).observations

    def read():
        return {agent: taken.tobytes() for agent, taken in wb.load_policies(place).act(seen).items()}

    return [place / "policies.json", place / "policies.safetensors"], read


SPEC = """notebook: ../../notebooks/experiment.ipynb
directory: ../sweep
fixed: {env_steps: 1000}
grid: {method: [happo, hatrpo], scenario: [Ant]}
seeds: [0, 1]
"""


def sweep_files(place):
    shutil.copytree("notebooks", place.parent.parent / "notebooks", ignore=shutil.ignore_patterns("[!e]*"))
    (place / "sweep.yaml").write_text(SPEC)

    def read():
        planned, where = read_spec(place / "sweep.yaml")
        return [run.parameters for run in planned.plan.runs], where

    return [place / "sweep.yaml"], read


def study_files(place):
    shutil.copytree("notebooks", place.parent.parent / "notebooks", ignore=shutil.ignore_patterns("[!e]*"))
    (place / "spec.yaml").write_text(Path("data/results/spec.yaml").read_text())
    (place / "runs").mkdir()
    kept = sorted(Path("data/results/runs").glob("*.parquet"))[0]
    shutil.copy(kept, place / "runs")

    def read():
        study = wb.Study(place)
        if told := study.complaints():
            raise ValueError(told[0].rstrip(".") + ".")
        return study.table().to_json(), study.table("evaluations").to_json()

    return [place / "runs" / kept.name, place / "spec.yaml"], read


def check_damaged(make, tmp_path, n):
    (tmp_path / "a/place").mkdir(parents=True)
    paths, read = make(tmp_path / "a/place")
    good, rng = read(), np.random.default_rng(0)
    for _ in range(n):
        path = paths[rng.integers(len(paths))]
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, rng))
        try:
            found = read()
        except (WorkbenchError, ValueError, FileNotFoundError) as error:
            said(error)
        else:  # the plan of a YAML may say another thing, as any edit of it does
            assert found == good or path.suffix == ".yaml"
        path.write_bytes(whole)


@pytest.mark.parametrize("make", [policies_files, sweep_files, study_files])
def test_damaged_files_are_refused_or_read_as_they_were(make, tmp_path):
    check_damaged(make, tmp_path, 20)


@pytest.mark.stress
@pytest.mark.parametrize("make", [policies_files, sweep_files, study_files])
def test_three_thousand_damaged_files(make, tmp_path):
    check_damaged(make, tmp_path, 3000)


@pytest.mark.stress
def test_ten_thousand_forged_checkpoints(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = check_forged(tmp_path, 10_000, seed=1)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{refused} of 10,000 refused; the process grew by {grown:.0f} MB at most")
    assert grown < 500
