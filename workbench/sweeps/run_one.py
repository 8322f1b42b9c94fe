"""One run, from a claim on its directory to the marker written last: what a worker of the cluster does.

A run counts as finished only when papermill has returned, the notebook has written its summary, and ``finished.json``
stands. Whatever kills a process before that leaves a directory from which the next attempt goes on.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill
import pyarrow.json
import pyarrow.parquet
from nbclient.exceptions import DeadKernelError
from papermill.engines import papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.translators import PythonTranslator, papermill_translators

from workbench.running.atomic import write_atomically
from workbench.sweeps import layout, provenance
from workbench.sweeps.files import append_lines, read_json, read_lines, write_json, write_text
from workbench.sweeps.job import Job, RunOutcome
from workbench.sweeps.jupyter_kernels import BoundedEngine, RunKernel
from workbench.sweeps.layout import Claim
from workbench.sweeps.report_page import page
from workbench.sweeps.results import end_of

CLAIM_TRIES, CLAIM_PAUSE = 20, 0.05  # a process that only looks whether a run is claimed holds the lock for an instant
LOOKS_FOR_STOP = 0.2  # seconds between two looks
SECONDS_TO_STOP = 30.0  # from being asked to stop until it is killed: time to end a phase and write a checkpoint
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours of a terminal in a traceback
KERNEL_DIED = "its kernel died"
DEATHS = 3  # attempts from one point that may die before the run is given up


class PlainTranslator(PythonTranslator):  # type: ignore[misc]
    """Papermill's literals for Python, and tuples, which it would make text of."""

    @classmethod
    def translate(cls, val: object) -> str:
        if isinstance(val, tuple):
            return f"({''.join(cls.translate(item) + ', ' for item in val).strip()})"
        return str(super().translate(val))

    @classmethod
    def translate_str(cls, val: str) -> str:
        return repr(str(val))


logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would say is told by the outcome
papermill_translators.register("python", PlainTranslator)
papermill_engines.register("bounded", BoundedEngine)


def run_one(job: Job, stop: Callable[[], bool] = lambda: False) -> RunOutcome:
    """Do a run, or find out that it need not be done. ``stop()`` is asked again and again whether it should stop."""
    directory = layout.run_directory(Path(job.directory), job.run.name)
    directory.mkdir(parents=True, exist_ok=True)
    claim = _claim(directory)
    if claim is None:
        return RunOutcome(job.run.name, "elsewhere", "somebody else works on it")
    with claim:
        if (end := end_of(directory)) is not None:
            return RunOutcome(job.run.name, "finished" if end.kind == "finished" else "failed", end.message)
        return _Attempt(job, directory, claim, stop).make()


def _claim(directory: Path) -> Claim | None:
    for _ in range(CLAIM_TRIES):
        claim = Claim.take(directory)
        if claim is not None:
            return claim
        time.sleep(CLAIM_PAUSE)
    return None


class _Attempt:
    """One attempt at a run, made while holding the claim on it."""

    def __init__(self, job: Job, directory: Path, claim: Claim, stop: Callable[[], bool]) -> None:
        self.job, self.directory, self.claim = job, directory, claim
        self.stop = stop
        self.stopped = False
        self.started = time.monotonic()
        lines = read_lines(directory / layout.ATTEMPTS)
        again = max((i for i, line in enumerate(lines) if "retried" in line), default=-1)
        self.recent = [line for line in lines[again + 1 :] if "started" in line]
        self.ended = {line["attempt"]: line for line in lines if "ended" in line}
        self.begun = next((line["started"] for line in lines if "started" in line), provenance.now())
        self.number = sum("started" in line for line in lines) + 1

    def make(self) -> RunOutcome:
        """Make it."""
        if self._deaths_in_a_row() >= DEATHS:
            outcome = self._failed("died", self._why_it_is_given_up())
        elif self.stop():
            return RunOutcome(self.job.run.name, "stopped", "it was asked to stop")
        else:
            self._begin()
            outcome = self._outcome()
            self._end(outcome)
        if outcome.kind in ("finished", "failed"):
            self._mark(outcome)
        return outcome

    def _outcome(self) -> RunOutcome:
        """Run the notebook, and say how that ended."""
        try:
            self._execute()
        except Exception as error:
            if self.stopped:
                return RunOutcome(self.job.run.name, "stopped", "it was asked to stop")
            if isinstance(error, PapermillExecutionError):
                self._keep_report()
                traceback = ANSI.sub("", "\n".join(error.traceback or ()))
                message = f"{error.ename}: {error.evalue}"
                return self._failed("error", message, cell=error.exec_count, traceback=traceback)
            # The kernel could not start, or died, or the disk is full: the next attempt may do better.
            why = KERNEL_DIED
            if not isinstance(error, DeadKernelError):
                said = self._last_words()
                why = f"{type(error).__name__}: {error}" + (f" (its process said: {said})" if said else "")
            return RunOutcome(self.job.run.name, "died", why, seconds=time.monotonic() - self.started)
        return self._after_success()

    # --- before ---------------------------------------------------------------------------------------------------

    def _newest_checkpoint(self) -> str:
        found = (path.name for path in (self.directory / layout.CHECKPOINTS).glob("[!.]*"))
        return max(found, default="")

    def _deaths_in_a_row(self) -> int:
        """Attempts, the last ones, that began where this one would and of which nothing more was heard."""
        here = self._newest_checkpoint()
        died_here = (
            attempt["from"] == here and self.ended.get(attempt["attempt"], {}).get("outcome", "died") == "died"
            for attempt in reversed(self.recent)
        )
        return sum(itertools.takewhile(bool, died_here))

    def _why_it_is_given_up(self) -> str:
        """What the last attempt met; a process that was killed could not tell."""
        last = self.ended.get(self.recent[-1]["attempt"], {}).get("message", KERNEL_DIED)
        if last == KERNEL_DIED:
            return f"its process died {DEATHS} times from the same point (out of memory?)"
        return f"{DEATHS} attempts from the same point could not go on; the last one: {last}"

    def _last_words(self) -> str:
        """The last line that the kernel's process said outside of the notebook."""
        path = self.directory / layout.OUTPUT
        if not path.exists():
            return ""
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            said = file.read().decode(errors="replace")
        return said.rstrip().rpartition("\n")[2].strip()

    def _begin(self) -> None:
        """Write down who begins what, and take away what an earlier attempt left half done."""
        for leftover in (layout.SUMMARY, layout.REPORT, layout.PAGE, layout.CURVES):
            (self.directory / leftover).unlink(missing_ok=True)
        for partial in self.directory.glob(".*.partial*"):
            partial.unlink(missing_ok=True)
        place = {"from": self._newest_checkpoint(), "host": socket.gethostname(), "pid": os.getpid()}
        append_lines(self.directory / layout.ATTEMPTS, [{"attempt": self.number, "started": provenance.now(), **place}])
        self._record(started=self.begun)

    def _record(self, **more: object) -> None:
        job = self.job
        known = read_json(self.directory / layout.RUN) or {}
        about = {
            "parameters": job.run.parameters,
            "notebook": job.notebook.path.stem,
            "notebook_digest": job.notebook.digest,
            "versions": provenance.versions(),
            "git": job.git,
            "machine": provenance.machine(),
            "threads": job.threads,
            "attempts": self.number,
        }
        write_json(self.directory / layout.RUN, {**known, **about, **more})

    # --- the notebook itself --------------------------------------------------------------------------------------

    @property
    def _partial(self) -> Path:
        return self.directory / f".{layout.REPORT}.partial.ipynb"

    def _execute(self) -> None:
        folder = self.job.notebook.path.parent
        said = self.directory / layout.OUTPUT
        with open(said, "ab") as output:

            class Kernel(RunKernel):
                threads = self.job.threads
                kept_open = (self.claim.descriptor,)
                started = self._watch

            Kernel.output = output.fileno()
            papermill.execute_notebook(
                nbformat.from_dict(self.job.notebook.content),
                # papermill fills braces in paths with parameters
                str(self._partial).replace("{", "{{").replace("}", "}}"),
                parameters={**self.job.run.parameters, "directory": str(self.directory)},
                kernel_name=self.job.kernel,
                engine_name="bounded",
                kernel_manager_class=Kernel,
                progress_bar=False,
                # Only tells the kernel where it starts; the process's own folder is shared by its threads.
                resources={"metadata": {"path": str(folder if folder.is_dir() else self.directory)}},
            )
        if said.stat().st_size == 0:
            said.unlink()

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

        threading.Thread(target=look, name=f"watch {self.job.run.name}", daemon=True).start()

    # --- after ----------------------------------------------------------------------------------------------------

    def _after_success(self) -> RunOutcome:
        if not (self.directory / layout.SUMMARY).exists():
            message = f"the notebook ended without writing {layout.SUMMARY}; let it end with wb.record(trainer, "
            return self._failed("incomplete", message + "directory, …), or write down by itself what it found")
        self._keep_report()
        if read_lines(self.directory / layout.METRICS):
            with write_atomically(self.directory / layout.CURVES) as path:
                pyarrow.parquet.write_table(pyarrow.json.read_json(self.directory / layout.METRICS), path)
        return RunOutcome(self.job.run.name, "finished", seconds=self._seconds_in_all())

    def _failed(self, kind: str, message: str, **detail: object) -> RunOutcome:
        told = {"kind": kind, "message": message, **detail}
        return RunOutcome(self.job.run.name, "failed", message, self._seconds_in_all(), told)

    def _end(self, outcome: RunOutcome) -> None:
        spent = time.monotonic() - self.started
        line = {"attempt": self.number, "ended": provenance.now(), "outcome": outcome.kind, "seconds": spent}
        message = {"message": outcome.message} if outcome.message else {}
        append_lines(self.directory / layout.ATTEMPTS, [{**line, **message}])
        self._partial.unlink(missing_ok=True)

    def _mark(self, outcome: RunOutcome) -> None:
        """The last thing that is written of a run at its end, by which alone it counts."""
        ended = provenance.now()
        speed = (read_json(self.directory / layout.SUMMARY) or {}).get("env_steps_per_second")
        self._record(ended=ended, wall_seconds=outcome.seconds, env_steps_per_second=speed)
        marker = layout.FINISHED if outcome.kind == "finished" else layout.FAILED
        about = {"ended": ended, "attempts": self.number, "wall_seconds": outcome.seconds}
        write_json(self.directory / marker, {**outcome.detail, **about})

    def _seconds_in_all(self) -> float:
        """Wall time of this attempt and of the earlier ones whose end is known."""
        earlier = sum(float(line.get("seconds", 0.0)) for line in self.ended.values())
        return earlier + time.monotonic() - self.started

    def _keep_report(self) -> None:
        """The executed notebook, and the same as a page that opens anywhere."""
        if not self._partial.exists():
            return
        try:
            content = self._partial.read_text(encoding="utf-8")
            write_text(self.directory / layout.PAGE, page(content, self.job.notebook.path.stem))
        except Exception as error:  # an odd cell spoils a page, not a run; the notebook itself is kept
            self._record(report_error=f"{type(error).__name__}: {error}")
        os.replace(self._partial, self.directory / layout.REPORT)
