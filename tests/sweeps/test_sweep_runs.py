"""Sweeps that run: what they leave behind, what they do not do twice, and what stops them."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from types import SimpleNamespace

import pandas as pd
import psutil
import pyarrow.parquet
import pytest
from tiny_notebook import WORK, value_of, write_notebook

import workbench as wb
from workbench.sweeps import cluster, dispatcher, files, layout, results
from workbench.sweeps.jupyter_kernels import RunKernel
from workbench.sweeps.main_guard import SweepError
from workbench.sweeps.run_one import run_one

DEADLINE = 120.0


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "tiny.ipynb")


def wait_until(condition, what):
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def attempts(sweep):
    return {run.name: (run.directory / layout.ATTEMPTS).read_text() for run in sweep.runs if run.status != "waiting"}


def outcomes(run):
    return [line["outcome"] for line in files.read_lines(run.directory / layout.ATTEMPTS) if "ended" in line]


def test_a_sweep_leaves_its_results_and_does_nothing_twice(notebook, tmp_path, client, monkeypatch):
    directory = tmp_path / "a {b} ü"  # papermill would fill in the braces
    sweep = wb.Sweep(notebook, grid={"order": ["random", "fixed"]}, seeds=range(2), directory=directory)
    assert "0 finished" in repr(sweep)
    assert "80 env steps in all; how long is not known before a run is finished" in repr(sweep)
    assert sweep.table("runs")["status"].tolist() == ["waiting"] * 4
    sweep.run(client=client, progress=False)
    assert sweep.finished
    assert sweep.failures == {}

    table = sweep.table()
    assert list(table.columns[:6]) == ["run", "order", "seed", "status", "steered", "iteration"]
    assert len(table) == 4 * 20
    for (order, seed), rows in table.groupby(["order", "seed"]):
        assert rows["return"].tolist() == [value_of(seed, step, order) for step in range(1, 21)]
    assert set(table["status"]) == {"finished"}
    assert results.table(directory).equals(table)

    run = sweep.runs[0]
    assert run.record["parameters"] == {**run.parameters, "sizes": [4, 4]}
    assert run.record["versions"]["workbench"] == wb.__version__
    assert {"host", "processor", "cores"} <= run.record["machine"].keys()
    assert run.record["wall_seconds"] > 0
    curves = pyarrow.parquet.read_table(run.directory / layout.CURVES).to_pandas()
    assert curves["return"].tolist() == [value_of(0, step) for step in range(1, 21)]
    page = (run.directory / layout.PAGE).read_text(encoding="utf-8")
    assert "begun_at" in page
    assert len(page) < 1_000_000
    assert 'src="http' not in page
    names = {path.name for path in run.directory.iterdir()}
    assert not {name for name in names if "partial" in name}
    assert names >= {layout.FINISHED, layout.RUN, layout.METRICS, layout.SUMMARY, layout.REPORT, layout.PAGE}

    before = attempts(sweep)
    sweep.run(client=client, progress=False)
    assert attempts(sweep) == before
    monkeypatch.setattr(cluster, "cluster", None)  # and needs none for it
    sweep.run(workers=2, progress=False)
    monkeypatch.undo()
    assert "nothing is left to do" in repr(sweep)
    more = wb.Sweep(notebook, grid={"order": ["random", "fixed", "reversed"]}, seeds=range(2), directory=directory)
    assert "4 finished, 0 failed, 0 running, 2 to do" in repr(more)
    assert "about" in repr(more)
    more.run(client=client, progress=False)
    assert more.finished
    assert {name: text for name, text in attempts(more).items() if name in before} == before
    assert len(results.table(directory)) == 6 * 20


def test_other_processes_read_it_while_it_runs(notebook, tmp_path, client):
    sweep = wb.Sweep(notebook, seeds=range(2), fixed={"pause": 0.5}, directory=tmp_path / "sweep")
    sweep.start(client=client, progress=False)
    wait_until(lambda: len(sweep.table()) > 3, "the first rows")
    code = (
        "import sys; from workbench.sweeps import results; t = results.table(sys.argv[1]);"
        " print(len(t), *set(t.status))"
        "; assert not {'torch', 'distributed', 'papermill'} & sys.modules.keys()"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(sweep.directory)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(told[0]) > 0
    assert "running" in told
    assert sweep.progress.state == "running"
    sweep.cancel()
    sweep.wait()
    assert not sweep.running
    assert sweep.progress.state == "not running"


def test_a_value_can_inject_no_code(tmp_path, client):
    witness = tmp_path / "witness"
    hostile = [
        f"'; import pathlib; pathlib.Path({str(witness)!r}).touch() #",
        f'"\nimport pathlib; pathlib.Path({str(witness)!r}).touch()\n"',
        "\\",
        "{seed}\u2028\x00'''\"\"\"",
        f"{{__import__('pathlib').Path({str(witness)!r}).touch()}}",
    ]
    notebook = write_notebook(
        tmp_path / "echo.ipynb",
        "import json, pathlib\n(pathlib.Path(directory) / 'summary.json').write_text(json.dumps({'told': words}))",
        parameters="words: list[str] = []\nhint: str = ''\ndirectory: str | None = None\n",
    )
    sweep = wb.Sweep(notebook, grid={"words": [hostile]}, fixed={"hint": hostile[1]}, directory=tmp_path / "sweep")
    sweep.run(client=client, progress=False)
    assert sweep.runs[0].summary == {"told": hostile}
    assert not witness.exists()


def test_a_run_that_fails_by_itself_is_reported_and_not_tried_again(notebook, tmp_path, client):
    sweep = wb.Sweep(notebook, grid={"fails": [True, False]}, seeds=[3], directory=tmp_path / "sweep")
    sweep.run(client=client, progress=False)
    assert not sweep.finished
    assert sweep.failures == {"fails=True seed=3": "ValueError: seed 3 fails at step 11"}
    failed, finished = sweep.runs
    assert (failed.status, finished.status) == ("failed", "finished")
    assert "seed 3 fails" in (failed.directory / layout.PAGE).read_text(encoding="utf-8")
    assert sweep.table("runs").set_index("fails")["error"].tolist()[0].startswith("ValueError")
    before = attempts(sweep)
    sweep.run(client=client, progress=False)
    assert attempts(sweep) == before
    sweep.run(client=client, progress=False, retry_failed=True)
    assert outcomes(failed) == ["failed", "failed"]
    assert outcomes(finished) == ["finished"]


def test_a_run_whose_process_always_dies_is_given_up(tmp_path, client):
    notebook = write_notebook(tmp_path / "dies.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    sweep = wb.Sweep(notebook, directory=tmp_path / "sweep").run(client=client, progress=False)
    (run,) = sweep.runs
    assert run.status == "failed"
    assert "its process died 3 times from the same point" in run.failure["message"]
    assert outcomes(run) == ["died"] * 3
    sweep.run(client=client, progress=False, retry_failed=True)
    assert outcomes(run) == ["died"] * 6
    assert not (run.directory / layout.FINISHED).exists()


def test_a_kernel_that_is_not_there_is_named_before_anything_runs(notebook, tmp_path, client):
    content = json.loads(notebook.read_text())
    content["metadata"]["kernelspec"]["name"] = "conda-env-rl-py"
    notebook.write_text(json.dumps(content))
    message = r"unknown kernel that tiny\.ipynb was saved with 'conda-env-rl-py'.* Known: .*python3.* kernel='python3'"
    with pytest.raises(ValueError, match=message):
        wb.Sweep(notebook, directory=tmp_path / "sweep")
    with pytest.raises(ValueError, match=r"unknown kernel 'pyhton3'; did you mean 'python3'\?"):
        wb.Sweep(notebook, directory=tmp_path / "sweep", kernel="pyhton3")
    assert not (tmp_path / "sweep").exists()
    sweep = wb.Sweep(notebook, directory=tmp_path / "sweep", kernel="python3").run(client=client, progress=False)
    assert sweep.finished


def test_the_reason_why_a_kernel_does_not_start_is_kept(notebook, tmp_path, monkeypatch):
    specs = tmp_path / "data" / "kernels" / "broken"
    specs.mkdir(parents=True)
    command = [sys.executable, "-c", "import sys; sys.exit('no ipykernel in this Python')"]
    spec = {"argv": [*command, "{connection_file}"], "display_name": "broken", "language": "python"}
    (specs / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "data"))
    sweep = wb.Sweep(notebook, directory=tmp_path / "sweep", kernel="broken")
    job = sweep._job()(sweep.plan.runs[0])
    sweep._write_down(retry_failed=False)
    assert [run_one(job).kind for _ in range(4)] == ["died", "died", "died", "failed"]
    (message,) = sweep.failures.values()
    assert "3 attempts from the same point could not go on; the last one: RuntimeError: Kernel died before" in message
    assert "its process said: no ipykernel in this Python" in message
    assert "memory" not in message


def test_a_notebook_that_ends_without_a_summary_has_not_finished(tmp_path, client):
    notebook = write_notebook(tmp_path / "short.ipynb", WORK)
    sweep = wb.Sweep(notebook, directory=tmp_path / "sweep").run(client=client, progress=False)
    assert sweep.runs[0].status == "failed"
    assert "without writing summary.json" in sweep.runs[0].failure["message"]


def test_it_is_paused_cancelled_and_goes_on(notebook, tmp_path, client):
    sweep = wb.Sweep(notebook, seeds=range(5), fixed={"pause": 0.05}, directory=tmp_path / "sweep")
    sweep.start(client=client, progress=False)
    with pytest.raises(RuntimeError, match="is running"):
        sweep.start(client=client)
    with pytest.raises(TimeoutError, match="still running"):
        sweep.wait(timeout=0.1)
    wait_until(lambda: any(len(run.rows("iterations")) > 3 for run in sweep.runs), "a run under way")
    sweep.pause()
    wait_until(lambda: sweep.progress.finished and not sweep.progress.running, "those under way to end")
    begun = len(attempts(sweep))
    assert begun < 5
    assert sweep.progress.state == "paused"
    sweep.resume()
    wait_until(lambda: any(run.status == "running" and len(run.rows("iterations")) > 3 for run in sweep.runs), "more")
    sweep.cancel()
    sweep.wait()
    assert not sweep.finished
    statuses = [run.status for run in sweep.runs]
    assert "interrupted" in statuses
    assert "running" not in statuses
    interrupted = {run.name: len(run.rows("iterations")) for run in sweep.runs if run.status == "interrupted"}
    sweep.run(client=client, progress=False)
    assert sweep.finished
    begun_at = {run.name: run.summary["begun_at"] for run in sweep.runs}
    assert all(begun_at[name] >= rows - 1 for name, rows in interrupted.items())
    assert max(begun_at.values()) > 1
    for seed, rows in sweep.table().groupby("seed"):
        assert rows["return"].tolist() == [value_of(seed, step) for step in range(1, 21)]


def test_two_sweeps_on_one_directory_do_each_run_once(notebook, tmp_path, client):
    given = {"fixed": {"pause": 0.02}, "directory": tmp_path / "sweep"}
    first = wb.Sweep(notebook, seeds=range(4), **given)
    second = wb.Sweep(notebook, seeds=[3, 2, 1, 0, 4], **given)
    first.start(client=client, progress=False)
    second.run(client=client, progress=False)
    first.wait()
    assert first.finished
    assert second.finished
    for run in second.runs:
        assert outcomes(run) == ["finished"]
        assert len(run.rows("iterations")) == 20
        assert (run.directory / "completed").read_text() == "once\n"
    assert len(results.table(tmp_path / "sweep")) == 5 * 20


def test_a_run_is_claimed_as_long_as_its_kernel_lives(tmp_path):
    claim = layout.Claim.take(tmp_path)
    assert claim is not None
    assert layout.is_claimed(tmp_path)
    assert layout.Claim.take(tmp_path) is None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[claim.descriptor])
    claim.release()
    assert layout.is_claimed(tmp_path), "a kernel that inherited the claim holds it"
    child.communicate(b"\n")
    assert not layout.is_claimed(tmp_path)
    with layout.Claim.take(tmp_path):
        assert layout.is_claimed(tmp_path)
    assert not layout.is_claimed(tmp_path)


def test_lines_that_are_being_written_are_not_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    files.append_lines(path, [{"a": 1, "b": float("nan")}, {"a": 2, "b": (1, float("inf"))}])
    with open(path, "ab") as file:
        file.write(b'{"a": 3')
    assert files.read_lines(path) == [{"a": 1, "b": None}, {"a": 2, "b": [1, None]}]
    assert files.last_line(path) == {"a": 2, "b": [1, None]}


# ---- comparing ----


@pytest.fixture(scope="module")
def compared(tmp_path_factory, client):
    """Two orders, three seeds each, finished."""
    place = tmp_path_factory.mktemp("compared")
    notebook = write_notebook(place / "tiny.ipynb")
    sweep = wb.Sweep(notebook, grid={"order": ["random", "fixed"]}, seeds=range(3), directory=place / "sweep")
    return sweep.run(client=client, progress=False)


def test_its_groups_are_compared_and_drawn(compared):
    comparison = compared.compare()
    assert comparison.groups == ("random", "fixed")
    ends = [value_of(seed, 20, "fixed") for seed in range(3)]
    assert comparison.scores["fixed"]["all runs"].tolist() == ends
    for kind in ("curves", "intervals", "profiles", "improvement"):
        assert compared.figure("return", by="order", kind=kind).figure.data, kind
    assert compared.figure(kind="paired", baseline="random").figure.data
    with pytest.raises(ValueError, match="did you mean 'curves'"):
        compared.figure(kind="curve")
    with pytest.raises(ValueError, match="did you mean 'order'"):
        compared.figure("return", by="odrer")


def test_a_run_changed_by_hand_is_left_out_unless_asked_for(compared):
    steered = compared.runs[0]
    path = steered.directory / layout.SUMMARY
    files.write_json(path, {**steered.summary, "steered": True})
    try:
        assert compared.table().groupby("run")["steered"].first().sum() == 1
        assert "1 run steered by hand" in repr(compared.compare())
        assert len(compared.compare().scores["random"]["all runs"]) == 2
        assert len(compared.compare(steered=True).scores["random"]["all runs"]) == 3
    finally:
        files.write_json(path, steered.summary)


def test_the_fields_word_for_the_method_is_understood(tmp_path):
    parameters = "method: str = 'happo'\nseed: int = 0\ndirectory: str | None = None\n"
    notebook = write_notebook(tmp_path / "methods.ipynb", "pass", parameters=parameters)
    sweep = wb.Sweep(notebook, grid={"method": ["happo", "mappo"]}, seeds=[0, 1], directory=tmp_path / "sweep")
    for run in sweep.runs:
        run.directory.mkdir(parents=True)
        files.write_lines(run.directory / layout.METRICS, [{"env_steps": 5, "return": 1.0}])
        files.write_json(run.directory / layout.FINISHED, {})
    assert sweep.compare(by="algorithm").groups == sweep.compare(by="method").groups == ("happo", "mappo")


# ---- kernels ----

TELLS = """\
import json, os, pathlib, random
import numpy as np
told = {"ppid": os.getppid(), "draw": float(np.random.rand()), "python": random.random(), "cwd": os.getcwd(),
        "threads": os.environ["OMP_NUM_THREADS"]}
(pathlib.Path(directory) / "summary.json").write_text(json.dumps(told))
"""


def test_a_kernel_starts_beside_its_notebook_with_threads_and_a_stream_of_its_own(tmp_path):
    notebook = write_notebook(tmp_path / "tells.ipynb", TELLS)
    told = []
    for seed in range(2):
        sweep = wb.Sweep(notebook, seeds=[seed], directory=tmp_path / "sweep", threads=1)
        outcome = run_one(sweep._job()(sweep.plan.runs[0]), lambda: False)
        assert outcome.kind == "finished", outcome.message
        told.append(sweep.runs[0].summary)
    first, second = told
    assert first["ppid"] == second["ppid"] == os.getpid()
    assert first["draw"] != second["draw"]
    assert first["python"] != second["python"]
    assert first["threads"] == "1"
    assert first["cwd"] == str(tmp_path)


# ---- clusters ----


def test_a_cluster_that_cannot_do_it_says_why(notebook, tmp_path, client, monkeypatch):
    sweep = wb.Sweep(notebook, directory=tmp_path / "sweep")
    monkeypatch.setattr(cluster, "PATIENCE", "1s")
    with pytest.raises(SweepError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:1'"):
        sweep.run(scheduler="tcp://127.0.0.1:1", progress=False)
    monkeypatch.setattr(wb, "__version__", "9.9")
    with pytest.raises(SweepError, match=r"has workbench .*, this is 9\.9"):
        sweep.run(client=client, progress=False)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="no sweep can be kept in"):
        wb.Sweep(notebook, directory=tmp_path / "file").run(client=client, progress=False)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            ImportError("none"),
            r"the worker at tcp://h:1 cannot do runs \(ImportError\('none'\)\); install",
        ),
        (
            (wb.__version__, False, ["python3"]),
            r"tcp://h:1 does not see '.*'\. Choose a directory that all",
        ),
        (
            (wb.__version__, True, ["ir"]),
            r"the worker at tcp://h:1 has no kernel 'python3'; it has ir\.",
        ),
    ],
)
def test_workers_that_cannot_do_it_are_refused(state, message, tmp_path):
    client = SimpleNamespace(run=lambda *_, **__: {"tcp://h:1": state})
    with pytest.raises(SweepError, match=message):
        cluster.check_workers(client, tmp_path, "python3")
    assert not list(tmp_path.iterdir())


def test_a_worker_process_starts_no_cluster(monkeypatch):
    monkeypatch.setattr(multiprocessing.process.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SweepError, match="this script starts its sweep when it is imported"), cluster.cluster(1):
        pass


def test_a_lost_connection_is_told():
    lost = SimpleNamespace(client=SimpleNamespace(status="closed"))
    work = SimpleNamespace(future=SimpleNamespace(status="cancelled"), run=SimpleNamespace(name="run"))
    with pytest.raises(SweepError, match=r"the connection to the cluster was lost; sweep\.run\(\) goes on"):
        dispatcher.RunDispatcher._outcome(lost, work)


def test_a_file_that_cannot_be_written_whole_is_not_written(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    files.write_text(tmp_path / "a.json", "before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(tmp_path / "a.json", "after")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.json": b"before"}


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(layout.fcntl, "flock", refuse)
    with pytest.raises(OSError, match=r"is on a file system without locks \(No locks available\)") as refusal:
        layout.Claim.take(tmp_path)
    assert refusal.value.errno == errno.ENOLCK


def test_a_cluster_on_this_machine_is_heard_by_nobody_else(client):
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        each.laddr.ip for process in family for each in process.net_connections() if each.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


@pytest.mark.parametrize("start", ["", "if True:\n    ", "for _ in range(1):\n    "])
def test_a_script_without_a_guard_is_told_so(start, notebook, tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import workbench as wb\n"
        f"sweep = wb.Sweep({str(notebook)!r}, directory={str(tmp_path / 'sweep')!r})\n"
        f"{start}sweep.run(workers=1, progress=False)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("workbench.sweeps.main_guard.SweepError: this script starts its sweep when it is imported")
    assert last.endswith("Put what it does under `if __name__ == '__main__':`.")
    assert done.stderr.count("Traceback") == 1
    assert not (tmp_path / "sweep").exists()


def test_workers_that_do_not_start_are_told(monkeypatch):
    def fail(**_):
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(cluster, "LocalCluster", fail)
    message = r"no worker process could be started \(Nanny failed to start\.\); .* under `if __name__ == '__main__':`"
    with pytest.raises(SweepError, match=message), cluster.cluster(1):
        pass


@pytest.mark.parametrize(
    "ending",
    [
        "if __name__ == '__main__':\n    main()\n",
        "if multiprocessing.current_process().name == 'MainProcess':\n    main()\n",
    ],
)
def test_a_script_with_a_guard_runs(ending, notebook, tmp_path):
    script = tmp_path / "guarded.py"
    script.write_text(
        "import multiprocessing\nimport workbench as wb\n\n\ndef main():\n"
        f"    sweep = wb.Sweep({str(notebook)!r}, directory={str(tmp_path / 'sweep')!r})\n"
        f"    print(sweep.run(workers=1, progress=False).finished)\n\n\n{ending}"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert done.stdout == "True\n"


def test_the_table_keeps_the_metrics_names(tmp_path):
    place = tmp_path / layout.RUNS / "abc"
    place.mkdir(parents=True)
    parameters = {"env_steps": 10, "order": ["a", "b"], "seed": 1}
    files.write_json(tmp_path / layout.SWEEP, {"swept": ["env_steps", "order"], "runs": {"abc": parameters}})
    files.write_lines(place / layout.METRICS, [{"env_steps": 5, "order": ["b", "a"], "return": None}])
    (row,) = results.table(tmp_path).to_dict("records")
    assert row["env_steps"] == 5
    assert row["parameter_env_steps"] == 10
    assert row["order"] == "('a', 'b')"
    assert row["metric_order"] == ["b", "a"]
    assert pd.isna(row["return"])
    assert results.table(tmp_path)["return"].dtype == "float64"
    with pytest.raises(ValueError, match="did you mean 'iterations'"):
        results.table(tmp_path, "iteration")
    with pytest.raises(FileNotFoundError, match="holds no sweep"):
        results.table(place)


def test_runs_made_by_other_code_are_told(tmp_path, client):
    """A changed notebook, and a changed module beside it, directly imported or by another one, are other code."""
    (tmp_path / "reward.py").write_text("import deeper\nVALUE = deeper.VALUE\n")
    (tmp_path / "deeper.py").write_text("VALUE = 1\n")
    (tmp_path / "nobody_asks.py").write_text("VALUE = 1\n")
    notebook = write_notebook(tmp_path / "tiny.ipynb", "%pdb off\nfrom reward import VALUE\n" + WORK)

    def sweep(seeds=(0,)):
        return wb.Sweep(notebook, seeds=seeds, directory=tmp_path / "sweep")

    sweep().run(client=client, progress=False)
    first = sweep().table("runs")["code"].tolist()
    (tmp_path / "nobody_asks.py").write_text("VALUE = 2\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep().run(client=client, progress=False)
    (tmp_path / "deeper.py").write_text("VALUE = 2\n")
    assert "1 of 1 runs were made by other code" in repr(sweep())
    with pytest.warns(UserWarning, match="1 of 2 runs were made by other code: the notebook, or a module beside it"):
        sweep((0, 1)).run(client=client, progress=False)
    told = sweep((0, 1)).table("runs").set_index("seed")["code"]
    assert told[0] == first[0] != told[1]
    write_notebook(tmp_path / "tiny.ipynb", WORK)
    with pytest.warns(UserWarning, match="2 of 2 runs were made by other code"):
        sweep((0, 1)).run(client=client, progress=False)


def test_what_a_run_prints_is_bounded_and_one_whose_directory_vanishes_has_failed(tmp_path, client):
    work = """
import json, pathlib, shutil
if seed == 0:
    for _ in range(700):
        print("x" * 9_999)
    print("the e" + "nd")
    (pathlib.Path(directory) / "summary.json").write_text(json.dumps({"return": 1.0}))
else:
    shutil.rmtree(directory)
"""
    parameters = "seed: int = 0\ndirectory: str | None = None\n"
    notebook = write_notebook(tmp_path / "odd.ipynb", work, parameters=parameters)
    sweep = wb.Sweep(notebook, seeds=range(2), directory=tmp_path / "sweep")
    sweep.run(client=client, progress=False)
    printed, vanished = sweep.runs
    report = (printed.directory / layout.REPORT).read_text()
    assert 5_000_000 < len(report) < 5_100_000
    assert "the run printed more than 5,000,000 characters; the rest was not kept" in report
    assert "the end" not in report
    assert [run.status for run in sweep.runs] == ["finished", "failed"]
    assert list(sweep.failures) == ["seed=1"]
    assert "no end of it could be written down" in vanished.failure["message"]


def test_sockets_of_a_killed_worker_are_cleared_away(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = RunKernel()
    abandoned = tmp_path / "wb-kernel-abandoned"
    abandoned.mkdir()
    for place in tmp_path.iterdir():
        os.utime(place, (0, 0))
    newborn = tmp_path / "wb-kernel-newborn"
    newborn.mkdir()
    other = RunKernel()
    there = {str(place) for place in tmp_path.iterdir()}
    assert there == {str(newborn), mine._sockets.name, other._sockets.name}
    mine._sockets.cleanup(), other._sockets.cleanup()
