"""Copies in worker processes: the same bits as in this one, and whatever happens to a worker is said and survived."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from mpe2 import simple_spread_v3
from parallel_games import WAYS, Fragile, Scripted, Walk, actions_for, raise_error, same

import workbench as wb
from workbench.envs.parallel import IncompatibleEnvironmentError, PettingZooTeamEnv
from workbench.envs.workers import WorkerError, WorkerPool
from workbench.errors import NonFiniteError


@pytest.fixture(scope="module")
def fragile() -> Iterator[PettingZooTeamEnv]:
    """Five copies in two workers: 0 to 2 and 3 to 4. Every test begins with a reset, which revives what died."""
    env = wb.envs.pettingzoo(lambda: Fragile(), n_envs=5, workers=2, clip_actions=False)
    yield env
    env.close()


def pids(env: PettingZooTeamEnv) -> list[int]:
    return env._pool.pids  # type: ignore[attr-defined, no-any-return]


def breaking(env: wb.envs.TeamEnv, index: int, way: str) -> dict[str, npt.NDArray[Any]]:
    """Actions with which copy ``index`` breaks."""
    actions = {agent: np.zeros((env.n_envs, 1)) for agent in env.agents}
    actions["left"][index] = 10 + list(WAYS).index(way)
    return actions


def assert_it_works(env: PettingZooTeamEnv) -> None:
    """From a seed on, it equals copies in this process."""
    here = wb.envs.pettingzoo(Walk, n_envs=env.n_envs, clip_actions=False)
    rng = np.random.default_rng(0)
    assert same(here.reset(seed=1), env.reset(seed=1))
    ended = 0
    for _ in range(30):
        actions = actions_for(env, rng)
        step = env.step(actions)
        assert same(here.step(actions), step)
        ended += int(step.done.sum())
    assert ended > 3


def test_workers_give_the_same_bits(fragile: PettingZooTeamEnv) -> None:
    assert_it_works(fragile)


def test_a_real_environment_made_by_a_closure() -> None:
    cycles = 7
    make = lambda: simple_spread_v3.parallel_env(max_cycles=cycles, local_ratio=0.0)  # noqa: E731 - as users write it
    runs = []
    for workers in (0, 2):
        env = wb.envs.pettingzoo(make, n_envs=2, workers=workers)
        rng = np.random.default_rng(0)
        runs.append([env.reset(seed=3), *(env.step(actions_for(env, rng)) for _ in range(20))])
        env.close()
    assert all(map(same, *runs))
    assert any(step.final is not None for step in runs[1])


def test_copies_move_between_processes(fragile: PettingZooTeamEnv) -> None:
    here = wb.envs.pettingzoo(Fragile, n_envs=5, clip_actions=False)
    rng = np.random.default_rng(0)
    actions = [actions_for(here, rng) for _ in range(10)]
    fragile.reset(seed=0)
    fragile.step(actions[0])
    here.restore(fragile.snapshot())
    first = [here.step(chosen) for chosen in actions]
    assert all(same(step, fragile.step(chosen)) for step, chosen in zip(first, actions, strict=True))


def test_an_error_names_worker_environments_and_traceback_and_the_worker_lives(fragile: PettingZooTeamEnv) -> None:
    fragile.reset(seed=0)
    before = pids(fragile)
    with pytest.raises(WorkerError) as caught:
        fragile.step(breaking(fragile, 3, "raise_error"))
    message = str(caught.value)
    assert message.startswith("worker 1 (environments 3 to 4) failed:\n\nTraceback (most recent call last):")
    assert "parallel_games.py" in message
    assert "KeyError: 'the key was lost'" in message
    assert message.endswith("This came from environment 3.")
    with pytest.raises(RuntimeError, match=r"a copy failed in its midst: call reset\(\) or restore\(\) first"):
        fragile.step(breaking(fragile, 3, "raise_error"))
    assert_it_works(fragile)
    assert pids(fragile) == before


@pytest.mark.parametrize(
    ("way", "how"),
    [
        ("leave", r"^worker 0 \(environments 0 to 2\) ended with status 3\."),
        ("be_killed", r"^worker 0 \(environments 0 to 2\) was ended by SIGKILL\."),
        ("crash", r"(?s)^worker 0 \(environments 0 to 2\) was ended by SIGSEGV\. .*Segmentation fault.*in crash"),
    ],
)
def test_a_dead_worker_is_reported_and_replaced(fragile: PettingZooTeamEnv, way: str, how: str) -> None:
    fragile.reset(seed=0)
    before = pids(fragile)
    with pytest.raises(WorkerError, match=how):
        fragile.step(breaking(fragile, 2, way))
    assert not psutil.pid_exists(before[0])
    assert_it_works(fragile)
    after = pids(fragile)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_worker_killed_from_outside_can_be_restored_into(fragile: PettingZooTeamEnv) -> None:
    fragile.reset(seed=0)
    action = {agent: np.full((5, 1), 0.5) for agent in fragile.agents}
    snapshot = fragile.snapshot()
    first = fragile.step(action)
    killed = pids(fragile)[1]
    fragile.kill_worker(1)
    assert not psutil.pid_exists(killed)
    with pytest.raises(WorkerError, match=r"worker 1 \(environments 3 to 4\) was ended by SIGKILL"):
        fragile.step(action)
    fragile.restore(snapshot)
    assert same(first, fragile.step(action))
    with pytest.raises(ValueError, match="worker is 2; expected the number of one of the 2 workers"):
        fragile.kill_worker(2)


def test_an_interrupt_leaves_no_stale_reply(fragile: PettingZooTeamEnv) -> None:
    fragile.reset(seed=0)
    # A shell's background job is started deaf to interrupts, and the test would wait for its own for ever.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fragile.step(breaking(fragile, 0, "interrupt_the_parent"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert_it_works(fragile)


def test_the_projects_own_errors_come_through_as_they_are(fragile: PettingZooTeamEnv) -> None:
    fragile.reset(seed=0)
    with pytest.raises(NonFiniteError, match="the reward of 'left' is nan") as caught:
        fragile.step(breaking(fragile, 4, "show_nan"))
    assert caught.value.__notes__ == ["This came from environment 4."]
    assert_it_works(fragile)


def test_what_cannot_be_made_leaves_no_process() -> None:
    before = set(psutil.Process().children())
    with pytest.raises(IncompatibleEnvironmentError, match="expected a PettingZoo parallel environment"):
        wb.envs.pettingzoo(lambda: object(), n_envs=2, workers=2)
    with pytest.raises(WorkerError, match=r"(?s)worker 0 \(environment 0\) failed.*the key was lost"):
        wb.envs.pettingzoo(lambda: raise_error(), n_envs=2, workers=2)
    lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be sent to another process .*lock.*or use workers=0"):
        wb.envs.pettingzoo(lambda: lock and Walk(), n_envs=2, workers=2)
    assert set(psutil.Process().children()) <= before


def test_workers_need_a_unix_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(NotImplementedError, match="worker processes need a Unix system; use workers=0 here"):
        WorkerPool([Walk], ["environment 0"])


def test_copies_that_differ_between_workers_are_refused() -> None:
    def make() -> Scripted:
        from gymnasium import spaces

        return Scripted(action_space=spaces.Discrete(2 + os.getpid() % 100_000))

    with pytest.raises(IncompatibleEnvironmentError, match="the copies differ in agents or spaces"):
        wb.envs.pettingzoo(make, n_envs=2, workers=2)


def test_closing_ends_the_processes() -> None:
    env = wb.envs.pettingzoo(Walk, n_envs=2, workers=1)
    (pid,) = pids(env)
    env.reset(seed=0)
    env.close()
    env.close()
    assert not psutil.pid_exists(pid)
    with pytest.raises(RuntimeError, match="the workers were closed; make a new environment"):
        env.reset()


# It has no `if __name__ == "__main__"`, as a newcomer's script has none.
SCRIPT = """
import os, signal, sys
import workbench as wb
from parallel_games import Walk
env = wb.envs.pettingzoo(Walk, n_envs=2, workers=2)
env.reset(seed=0)
print(*env._pool.pids, flush=True)
{end}
"""


@pytest.mark.parametrize(
    ("end", "code"), [("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL), ("", 0)], ids=["killed", "at its end"]
)
def test_workers_end_with_their_parent(end: str, code: int, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(end=end))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert result.returncode == code, result.stderr
    workers = [psutil.Process(int(pid)) for pid in result.stdout.split() if psutil.pid_exists(int(pid))]
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert len(result.stdout.split()) == 2
    assert alive == []
