"""Any Dask cluster will do: separate scheduler and worker processes over TCP give what this machine alone gives."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tiny_notebook import write_notebook

import workbench as wb
from workbench.sweeps import cluster, files, layout, results

DEADLINE = 120.0


@pytest.fixture
def scheduler(tmp_path):
    """The address of a scheduler with two workers, each a process of its own, and their numbers."""
    contact = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    commands = [["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(contact)]]
    worker = ["worker", "--scheduler-file", str(contact), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    commands += [[*worker, "--local-directory", str(tmp_path)]] * 2
    processes = [
        subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_" + name, *rest], **quiet)
        for name, *rest in commands
    ]
    deadline = time.monotonic() + DEADLINE
    while not contact.exists() or not contact.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield json.loads(contact.read_text())["address"], {process.pid for process in processes[1:]}
    for process in processes[::-1]:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        process.wait(30)


def test_a_cluster_over_tcp_gives_the_same_table_as_this_machine(tmp_path, scheduler, client):
    scheduler, workers = scheduler
    assert scheduler.startswith("tcp://127.0.0.1:")
    notebook = write_notebook(tmp_path / "tiny.ipynb")
    given = {"grid": {"order": ["random", "fixed"], "rate": [0.1, 0.7]}, "seeds": [5]}
    here = wb.Sweep(notebook, directory=tmp_path / "here", **given).run(client=client, progress=False)
    there = wb.Sweep(notebook, directory=tmp_path / "there", **given).run(scheduler=scheduler, progress=False)
    assert here.finished
    assert there.finished
    for kind in ("iterations", "runs"):
        first, second = (
            sweep.table(kind).drop(columns=list(results.TIMED), errors="ignore") for sweep in (here, there)
        )
        assert first.to_json(double_precision=15) == second.to_json(double_precision=15)
        assert first.equals(second)
    assert len(first) == 4
    did = {line["pid"] for run in there.runs for line in files.read_lines(run.directory / layout.ATTEMPTS)[:1]}
    assert did <= workers


def listening():
    """The addresses at which this process and its children listen."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {c.laddr for each in processes for c in each.net_connections("tcp") if c.status == "LISTEN"}


def test_who_has_no_keys_gets_nothing_done_at_any_port_of_a_local_cluster():
    before = listening()  # other tests' servers
    with cluster.cluster(2) as client:
        found = listening() - before
        assert {address.ip for address in found} == {"127.0.0.1"}
        ports = {client.scheduler.addr.rpartition(":")[2], *(str(address.port) for address in found)}
        intruder = [sys.executable, str(Path(__file__).parent / "intruder.py"), *sorted(ports)]
        told = subprocess.run(intruder, capture_output=True, text=True, check=True).stdout
        assert told == f"tried {len(ports) * 8}\n"
        assert len(ports) >= 6  # scheduler, nannies, workers, and the servers that answer nothing
        assert client.submit(sum, [1, 2]).result() == 3
