"""A trainer's state as named arrays and plain values, and those as one file.

The same flat form serves the fingerprint (a hash of what determines the future) and the checkpoint (that, and the
records of the past). The file is safetensors: reading it executes nothing, and a digest over everything in it tells a
damaged file from a good one.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import json
import math
import os
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from torch import Tensor

from workbench.envs.base import Array
from workbench.errors import CheckpointError
from workbench.learning.settings import Settings
from workbench.learning.state import State
from workbench.running.atomic import write_atomically

Arrays = dict[str, Array]
Values = dict[str, Any]

FORMAT = 2
LONG = 1_000_000  # characters of plain values that a file's header should not hold; those beyond are an array
LOGS = ("history", "agent_history", "evaluations", "improvements", "changes")
RECORDS = (*LOGS, "partial_metrics")  # of the past: saved, but no part of the fingerprint
DOCUMENT, ARRAY = "document", "array"


def flatten(state: State) -> tuple[Arrays, Values]:
    """Everything that determines the future: {path: array}, and a tree of plain values in which arrays are paths."""
    if state.phase == "collect":  # the next collect replaces these
        state = dataclasses.replace(state, rollout=None, estimate=None, preceding_ratio=None, m_factors={}, order=())
    arrays: Arrays = {}
    kept = {name: getattr(state, name) for name in kinds_of(State) if name not in (*RECORDS, "settings")}
    tree = {name: _taken_apart(value, name, arrays) for name, value in kept.items()}
    return arrays, {**tree, "settings": plain_settings(state.settings)}


def _taken_apart(value: object, path: str, arrays: Arrays) -> Any:
    """``value`` as plain values, its arrays put into ``arrays`` under their paths.

    A record becomes {field: …}, a mapping [[key, …], …] in its own order, an array {"array": path}.
    """
    if isinstance(value, Tensor | np.ndarray):
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        arrays[path] = np.ascontiguousarray(array)
        return {ARRAY: path}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = kinds_of(type(value))
        return {name: _taken_apart(getattr(value, name), f"{path}/{name}", arrays) for name in names}
    if isinstance(value, Mapping):
        return [[key, _taken_apart(each, f"{path}/{key}", arrays)] for key, each in value.items()]
    return list(value) if isinstance(value, tuple) else value


@functools.cache
def kinds_of(record: Any) -> dict[str, Any]:
    """{field: type} of a record, with what its annotations say."""
    hints = typing.get_type_hints(record, {**vars(sys.modules[record.__module__])}, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(record)}


def digest(arrays: Arrays, values: Values) -> str:
    """SHA-256 over all names, types, shapes and bytes."""
    hasher = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        hasher.update(f"{name} {array.dtype.str} {array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return hasher.hexdigest()


def records(state: State) -> tuple[Arrays, Values]:
    """The histories as columns: numbers as float64 arrays, the rest as lists, and the row that is under way."""
    arrays: Arrays = {}
    values: Values = {"partial_metrics": dict(state.partial_metrics), "lengths": {}, "columns": {}}
    for name in LOGS:
        rows = list(getattr(state, name))
        values["lengths"][name] = len(rows)
        values["columns"][name] = list(dict.fromkeys(column for row in rows for column in row))
        for column in values["columns"][name]:
            cells = [row.get(column, math.nan) for row in rows]
            if all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells):
                arrays[f"{name}/{column}"] = np.array(cells, np.float64)
                values.setdefault("integers", {})[f"{name}/{column}"] = all(isinstance(cell, int) for cell in cells)
            else:
                values.setdefault("texts", {})[f"{name}/{column}"] = cells
    return arrays, values


def write(path: str | os.PathLike[str], arrays: Arrays, values: Values) -> Path:
    """One file, whole or not at all: written beside its place, flushed to the disk, then renamed.

    Raises ``OSError`` as the system gives it (disk full, no permission); what stood at ``path`` before is untouched.
    """
    path = Path(path)
    text = json.dumps(values, default=_plain)  # in their own order: that of a mapping of agents says who is who
    metadata = {"workbench": text, "sha256": digest(arrays, json.loads(text))}
    if len(text) > LONG:
        arrays, metadata["workbench"] = arrays | {DOCUMENT: np.frombuffer(text.encode(), np.uint8)}, DOCUMENT
    content = safetensors.numpy.save(arrays, metadata=metadata)
    if path.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, f"{str(path)!r} is a directory; name a file in it, such as {str(path / 'run.safetensors')!r}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)
    return path


def _plain(value: object) -> Any:
    """NumPy's scalars and arrays as Python's own, a function as its name."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if callable(value):
        return {"callable": rule_name(value)}
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be kept in a file")


def read(path: str | os.PathLike[str]) -> tuple[Arrays, Values]:
    """What ``write`` wrote; executes nothing from the file. ``CheckpointError`` for the damaged and the foreign."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {str(path)!r}; trainer.save(path) writes one.")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if "workbench" not in metadata:
            raise CheckpointError(f"{str(path)!r} is a safetensors file, but no checkpoint of the workbench.")
        text = metadata["workbench"]
        values: Values = json.loads(arrays.pop(DOCUMENT).tobytes() if text == DOCUMENT else text)
    except CheckpointError:
        raise
    except Exception as error:
        # Damaged bytes raise the reader's own, json's, unicode's or the memory map's errors: one sentence for all.
        raise CheckpointError(
            f"{str(path)!r} cannot be read as a checkpoint: it is truncated, damaged, or something else ({error})."
        ) from None
    if digest(arrays, values) != metadata.get("sha256"):
        raise CheckpointError(f"{str(path)!r} was altered or damaged since it was written: its digest does not match.")
    if values.get("format") != FORMAT:
        raise CheckpointError(
            f"{str(path)!r} has checkpoint format {values.get('format')!r}, and this version reads format {FORMAT}. "
            f"Load it with workbench {values.get('workbench')}, which wrote it."
        )
    return arrays, values


def plain_settings(settings: Settings) -> Values:
    """Settings as they are read back from a file; a callable order becomes its name."""
    plain = {name: getattr(settings, name) for name in settings.names()}  # a rule is not to be copied
    return json.loads(json.dumps(plain, default=_plain))  # type: ignore[no-any-return]  # tuples as they will be read


def rule_name(rule: object) -> str:
    """What a file says of an order that is a function, or an object that can be called."""
    return str(getattr(rule, "__qualname__", type(rule).__qualname__))
