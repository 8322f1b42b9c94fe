"""A finished run as one small file that is kept with the repository: its curves, and where they come from.

``TASK_METHOD_seed-0_HASH.parquet`` has rows of three kinds, told apart by the column ``kind``: every evaluation, and
the iterations and agents of at most ``MOST_ITERATIONS`` iterations, evenly spaced. It holds nothing that differs
between two runs of the same bits: times are in the record, a JSON object in the file's metadata under ``workbench``.
pandas reads the rows: ``pandas.read_parquet(path)``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from workbench.running.atomic import write_atomically
from workbench.running.resume import CheckpointDirectory
from workbench.sweeps import files, layout, provenance
from workbench.sweeps.files import Json, json_value, read_json, read_lines
from workbench.sweeps.results import KINDS, TIMED, RunResult
from workbench.sweeps.values import IDENTIFYING, Parameters

FORMAT = 1
KIND = "kind"
RECORD = b"workbench"
SEAL = "seal"  # of a record; those before 2026-12 have none
MOST_ITERATIONS = 250
EVALUATIONS = "evaluations"
ROWS = tuple(kind for kind in KINDS if kind != "runs")

# Columns that keep all their digits; the other numbers are diagnostics, for which seven are enough.
EXACT = ("return", "return_std", "episode_length", "reward")
WHOLE = ("iteration", "env_steps", "episodes", "position")
COST = ("wall_seconds", "train_seconds", "env_steps_per_second", "attempts")


@dataclass(frozen=True)
class KeptRun(RunResult):
    """A run as its file tells it; ``directory`` is the file's, ``path`` the file."""

    path: Path = Path()

    @property
    def evaluated(self) -> bool:
        return bool(self.rows(EVALUATIONS))

    def rows(self, kind: str) -> list[Json]:
        """The rows of one kind, as the run wrote them."""
        return rows_of(read_table(self.path), kind)


def task_name(parameters: Parameters) -> str:
    """A task as files and directories call it: scenario and partition, as far as there are any."""
    return "-".join(files.file_name(parameters[part]) for part in IDENTIFYING[1:] if part in parameters)


def file_name(name: str, parameters: Parameters) -> str:
    """What a run's file is called: for people its task, method and seed, and the beginning of its hash.

    >>> file_name("0123456789abcdef", {"method": "happo", "scenario": "Ant", "agent_conf": "4x2", "seed": 1})
    'Ant-4x2_happo_seed-1_01234567.parquet'
    """
    seed = f"seed-{parameters['seed']}" if "seed" in parameters else ""
    words = [task_name(parameters), parameters.get("method", ""), seed, name[:8]]
    return "_".join(files.file_name(word) for word in words if word) + ".parquet"


def thinned(rows: Sequence[Json], most: int = MOST_ITERATIONS) -> list[Json]:
    """The rows of at most ``most`` iterations: of every k-th, the last of each k.

    >>> [row["iteration"] for row in thinned([{"iteration": i} for i in range(10)], most=4)]
    [2, 5, 8]
    """
    numbers = {row.get("iteration", 0) for row in rows}
    k = max(1, math.ceil(len(numbers) / most))
    return [row for row in rows if row.get("iteration", 0) % k == k - 1]


def tabulated(rows: Mapping[str, Iterable[Json]]) -> pyarrow.Table:
    """The rows of every kind as one table; an iteration's order is text, the agents by name."""
    found = []
    for kind, several in rows.items():
        for row in several:
            told = {name: value for name, value in row.items() if name not in TIMED}
            if isinstance(told.get("order"), list | tuple):
                told["order"] = " ".join(map(str, told["order"]))
            found.append({KIND: kind, **told})
    names = list(dict.fromkeys(name for row in found for name in row))
    return pyarrow.table({name: _column(name, [row.get(name) for row in found]) for name in names})


def _column(name: str, values: Sequence[object]) -> pyarrow.Array:
    if name in WHOLE:
        return pyarrow.array(values, pyarrow.int64())
    numbers = all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)
    if numbers:
        return pyarrow.array(values, pyarrow.float64() if name in EXACT else pyarrow.float32())
    return pyarrow.array(values)


def rows_of(table: pyarrow.Table, kind: str) -> list[Json]:
    """The rows of one kind, with the columns that this kind has."""
    part = table.filter(pyarrow.compute.field(KIND) == kind)
    held = [name for name in part.column_names if name != KIND and part[name].null_count < len(part)]
    rows: list[Json] = part.select(held).to_pylist()
    return rows


def digest(table: pyarrow.Table) -> str:
    """SHA-256 of all rows, however they are packed."""
    lines = (json.dumps(row, sort_keys=True) for row in table.to_pylist())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def table_of(directory: Path) -> pyarrow.Table:
    """The rows that are kept of the run that a sweep did in ``directory``."""
    read = {kind: read_lines(directory / KINDS[kind]) for kind in ROWS}
    return tabulated({kind: rows if kind == EVALUATIONS else thinned(rows) for kind, rows in read.items()})


def record_of(directory: Path, table: pyarrow.Table) -> Json:
    """Where the rows come from: parameters, all settings, versions, revision, cost, and the digest of the rows."""
    run = read_json(directory / layout.RUN) or {}
    summary = read_json(directory / layout.SUMMARY) or {}
    checkpoint = CheckpointDirectory(directory / layout.CHECKPOINTS).newest()
    machine = run.get("machine", {})
    return {
        "format": FORMAT,
        "parameters": run.get("parameters", {}),
        "settings": {} if checkpoint is None else dict(checkpoint[2]["made_with"]),
        "summary": {name: value for name, value in summary.items() if name not in COST},
        **{name: run.get(name) for name in ("notebook", "notebook_digest", "versions", "git", "threads")},
        "machine": {"system": str(machine.get("system")).split("-")[0], "cores": machine.get("cores")},
        "started": run.get("started"),
        "ended": run.get("ended"),
        "kept": provenance.now(),
        "cost": {name: run.get(name, summary.get(name)) for name in COST},
        "digest": digest(table),
    }


def seal(record: Json) -> str:
    """SHA-256 of all else in a record."""
    text = json.dumps(json_value({name: value for name, value in record.items() if name != SEAL}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write(path: Path, table: pyarrow.Table, record: Json) -> None:
    """Write a run's file, whole or not at all."""
    text = json.dumps(json_value({**record, SEAL: seal(record)}), ensure_ascii=False)
    with write_atomically(path) as temporary:
        pyarrow.parquet.write_table(table.replace_schema_metadata({RECORD: text}), temporary, compression="zstd")


def read_table(path: Path) -> pyarrow.Table:
    """All rows in a file; ``ValueError`` naming it for one that is damaged."""
    try:
        return pyarrow.parquet.read_table(path)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{path.name} is damaged, its rows cannot be read ({type(error).__name__}: {told}).") from None


def read_record(path: Path) -> Json:
    """The record in a file; ``ValueError`` for any other file."""
    if not path.is_file():
        raise ValueError(f"{path.name} is no kept run: there is no such file.")
    try:
        found = json.loads((pyarrow.parquet.read_schema(path).metadata or {})[RECORD])
    except (OSError, KeyError, ValueError, pyarrow.ArrowException) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{path.name} is no kept run ({type(error).__name__}: {told}).") from None
    if found.get("format") != FORMAT:
        raise ValueError(f"{path.name} has format {found.get('format')!r}; this version reads {FORMAT}.")
    return dict(found)


def read(path: Path, name: str, parameters: Parameters, swept: Iterable[str]) -> KeptRun:
    """The run in a file, as one of a plan."""
    record = read_record(path)
    return KeptRun(
        name=name,
        directory=path.parent,
        parameters=parameters,
        swept=tuple(swept),
        status="finished",
        record={**record, **record["cost"], "machine": {}},
        summary=record["summary"],
        failure={},
        path=path,
    )
