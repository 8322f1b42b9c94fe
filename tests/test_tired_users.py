"""What a tired user does: wrong arguments get one error that names them, odd but right ones work, odd places too."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from workbench.__main__ import main
from workbench.errors import UnknownNameError, path_of
from workbench.learning import names_elsewhere

SMALL = {"n_steps": 4, "hidden_sizes": (8,)}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What the cases below are about: an environment, a trainer with a past, a game, a table of runs, a directory."""
    env = wb.envs.mujoco("Hopper", "3x1", n_envs=2)
    rows = [
        {"method": method, "task": "a", "seed": seed, "env_steps": steps, "return": float(seed + steps)}
        for method in ("x", "y")
        for seed in range(3)
        for steps in (10, 20)
    ]
    trainer = wb.happo(env, **SMALL).run(iterations=1, progress=False)
    home = tmp_path_factory.mktemp("tired")
    return SimpleNamespace(
        env=env,
        trainer=trainer,
        game=wb.theory.random_game(),
        table=pd.DataFrame(rows),
        home=home,
        policies=wb.load_policies(wb.export_policies(trainer, home / "policies")),
    )


def sweep(**words):
    return wb.Sweep(Path(__file__).parent.parent / "notebooks" / "experiment.ipynb", **words)


WRONG = [
    # environments
    (lambda g: wb.envs.check(None), TypeError, "env is None; expected a TeamEnv"),
    (lambda g: wb.envs.check(g.env, steps=0), ValueError, "steps is 0; expected an integer ≥ 1"),
    (lambda g: wb.envs.check(g.env, seed="a"), ValueError, "seed is 'a'; expected an integer ≥ 0"),
    (lambda g: g.env.step(None), ValueError, "actions is None; expected a mapping"),
    (lambda g: g.env.step([np.zeros((2, 1))] * 3), ValueError, "expected a mapping from each of"),
    (lambda g: g.env.restore(None), ValueError, "snapshot is None; expected what snapshot"),
    (lambda g: g.env.select(g.env.snapshot(), [5]), ValueError, "envs is [5]; expected numbers of environments"),
    (lambda g: g.env.select(g.env.snapshot(), 1), ValueError, "envs is 1; expected numbers of environments"),
    (lambda g: wb.envs.tabular(g.game).restore({}), ValueError, "the snapshot is of 0 environments"),
    (lambda g: wb.envs.make("mujco"), ValueError, "unknown kind of environment 'mujco'; did you mean 'mujoco'"),
    # methods and their settings
    (lambda g: wb.happo(g.env, sharing=5), ValueError, "is 5; expected 'separate', 'shared', or groups"),
    (
        lambda g: wb.happo(g.env, sharing=[["agent_0"], ["agent_1"]]),
        ValueError,
        "sharing is (('agent_0',), ('agent_1',)); expected groups that hold each of agent_0, agent_1, agent_2 exactly",
    ),
    (lambda g: wb.happo(g.env, order=5), ValueError, "is 5; expected a rule's name, a permutation of the agents, or a"),
    (lambda g: wb.happo(g.env, recurrent="yes"), ValueError, "is 'yes'; expected True or False"),
    (lambda g: wb.hatrpo(g.env, fisher_fraction=2), ValueError, "is 2; expected a number in (0, 1]"),
    (
        lambda g: wb.happo(g.env, n_minibatches=9, **SMALL).iterate(),
        ValueError,
        "9 minibatches of 8 samples (or sequences); use at most as many as there are",
    ),
    (lambda g: wb.reference_settings("hapo", "Ant 4x2"), ValueError, "reference settings 'hapo'; did you mean 'happo'"),
    (lambda g: wb.happo(g.env, learning_rate=1e-3), ValueError, "here it is 'lr'"),
    (lambda g: wb.hatrpo(g.env, kl_threshold=0.01), ValueError, "here it is 'max_kl'"),
    (lambda g: wb.mappo(g.env, kl_threshold=0.01), ValueError, "unknown option of MAPPO 'kl_threshold'"),
    (lambda g: wb.happo(g.env, hidden_sizes=64), ValueError, "expected a sequence of positive integers, such as (128"),
    (
        lambda g: wb.happo(g.env, lr=float("nan")),
        ValueError,
        "is nan; expected a number in [0, 1e+06], such as 0.0003",
    ),
    (lambda g: wb.happo(g.env, max_grad_norm=0), ValueError, "is 0; expected a number > 0"),
    (lambda g: wb.happo(g.env, initial_log_std="x"), ValueError, "is 'x'; expected a finite number"),
    # trainers
    (lambda g: g.trainer.run(iterations=1, directory=""), ValueError, "directory is ''; expected a path"),
    (lambda g: g.trainer.run(iterations=1, directory=5), TypeError, "directory is 5; expected a path"),
    (lambda g: g.trainer.run(iterations=1, after_iteration=3), TypeError, "after_iteration is 3; expected a function"),
    (lambda g: g.trainer.evaluate(2, seed="a"), ValueError, "seed is 'a'; expected an integer ≥ 0"),
    (lambda g: g.trainer.evaluate(2, seed=-1), ValueError, "seed is -1; expected an integer ≥ 0"),
    (lambda g: g.trainer.save(5), TypeError, "path is 5; expected a path"),
    (lambda g: g.trainer.save(""), ValueError, "path is ''; expected a path"),
    (lambda g: g.trainer.subscribe(None), TypeError, "listener is None; expected a function of (event)"),
    (lambda g: g.trainer.on_listener_failure(3), TypeError, "report is 3; expected a function of (listener, error)"),
    (lambda g: wb.happo(g.env, **SMALL).preceding_ratio, ValueError, "there is no preceding ratio before estimate"),
    (lambda g: g.trainer.rewind(1, iterations=1), ValueError, "rewind() takes either phases= or iterations=, such as"),
    (lambda g: g.trainer.past.back(0), ValueError, "phases is 0; expected an integer ≥ 1"),
    (lambda g: g.trainer.histroy, AttributeError, "did you mean 'history'?"),
    (lambda g: g.trainer.action_distributions(None), ValueError, "observations is None; expected a mapping"),
    (lambda g: g.trainer.action_distributions({}), ValueError, "observations has none for 'agent_0'"),
    (
        lambda g: g.trainer.action_distributions({agent: np.zeros((2, 3)) for agent in g.env.agents}),
        ValueError,
        "the observations of 'agent_0' have shape (2, 3) and dtype float64; expected numbers, (n, 14)",
    ),
    (lambda g: g.trainer.past.limit("x"), ValueError, "iterations is 'x'; expected an integer ≥ 0"),
    (lambda g: g.trainer.past.limit(megabytes=True), ValueError, "megabytes is True; expected a number ≥ 0"),
    (lambda g: wb.load(None), TypeError, "path is None; expected a path"),
    (lambda g: wb.Snapshots(None), TypeError, "trainer is None; expected a trainer"),
    (lambda g: wb.try_orders(None), TypeError, "trainer is None; expected a trainer"),
    (lambda g: wb.try_orders(g.trainer, []), ValueError, "orders is []; expected permutations"),
    (lambda g: wb.try_orders(g.trainer, "random"), ValueError, "orders is 'random'; expected permutations"),
    (lambda g: wb.try_orders(g.trainer, max_orders=0), ValueError, "max_orders is 0; expected an integer ≥ 1"),
    (lambda g: g.trainer.replay(1, max_steps=3, seed="a"), ValueError, "seed is 'a'; expected an integer ≥ 0"),
    # theory
    (lambda g: wb.theory.best_shared_policy(None), TypeError, "game is None, expected a TabularGame"),
    (lambda g: wb.theory.best_joint_policy("x"), TypeError, "game is 'x', expected a TabularGame"),
    (lambda g: wb.theory.uniform_policies(None), TypeError, "game is None, expected a TabularGame"),
    (lambda g: wb.theory.random_policies(None), TypeError, "game is None, expected a TabularGame"),
    (
        lambda g: wb.theory.best_shared_policy(wb.theory.random_game(5, 1, 8, discount=0.0)),
        ValueError,
        "5 agents with 8 actions make a polynomial of 792 coefficients",
    ),
    # statistics
    (
        lambda g: wb.statistics.compare("table.csv"),
        TypeError,
        "the table of runs is a str; expected a pandas",
    ),
    (lambda g: wb.statistics.compare(g.table[:0]), ValueError, "there is no run to compare: the table is empty"),
    (lambda g: wb.statistics.compare(g.table, at=-5), ValueError, "at is -5; expected 'end', 'absolute', or a number"),
    (lambda g: wb.statistics.compare(g.table, normalise=3), TypeError, "normalise is 3; expected {task: (low, high)}"),
    (
        lambda g: wb.statistics.compare(g.table, confidence=95),
        ValueError,
        "confidence is 95; expected a number in (0, 1",
    ),
    (lambda g: wb.statistics.compare(g.table, resamples=0), ValueError, "resamples is 0; expected an integer ≥ 1"),
    (lambda g: wb.statistics.compare(g.table, "task"), ValueError, "the column 'task' holds what is no number"),
    (lambda g: wb.statistics.bootstrap([1, 2, 3]), TypeError, "the scores are [1, 2, 3]; expected {task: (n_seeds,)}"),
    (lambda g: wb.statistics.interquartile_mean([]), ValueError, "expected (…, n) with at least one score"),
    (lambda g: wb.statistics.export_results(None, "x.csv"), TypeError, "the table of runs is a NoneType"),
    (
        lambda g: wb.statistics.export_results(g.table, g.home / "x.json", absolute="bset"),
        ValueError,
        "unknown absolute metric 'bset'; did you mean 'best'",
    ),
    (lambda g: wb.statistics.read_results(g.home / "no.json"), FileNotFoundError, "there are no results"),
    # views and the panel
    (lambda g: wb.views.returns([]), TypeError, "got []; expected a trainer"),
    (lambda g: wb.views.returns({"a": None}), TypeError, "trainer is None; expected a trainer"),
    (lambda g: wb.views.kl(None), TypeError, "trainer is None; expected a trainer"),
    (lambda g: wb.views.live(None, g.trainer), ValueError, "unknown view None"),
    (lambda g: wb.Session(g.trainer, name=3), ValueError, "name is 3; expected what the panel shall call this run"),
    # sweeps
    (lambda g: sweep(directory=None), TypeError, "directory is None; expected a path"),
    (lambda g: sweep(directory=g.home, threads=True), ValueError, "threads is True; expected an integer ≥ 1"),
    (lambda g: sweep(directory=g.home).run(workers="2"), ValueError, "workers is '2'; expected an integer ≥ 1"),
    (lambda g: sweep(directory=g.home).run(client=5), TypeError, "client is 5; expected a dask.distributed.Client"),
    (lambda g: sweep(directory=g.home).run(scheduler=5), TypeError, "scheduler is 5; expected an address"),
    (lambda g: wb.Study(None), TypeError, "directory is None; expected a path"),
    (lambda g: wb.record(None, env_steps=8), TypeError, "trainer is None; expected a trainer"),
    (lambda g: wb.record(g.trainer, env_steps="8"), ValueError, "env_steps is '8'; expected an integer ≥ 0"),
    # export
    (lambda g: wb.export_policies(None, g.home), TypeError, "run is None; expected a trainer"),
    (lambda g: wb.export_tables(g.trainer, 5), TypeError, "directory is 5; expected a path"),
    (lambda g: wb.export_tensorboard(g.trainer, None), TypeError, "directory is None; expected a path"),
    (lambda g: g.policies.act(None), ValueError, "observations is None; expected a mapping"),
]


@pytest.mark.parametrize(("call", "kind", "told"), WRONG, ids=[told[:48] for _, _, told in WRONG])
def test_what_is_wrong_is_told(given, call, kind, told):
    before = given.trainer.fingerprint()
    with pytest.raises(kind) as raised:
        call(given)
    assert told in str(raised.value)
    assert given.trainer.fingerprint() == before, "a refused call changes nothing"


def test_a_protocol_that_trainers_lack_is_plainly_missing(given):
    with pytest.raises(AttributeError, match=r"^__array__$"):
        given.trainer.__array__  # noqa: B018 - asking is what raises


def test_files_of_a_replay_are_named_by_their_kind(given):
    replay = given.trainer.replay(max_steps=2)
    with pytest.raises(ValueError, match=r"expected the name of a file that ends in \.gif"):
        replay.to_gif(given.home / "film.png")
    page = replay.to_html(given.home / "not there yet" / "film.html")
    assert page.read_text(encoding="utf-8").startswith("<!")


def test_a_path_may_begin_at_home_and_have_spaces(given, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert given.trainer.save("~/my runs/über.safetensors") == tmp_path / "my runs" / "über.safetensors"
    assert wb.load("~/my runs/über.safetensors").fingerprint() == given.trainer.fingerprint()
    assert path_of("path", tmp_path / "a b") == tmp_path / "a b"
    fork = given.trainer.fork().run(iterations=1, directory="~/my runs/kept", progress=False)
    assert wb.load(tmp_path / "my runs" / "kept").fingerprint() == fork.fingerprint()


@pytest.mark.parametrize("integer", [np.int8, np.int64, np.uint32])
def test_numpys_integers_are_integers(given, integer):
    one = integer(1)
    trainer = wb.happo(given.env, seed=one, **{**SMALL, "epochs": one}).run(iterations=one, progress=False)
    same = wb.happo(given.env, seed=1, **{**SMALL, "epochs": 1}).run(iterations=1, progress=False)
    assert trainer.fingerprint() == same.fingerprint()
    assert (trainer.evaluate(one, seed=one) == same.evaluate(1, seed=1)).all()
    assert given.env.reset(seed=one).reward.shape == (2,)
    assert trainer.rewind(one).phase == "update_critic"
    assert len(wb.try_orders(trainer.rewind(iterations=0), max_orders=one, iterations_after=integer(0))) == 3
    assert sweep(directory=given.home / "by numpy", seeds=np.arange(2, dtype=integer)).plan.count() == "2 runs"


def test_help_and_completion_know_the_settings(given):
    shown = inspect.signature(wb.hatrpo).parameters
    assert list(shown) == ["env", "seed", *wb.options("hatrpo")]
    assert shown["max_kl"].default == wb.hatrpo(given.env, **SMALL).max_kl
    names = dir(given.trainer)
    assert {"clip_epsilon", "history", "rewind"} <= set(names)
    assert len(names) == len(set(names))


def test_completion_offers_public_names_only():
    assert {"happo", "views", "theory"} <= set(dir(wb))
    assert [name for name in dir(wb) if name not in wb.__all__ and not name.startswith("__")] == []
    assert "returns" in dir(wb.views)
    assert "comparisons" not in dir(wb.views)
    with pytest.raises(AttributeError, match="unknown name in workbench 'hapo'; did you mean 'happo'"):
        wb.hapo  # noqa: B018 - asking is what raises
    assert not hasattr(wb, "_nothing")


def test_what_is_shown_is_short(given):
    step = given.env.reset(seed=0)
    assert repr(step) == (
        "TimeStep(observations: agent_0 (2, 14), agent_1 (2, 14), agent_2 (2, 14); state (2, 11); reward (2,))"
    )
    assert repr(given.policies) == "policies of HAPPO, 3 agents, seed 0, after 8 env steps"
    for shown in (given.env, given.trainer, given.trainer.past, given.game, given.trainer.iterate()):
        assert len(repr(shown).splitlines()[0]) < 250
        assert "object at 0x" not in repr(shown)


def test_the_command_takes_numbers_as_people_write_them(tmp_path, capsys):
    where = ["--directory", str(tmp_path / "a b"), "--set", "n_steps=5", "--set", "hidden_sizes=(8,)"]
    assert main(["train", "happo", "Hopper", "3x1", "--env-steps", "1e2", *where]) == 0
    assert (tmp_path / "a b" / "history.csv").is_file()
    for words in (["bench", "--rounds", "0"], ["train", "happo", "Hopper", "3x1", "--env-steps", "many", *where]):
        with pytest.raises(SystemExit):
            main(words)
        assert "expected an integer ≥ 1" in capsys.readouterr().err.splitlines()[-1]


def test_the_command_goes_on_with_its_own_runs_only(tmp_path, capsys, monkeypatch):
    where = ["Hopper", "3x1", "--directory", str(tmp_path), "--set", "n_steps=5", "--set", "hidden_sizes=(8,)"]
    main(["train", "happo", *where, "--env-steps", "100"])
    with pytest.raises(SystemExit):
        main(["train", "hatrpo", *where, "--env-steps", "200"])
    told = capsys.readouterr().err.splitlines()[-1]
    assert "is of another run (method: 'happo' there, 'hatrpo' here). Choose another directory" in told

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("workbench.__main__.train", interrupted)
    assert main(["train", "happo", *where]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


UNKIND = """
import os, socket, sys
def refuse(*_, **__):
    raise OSError("no network here")
socket.socket.connect = socket.create_connection = refuse
import workbench as wb
from workbench.errors import UnknownNameError
from workbench.learning import names_elsewhere
if __name__ == "__main__":
    env = wb.envs.mujoco("Hopper", "3x1", n_envs=2)
    trainer = wb.happo(env, seed=0, n_steps=4, hidden_sizes=(8,)).run(iterations=2, progress=False)
    wb.views.overview(trainer)
    print(trainer.fingerprint())
"""


def test_it_runs_with_a_home_that_cannot_be_written_no_network_and_one_core(given, tmp_path):
    """Caches that want a home do without, and nothing is fetched; the bits are those of any other process."""
    script, home = tmp_path / "unkind.py", tmp_path / "home"
    script.write_text(UNKIND, encoding="utf-8")
    home.write_text("a file, so that not even root can write below it", encoding="utf-8")
    fingerprints = []
    for words in ({"HOME": str(home), "XDG_CACHE_HOME": str(home), "MUJOCO_GL": "disable"}, {}):
        pinned = ["taskset", "-c", "0"] if words and sys.platform == "linux" else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **words}
        command = [*pinned, sys.executable, str(script)]
        root = Path(__file__).parent.parent
        where = {**environment, "PYTHONPATH": str(root)}
        done = subprocess.run(command, cwd=root, env=where, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        fingerprints.append(done.stdout.split()[-1])
    assert fingerprints[0] == fingerprints[1]


def test_worker_processes_may_be_spawned(tmp_path):
    """As macOS and Windows start processes: workers get what they need by value, not by memory they share."""
    code = (
        "import multiprocessing as mp\n"
        "import workbench as wb, numpy as np\n"
        "class Toy:\n"
        "    possible_agents = ['a', 'b']\n"
        "    metadata = {}\n"
        "    def observation_space(self, agent): return __import__('gymnasium').spaces.Box(0, 1, (1,), np.float32)\n"
        "    def action_space(self, agent): return __import__('gymnasium').spaces.Discrete(2)\n"
        "    def reset(self, seed=None, options=None):\n"
        "        self.agents = ['a', 'b']\n"
        "        return {i: np.zeros(1, np.float32) for i in self.agents}, {i: {} for i in self.agents}\n"
        "    def step(self, actions):\n"
        "        each = lambda value: {i: value for i in 'ab'}\n"
        "        reward = float(sum(actions.values()))\n"
        "        return each(np.zeros(1, np.float32)), each(reward), each(False), each(False), each({})\n"
        "if __name__ == '__main__':\n"
        "    mp.set_start_method('spawn')\n"
        "    env = wb.envs.pettingzoo(Toy, n_envs=4, workers=2)\n"
        "    env.reset(seed=0)\n"
        "    print(env.step({'a': np.ones(4, int), 'b': np.zeros(4, int)}).reward.tolist())\n"
        "    env.close()\n"
    )
    script = tmp_path / "spawned.py"
    script.write_text(code, encoding="utf-8")
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "[1.0, 1.0, 1.0, 1.0]", done.stderr


def test_names_from_elsewhere_lead_to_the_setting_of_that_meaning_or_to_none():
    """Every name of the table, asked of every method: no setting of another meaning is suggested."""
    methods = ("happo", "hatrpo", "haa2c", "mappo", "ippo", "shared_ppo")
    everywhere = {option for method in methods for option in wb.options(method)}
    assert set(names_elsewhere.SAME_MEANING.values()) <= everywhere
    assert not {*names_elsewhere.SAME_MEANING, *names_elsewhere.SAID_ELSEWHERE} & everywhere
    env = wb.envs.tabular(wb.theory.simultaneous_game(), n_envs=1)
    for method in methods:
        for name in {*names_elsewhere.SAME_MEANING, *names_elsewhere.SAID_ELSEWHERE, *names_elsewhere.NOT_HERE}:
            if name in wb.options(method):
                continue  # HAPPO's target_kl is a setting of its own
            with pytest.raises(UnknownNameError, match=name) as refused:
                getattr(wb, method)(env, **{name: 1})
            meant = names_elsewhere.SAME_MEANING.get(name)
            assert "did you mean" not in str(refused.value)
            assert meant is None or repr(meant) in str(refused.value)
