"""Nothing finished is lost or done twice, and nothing unfinished counted, whatever process of a sweep is killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from sweep_process import FAILING, make_sweep
from tiny_notebook import value_of, write_notebook

from workbench.sweeps import files, layout

PROCESS = Path(__file__).parent / "sweep_process.py"
DEADLINE = 300.0


def wait_until(condition, what):
    """Poll; the deadline is for a test that would never end."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def finished_runs(directory):
    return {path.parent.name for path in directory.glob(f"runs/*/{layout.FINISHED}")}


def descendants(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def commands(process):
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def kernels(process):
    """The kernels below a process: children of its workers."""
    return [each for each in descendants(process) if "ipykernel_launcher" in commands(each)]


def kernel_at_work(process, directory):
    """A kernel whose run has come some way, so that it matters whether it goes on or begins anew."""
    for kernel in kernels(process):
        with contextlib.suppress(psutil.Error):
            places = [Path(file.path).parent for file in kernel.open_files() if file.path.endswith(layout.CLAIM)]
            if any(2 < len(files.read_lines(place / layout.METRICS)) < 15 for place in places):
                return kernel
    return None


def holders(directory):
    """Processes that have a file of the sweep open."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if any(file.path.startswith(str(directory)) for file in process.open_files()):
                found.append(process)
    return found


def start(notebook, directory, runs):
    process = subprocess.Popen(
        [sys.executable, str(PROCESS), str(notebook), str(directory), str(runs)], stderr=subprocess.PIPE, text=True
    )
    return process, psutil.Process(process.pid)


def attempts(directory, name):
    return (layout.run_directory(directory, name) / layout.ATTEMPTS).read_bytes()


def outcomes(run):
    """How the attempts at a run ended, as far as their workers lived to tell."""
    return [line["outcome"] for line in files.read_lines(run.directory / layout.ATTEMPTS) if "ended" in line]


def check_kills(tmp_path, runs):
    """Kill a worker, then a kernel, then the client, each in the middle of a run; start again; see what came of it."""
    notebook, directory = write_notebook(tmp_path / "tiny.ipynb"), tmp_path / "sweep"
    process, driver = start(notebook, directory, runs)
    settled = {}

    def settle():
        for name in finished_runs(directory):
            settled.setdefault(name, attempts(directory, name))
        return settled

    worker = wait_until(lambda: len(settle()) >= 2 and kernel_at_work(driver, directory), "a run").parent()
    assert "multiprocessing" in commands(worker)
    worker.kill()

    before = len(settle())
    wait_until(lambda: len(settle()) > before and kernel_at_work(driver, directory), "one after a worker died").kill()

    before = len(settle())
    wait_until(lambda: len(settle()) > before and kernel_at_work(driver, directory), "one after a kernel died")
    family = descendants(driver)
    process.kill()
    process.communicate()
    wait_until(lambda: not holders(directory), "everyone who worked on it to be gone")
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    settle()
    assert 4 <= len(settled) < runs - 1

    process, _ = start(notebook, directory, runs)
    _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1, said  # one run fails by itself
    assert "ValueError: seed 5 fails at step 11" in said
    for name, line in settled.items():
        assert attempts(directory, name) == line, "a finished run was taken up again"

    sweep = make_sweep(notebook, directory, runs)
    by_seed = {run.parameters["seed"]: run for run in sweep.runs}
    assert {seed for seed, run in by_seed.items() if run.status == "finished"} == set(range(runs)) - {FAILING}
    assert by_seed[FAILING].status == "failed"
    assert outcomes(by_seed[FAILING]).count("failed") == 1
    table = sweep.table()
    for seed in set(range(runs)) - {FAILING}:
        rows = table[table["seed"] == seed]
        assert rows["env_steps"].tolist() == list(range(1, 21))
        assert rows["return"].tolist() == [value_of(seed, step) for step in range(1, 21)]
        ended = outcomes(by_seed[seed])
        assert ended.count("finished") == 1
        assert ended[-1] == "finished"
    assert sum(run.record["attempts"] - 1 for run in by_seed.values()) >= 2
    assert any(run.summary.get("begun_at", 0) > 0 for run in by_seed.values()), "none went on from a checkpoint"
    assert not holders(directory)


def test_a_sweep_survives_the_death_of_a_worker_a_kernel_and_its_client(tmp_path):
    check_kills(tmp_path, runs=9)


@pytest.mark.stress
@pytest.mark.parametrize("attempt", range(5))
def test_twelve_runs_survive_it_again_and_again(tmp_path, attempt):
    check_kills(tmp_path, runs=12)
