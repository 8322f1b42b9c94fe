"""``Sweep``: many runs of one notebook, planned and checked first, then done on a cluster, readable all the while."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from workbench.envs.workers import usable_cpus
from workbench.sweeps import layout, results, values
from workbench.sweeps.batch import Batch
from workbench.sweeps.files import read_json
from workbench.sweeps.notebook import SEED, check_kernel
from workbench.sweeps.plan import expand
from workbench.sweeps.progress import duration, estimated
from workbench.sweeps.values import Parameters

SHOWN = 12  # combinations in a plan's table


class Sweep(Batch):
    """All combinations of some parameters of a notebook, each a run with a directory of its own.

        sweep = wb.Sweep("notebooks/experiment.ipynb", grid={"order": ["random", "fixed"]}, seeds=range(5),
                         directory="data/sweeps/orders")
        sweep                       # the plan and what it will cost
        sweep.run(workers=2)        # on this machine; or client=, or scheduler="tcp://…"
        sweep.table()               # one row an evaluation; at any time, from any process

    Nothing runs before everything is checked: names, types and the ranges that the notebook's comments state. What is
    finished is never run again, so the same lines go on after a kill, and do only what is new when seeds or values were
    added.

    notebook       a notebook with a cell tagged ``parameters``, among them ``directory``
    grid           {name: values}: every combination
    zip            {name: values}: the first of each together, then the second …
    random         {name: choices or {"uniform": [low, high]}, "log_uniform", "integers"}: ``samples`` draws of all
    samples, sampling_seed   how many, and which; more samples keep those that there are
    seeds          every combination with each of them
    fixed          {name: value} in all runs
    directory      where it all goes
    threads        that each run may use
    kernel         by which runs are done; by default the one that the notebook was saved with
    """

    def __init__(
        self,
        notebook: str | Path,
        *,
        grid: Mapping[str, Any] | None = None,
        zip: Mapping[str, Any] | None = None,
        random: Mapping[str, Any] | None = None,
        samples: int = 10,
        sampling_seed: int = 0,
        seeds: Iterable[int] | None = None,
        fixed: Mapping[str, Any] | None = None,
        directory: str | Path,
        threads: int = 1,
        kernel: str | None = None,
    ) -> None:
        super().__init__(notebook, directory, threads, kernel)
        check_kernel(self.notebook, self.kernel)
        self.plan = expand(
            self.notebook,
            grid=grid,
            zip=zip,
            random=random,
            samples=samples,
            sampling_seed=sampling_seed,
            seeds=seeds,
            fixed=fixed,
        )

    # --- the plan and its cost ------------------------------------------------------------------------------------

    def estimate(self, workers: int | None = None) -> float | None:
        """Seconds that what is left will take on so many workers, by the pace of runs that are known; None if none is.

        Known are the finished runs of this directory and, if there is none yet, those of the same notebook in the
        directories beside it. A run's pace is taken per env step where the notebook has ``env_steps``.
        """
        left = [run for run in self.plan.runs if self._status(run) not in results.ENDS]
        beside = sorted(path for path in self.directory.parent.glob("*") if path != self.directory)
        return estimated(left, self._known([self.directory]) or self._known(beside), workers)

    def _known(self, directories: Iterable[Path]) -> list[tuple[Parameters, float | None]]:
        """Parameters and wall times of the finished runs there."""
        places = [place for each in directories for place in (each / layout.RUNS).glob("*")]
        records = [read_json(place / layout.RUN) or {} for place in places if (place / layout.FINISHED).exists()]
        ours = [record for record in records if record.get("notebook_digest") == self.notebook.digest]
        return [(record["parameters"], record["wall_seconds"]) for record in ours if record.get("wall_seconds")]

    def _lines(self) -> dict[str, str]:
        """The plan in words."""
        done = self.progress
        defaults = {
            name: values.short(value)
            for name, value in self.plan.runs[0].parameters.items()
            if name not in self.plan.swept and name != SEED
        }
        seconds = self.estimate()
        if seconds is None:
            cost = "how long is not known before a run is finished"
        elif seconds == 0:
            cost = "nothing is left to do"
        else:
            cost = f"about {duration(seconds)} on {usable_cpus()} workers, by the pace of finished runs"
        if sizes := [run.parameters["env_steps"] for run in self.plan.runs if "env_steps" in run.parameters]:
            cost = f"{sum(sizes):,} env steps in all; {cost}"
        lines = {
            "notebook": str(self.notebook.path.name),
            "plan": self.plan.count(),
            "done": f"{done.finished} finished, {done.failed} failed, {done.elsewhere} running, {done.waiting} to do",
            "cost": cost,
            "the same in all": ", ".join(f"{name}={value}" for name, value in defaults.items()),
            "directory": min(str(self.directory), os.path.relpath(self.directory), key=len),
        }
        if others := self._made_by_other_code():
            lines["note"] = self._told_of_other_code(others)
        return lines

    def __repr__(self) -> str:
        return "\n".join(f"{name:<16}{text}" for name, text in {"Sweep": "", **self._lines()}.items()).rstrip()

    def _repr_html_(self) -> str:
        left = "style='text-align:left'"
        rows = "".join(
            f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(text)}</td></tr>"
            for name, text in self._lines().items()
        )
        names = [name for name in self.plan.swept if name != SEED]
        cells: dict[tuple[str, ...], list[str]] = {}
        for run in self.plan.runs:
            cell = tuple(values.short(run.parameters[name]) for name in names)
            cells.setdefault(cell, []).append(self._status(run))
        head = "".join(f"<th>{escape(name)}</th>" for name in (*names, "runs"))
        body = ""
        for cell, statuses in list(cells.items())[:SHOWN]:
            told = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
            body += "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in (*cell, told)) + "</tr>"
        more = f"<p>and {len(cells) - SHOWN} more combinations</p>" if len(cells) > SHOWN else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
        return f"<b>Sweep</b><table>{rows}</table>{table}"
