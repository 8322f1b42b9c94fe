"""One run, from a claim on its directory to the marker written last: what a worker of the cluster does.

A run counts as finished only when papermill has returned, the notebook has written its summary, and ``finished.json``
stands. Whatever kills a process before that leaves a directory from which the next attempt goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pyarrow
import pyarrow.json
import pyarrow.parquet
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from papermill.translators import PythonTranslator, papermill_translators

from workbench.sweeps import layout, provenance
from workbench.sweeps.job import Job, Outcome
from workbench.sweeps.jupyter_kernels import RunKernel
from workbench.sweeps.layout import Claim
from workbench.sweeps.report import page

CLAIM_TRIES, CLAIM_PAUSE = 20, 0.05  # whoever only looks whether a run is claimed holds the lock for an instant
LOOKS_FOR_STOP = 0.2  # seconds between two looks
SECONDS_TO_STOP = 30.0  # from being asked to stop until it is killed: time to end a phase and write a checkpoint
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours of a terminal in a traceback
DEATHS = 3  # attempts from one point that may die before the run is given up


class PlainTranslator(PythonTranslator):  # type: ignore[misc]
    """Papermill's literals for Python, and tuples, which it would make text of."""

    @classmethod
    def translate(cls, val: Any) -> str:
        if isinstance(val, tuple):
            return f"({''.join(cls.translate(item) + ', ' for item in val).strip()})"
        return str(super().translate(val))

    @classmethod
    def translate_str(cls, val: str) -> str:
        return repr(str(val))


logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would say is told by the outcome
papermill_translators.register("python", PlainTranslator)


def run_one(job: Job, stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Do a run, or find out that it need not be done. ``stop()`` is asked again and again whether it should stop."""
    directory = layout.run_directory(Path(job.directory), job.name)
    directory.mkdir(parents=True, exist_ok=True)
    claim = _claim(directory)
    if claim is None:
        return Outcome(job.name, "elsewhere", "somebody else works on it")
    with claim:
        if (directory / layout.FINISHED).exists():
            return Outcome(job.name, "finished")
        if (failure := layout.read_json(directory / layout.FAILED)) is not None:
            return Outcome(job.name, "failed", failure.get("message", ""))
        return _Attempt(job, directory, claim, stop).make()


def _claim(directory: Path) -> Claim | None:
    for _ in range(CLAIM_TRIES):
        claim = Claim.take(directory)
        if claim is not None:
            return claim
        time.sleep(CLAIM_PAUSE)
    return None


class _Attempt:
    """One attempt at a run, by whoever holds the claim on it."""

    def __init__(self, job: Job, directory: Path, claim: Claim, stop: Callable[[], bool]) -> None:
        self.job, self.directory, self.claim = job, directory, claim
        self.stop = stop
        self.stopped = False
        self.started = time.monotonic()
        lines = layout.read_lines(directory / layout.ATTEMPTS)
        again = max((i for i, line in enumerate(lines) if "retried" in line), default=-1)
        self.recent = [line for line in lines[again + 1 :] if "started" in line]
        self.ended = {line["attempt"]: line for line in lines if "ended" in line}
        self.begun = next((line["started"] for line in lines if "started" in line), None)
        self.number = sum("started" in line for line in lines) + 1

    def make(self) -> Outcome:
        """Make it."""
        deaths = self._deaths_in_a_row()
        if deaths >= DEATHS:
            outcome = self._failed("died", f"its process died {deaths} times from the same point (out of memory?)")
        elif self.stop():
            return Outcome(self.job.name, "stopped", "it was asked to stop")
        else:
            self._begin()
            outcome = self._outcome()
            self._end(outcome)
        self._mark(outcome)
        return outcome

    def _outcome(self) -> Outcome:
        """Run the notebook, and see what came of it."""
        try:
            self._execute()
            return self._after_success()
        except PapermillExecutionError as error:
            return self._after_error(error)
        except DeadKernelError:
            return self._after_death("its kernel died")
        except Exception as error:  # the kernel could not start, the disk is full: the next attempt may do better
            return self._after_death(f"{type(error).__name__}: {error}")

    # --- before ---------------------------------------------------------------------------------------------------

    def _newest_checkpoint(self) -> str:
        found = sorted(path.name for path in (self.directory / layout.CHECKPOINTS).glob("*") if path.name[0] != ".")
        return found[-1] if found else ""

    def _deaths_in_a_row(self) -> int:
        """Attempts, the last ones, that began where this one would and of which nothing more was heard."""
        here = self._newest_checkpoint()
        deaths = 0
        for attempt in reversed(self.recent):
            how = self.ended.get(attempt["attempt"], {}).get("outcome", "died")
            if how != "died" or attempt["from"] != here:
                break
            deaths += 1
        return deaths

    def _begin(self) -> None:
        """Write down who begins what, and take away what an earlier attempt left half done."""
        for leftover in (layout.SUMMARY, layout.REPORT, layout.PAGE, layout.CURVES):
            (self.directory / leftover).unlink(missing_ok=True)
        for partial in self.directory.glob(".*.partial*"):
            partial.unlink(missing_ok=True)
        line = {
            "attempt": self.number,
            "started": provenance.now(),
            "from": self._newest_checkpoint(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        layout.append_lines(self.directory / layout.ATTEMPTS, [line])
        self._record(started=self.begun or line["started"])

    def _record(self, **more: Any) -> None:
        job = self.job
        known = layout.read_json(self.directory / layout.RUN) or {}
        about = {
            "parameters": dict(job.parameters),
            "notebook": job.notebook_name,
            "notebook_digest": job.notebook_digest,
            "versions": provenance.versions(),
            "git": job.git,
            "machine": provenance.machine(),
            "threads": job.threads,
            "attempts": self.number,
        }
        layout.write_json(self.directory / layout.RUN, {**known, **about, **more})

    # --- the notebook itself --------------------------------------------------------------------------------------

    @property
    def _partial(self) -> Path:
        return self.directory / f".{layout.REPORT}.partial.ipynb"

    def _execute(self) -> None:
        notebook = nbformat.from_dict(json.loads(self.job.notebook))
        folder = self.job.notebook_folder
        with self._output() as output:

            class Kernel(RunKernel):
                threads = self.job.threads
                kept_open = (self.claim.descriptor,)
                started = self._watch

            Kernel.output = output
            papermill.execute_notebook(
                notebook,
                # papermill fills braces in paths with parameters
                str(self._partial).replace("{", "{{").replace("}", "}}"),
                parameters={**self.job.parameters, "directory": str(self.directory)},
                kernel_name=self.job.kernel,
                kernel_manager_class=Kernel,
                progress_bar=False,
                # Only tells the kernel where it starts; the process's own folder is shared by its threads.
                resources={"metadata": {"path": folder if os.path.isdir(folder) else str(self.directory)}},
            )

    @contextlib.contextmanager
    def _output(self) -> Iterator[int]:
        path = self.directory / layout.OUTPUT
        with open(path, "ab") as file:
            yield file.fileno()
        if path.stat().st_size == 0:
            path.unlink()

    def _watch(self, kernel: RunKernel) -> None:
        """Stop the kernel when asked to: first so that it can write a checkpoint, then at once."""

        def look() -> None:
            while not kernel.over.wait(LOOKS_FOR_STOP):
                if self.stop():
                    self.stopped = True
                    kernel.signal_process(signal.SIGTERM)
                    if not kernel.over.wait(SECONDS_TO_STOP):
                        kernel.signal_process(signal.SIGKILL)
                    return

        threading.Thread(target=look, name=f"watch {self.job.name}", daemon=True).start()

    # --- after ----------------------------------------------------------------------------------------------------

    def _after_success(self) -> Outcome:
        if not (self.directory / layout.SUMMARY).exists():
            message = f"the notebook ended without writing {layout.SUMMARY}; let it end with wb.record(trainer, "
            return self._failed("incomplete", message + "directory, …), or write down by itself what it found")
        self._keep_report()
        self._keep_curves()
        return Outcome(self.job.name, "finished", seconds=self._seconds_in_all())

    def _after_error(self, error: PapermillExecutionError) -> Outcome:
        if self.stopped:
            return Outcome(self.job.name, "stopped", "it was asked to stop")
        self._keep_report()
        traceback = ANSI.sub("", "\n".join(error.traceback or ()))
        return self._failed("error", f"{error.ename}: {error.evalue}", cell=error.exec_count, traceback=traceback)

    def _after_death(self, why: str) -> Outcome:
        if self.stopped:
            return Outcome(self.job.name, "stopped", "it was asked to stop")
        return Outcome(self.job.name, "died", why, seconds=time.monotonic() - self.started)

    def _failed(self, kind: str, message: str, **detail: Any) -> Outcome:
        return Outcome(
            self.job.name, "failed", message, self._seconds_in_all(), {"kind": kind, "message": message, **detail}
        )

    def _end(self, outcome: Outcome) -> None:
        spent = time.monotonic() - self.started
        line = {"attempt": self.number, "ended": provenance.now(), "outcome": outcome.kind, "seconds": spent}
        if outcome.message:
            line["message"] = outcome.message
        layout.append_lines(self.directory / layout.ATTEMPTS, [line])
        self._partial.unlink(missing_ok=True)

    def _mark(self, outcome: Outcome) -> None:
        """The last thing that is written of a run at its end, by which alone it counts."""
        if outcome.kind not in ("finished", "failed"):
            return
        ended = provenance.now()
        speed = (layout.read_json(self.directory / layout.SUMMARY) or {}).get("env_steps_per_second")
        self._record(ended=ended, wall_seconds=outcome.seconds, env_steps_per_second=speed)
        marker = layout.FINISHED if outcome.kind == "finished" else layout.FAILED
        about = {"ended": ended, "attempts": self.number, "wall_seconds": outcome.seconds}
        layout.write_json(self.directory / marker, {**outcome.detail, **about})

    def _seconds_in_all(self) -> float:
        """Wall time of this attempt and of the earlier ones whose end is known."""
        earlier = sum(float(line.get("seconds", 0.0)) for line in self.ended.values())
        return earlier + time.monotonic() - self.started

    def _keep_report(self) -> None:
        """The executed notebook, and the same as a page that opens anywhere."""
        if not self._partial.exists():
            return
        content = self._partial.read_text(encoding="utf-8")
        try:
            layout.write_whole(self.directory / layout.PAGE, page(content, self.job.notebook_name).encode())
        except Exception as error:  # an odd cell spoils a page, not a run; the notebook itself is kept
            self._record(report_error=f"{type(error).__name__}: {error}")
        os.replace(self._partial, self.directory / layout.REPORT)

    def _keep_curves(self) -> None:
        """The metrics as parquet, by rename."""
        metrics = self.directory / layout.METRICS
        if not layout.read_lines(metrics):
            return
        temporary = self.directory / f".{layout.CURVES}.partial"
        pyarrow.parquet.write_table(pyarrow.json.read_json(metrics), temporary)
        os.replace(temporary, self.directory / layout.CURVES)
