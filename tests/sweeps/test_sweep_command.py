"""``python -m workbench sweep``: the same without a notebook, and a status that tells how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from distributed import LocalCluster
from tiny_notebook import write_notebook

from workbench.__main__ import main
from workbench.sweeps import files, results
from workbench.sweeps.progress import Progress, RunProgress, TerminalProgress, duration, time_to_go

DEADLINE = 120.0


@pytest.fixture
def spec(tmp_path):
    """Writes a spec beside the tiny notebook; returns its path."""
    write_notebook(tmp_path / "tiny.ipynb")

    def write(text):
        path = tmp_path / "spec.yaml"
        path.write_text(f"notebook: tiny.ipynb\ndirectory: out\n{text}")
        return path

    return write


def command(spec, *words, **given):
    return subprocess.Popen(
        [sys.executable, "-m", "workbench", "sweep", str(spec), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **given,
    )


def test_the_plan_is_told_and_nothing_run(spec, tmp_path, capsys):
    assert main(["sweep", str(spec("grid: {rate: [0.1, 0.2]}\nseeds: [0, 1, 2]\n")), "--plan"]) == 0
    printed = capsys.readouterr().out
    assert "6 runs = 2 rate × 3 seeds" in printed
    assert "120 env steps in all" in printed
    assert not (tmp_path / "out").exists()


def test_a_bad_spec_is_told_in_one_line(spec, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(spec("grid: {rte: [0.1]}\n"))])
    assert ended.value.code == 2
    assert "unknown parameter of tiny.ipynb 'rte'; did you mean 'rate'" in capsys.readouterr().err.splitlines()[-1]


def test_the_status_tells_whether_all_finished(spec, tmp_path, capsys):
    addresses = dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", **addresses) as cluster:
        told_of_a_cluster(cluster.scheduler_address, spec, capsys)


def told_of_a_cluster(scheduler, spec, capsys):
    path = spec("zip: {seed: [0, 1], fails: [false, true]}\n")
    assert main(["sweep", str(path), "--scheduler", scheduler]) == 1
    printed = capsys.readouterr()
    assert "1 of 2 finished · 1 failed · done" in printed.out
    assert "failed: fails=True seed=1: ValueError: seed 1 fails at step 11" in printed.out
    assert main(["sweep", str(spec("seeds: [0]\n")), "--scheduler", scheduler]) == 0
    for nobody in ("tcp://127.0.0.1:1", "tls://127.0.0.1:1"):
        assert main(["sweep", str(spec("seeds: [2]\n")), "--scheduler", nobody]) == 1
    assert "no Dask scheduler answers" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "to_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_an_interrupt_stops_it_where_it_can_go_on(number, to_group, spec, tmp_path):
    """From a terminal, Ctrl-C reaches every process in the foreground, the workers too."""
    process = command(spec("seeds: [0, 1]\nfixed: {pause: 0.1}\nworkers: 1\n"), start_new_session=True)
    family = psutil.Process(process.pid)
    deadline = time.monotonic() + DEADLINE
    while len(files.read_lines(next(iter(tmp_path.glob("out/runs/*/metrics.jsonl")), tmp_path / "none"))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    children = family.children(recursive=True)
    (os.killpg if to_group else os.kill)(process.pid, number)
    out, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, out + said
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    assert not psutil.wait_procs(children, timeout=30)[1]
    statuses = results.table(tmp_path / "out", "runs")["status"].tolist()
    assert "interrupted" in statuses
    (ended,) = [
        line
        for path in tmp_path.glob("out/runs/*/attempts.jsonl")
        for line in files.read_lines(path)
        if "outcome" in line
    ]
    assert ended["outcome"] == "stopped"


# ---- progress in words ----


class Screen:
    """A stream that is a terminal, or not."""

    def __init__(self, is_terminal):
        self.text, self._is_terminal = "", is_terminal

    def isatty(self):
        return self._is_terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


STEPS = (
    Progress(
        total=3,
        waiting=1,
        running=(RunProgress("a", "rate=0.1", 0.5, 12.345, 10.0), RunProgress("b", "rate=0.2")),
        eta=90.0,
    ),
    Progress(
        total=3,
        waiting=1,
        running=(RunProgress("a", "rate=0.1", 0.6, 13.0, 12.0), RunProgress("b", "rate=0.2")),
        eta=80.0,
    ),
    Progress(
        total=3, finished=1, running=(RunProgress("b", "rate=0.2"),), failed=1, failures={"rate=0.3": "ValueError: no"}
    ),
    Progress(total=3, finished=2, failed=1, failures={"rate=0.3": "ValueError: no"}, state="done"),
)


def test_a_terminal_shows_a_block_that_is_kept_up_to_date():
    screen = Screen(True)
    view = TerminalProgress(screen)
    for progress in STEPS:
        view.show(progress)
    assert "0 of 3 finished · 2 running · 1 waiting · ETA 90 s" in screen.text
    assert "rate=0.1 50% · return 12.35" in screen.text
    assert screen.text.count("\x1b[3F") == 3  # back over three lines, each time
    assert screen.text.splitlines()[-3].endswith("2 of 3 finished · 1 failed · done")


def test_a_log_gets_a_line_for_each_end():
    screen = Screen(False)
    view = TerminalProgress(screen)
    for progress in STEPS:
        view.show(progress)
    assert screen.text.splitlines() == [
        "0 of 3 finished · 2 running · 1 waiting · ETA 90 s",
        "1 of 3 finished · 1 running · 1 failed · ETA not known yet",
        "failed: rate=0.3: ValueError: no",
        "2 of 3 finished · 1 failed · done",
    ]


def test_the_time_to_go():
    half = RunProgress("a", "", share=0.5, seconds=30.0)
    fresh = RunProgress("b", "", share=0.0, seconds=5.0)
    assert time_to_go([], [fresh], 3, 2) is None
    # Half in 30 s: 60 s each; 30 s left of it, 55 s of the fresh one, and 4 more, on 2 workers.
    assert time_to_go([], [half, fresh], 4, 2) == pytest.approx((30 + 55 + 4 * 60) / 2)
    assert time_to_go([40.0, 20.0], [], 4, 2) == pytest.approx(60.0)
    assert time_to_go([10.0], [half], 0, 8) == pytest.approx(30.0)  # no sooner than the longest
    assert duration(59.6 * 60) == "1 h 0 min"
