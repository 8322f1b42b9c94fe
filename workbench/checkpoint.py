"""A trainer's state as named arrays and plain values, and those as one file.

The same flat form serves the fingerprint (a hash of what determines the future) and the checkpoint (that, and the
records of the past). The file is safetensors: reading it executes nothing, and a digest over everything in it tells a
damaged file from a good one.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import torch
from torch import Tensor

from workbench.critic import ValueNormalizer
from workbench.envs.base import TimeStep
from workbench.errors import CheckpointError
from workbench.history import Log
from workbench.networks import ParameterVector
from workbench.rollout import Rollout, Running
from workbench.settings import Settings
from workbench.state import Estimate, State

Arrays = dict[str, npt.NDArray[Any]]
Values = dict[str, Any]

FORMAT = 1
LONG = 1_000_000  # characters of plain values that a file's header should not hold; those beyond are an array
RECORDS = ("history", "agent_history", "evaluations")  # of the past: saved, but no part of the fingerprint
DOCUMENT = "document"
SHOWN = ("observations", "action_masks", "active")  # the mappings of a TimeStep that a policy acts on


def flatten(state: State) -> tuple[Arrays, Values]:
    """Everything that determines the future: {path: array} and {name: plain value}."""
    arrays: Arrays = {}

    def put(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                put(f"{path}/{name}", inner)
        elif value is not None:
            array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
            arrays[path] = np.ascontiguousarray(array)

    steps = {}
    for kind, vectors in (("policies", state.policies), ("critics", state.critics)):
        for name, vector in vectors.items():
            parts = {"values": vector.values, "first": vector.first_moment, "second": vector.second_moment}
            put(f"{kind}/{name}", parts)
            steps[f"{kind}/{name}"] = vector.steps
    current = state.running.current
    put("running", {"returns": state.running.returns, "lengths": state.running.lengths, "state": current.state})
    put("running", {name: getattr(current, name) for name in SHOWN})
    put("running", {"memory": state.running.memory, "critic_memory": state.running.critic_memory})
    put("env", state.env)
    for name, record in (("rollout", state.rollout), ("estimate", state.estimate)):
        if record is not None and state.phase != "collect":  # the next collect replaces both
            put(name, {f.name: getattr(record, f.name) for f in dataclasses.fields(record)})
    if state.phase != "collect":
        put("preceding_ratio", state.preceding_ratio)
        put("m_factors", state.m_factors)
    values: Values = {
        "settings": plain_settings(state.settings),
        "phase": state.phase,
        "position": state.position,
        "iteration": state.iteration,
        "env_steps": state.env_steps,
        "order": list(state.order),
        "pinned": state.pinned,
        "steps": steps,
        "normalizers": {name: dataclasses.asdict(value) for name, value in state.normalizers.items()},
    }
    return arrays, values


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
    values: Values = {"row": dict(state.row), "lengths": {}, "columns": {}}
    for name in RECORDS:
        rows = list(getattr(state, name))
        values["lengths"][name] = len(rows)
        values["columns"][name] = list(dict.fromkeys(column for row in rows for column in row))
        for column in values["columns"][name]:
            cells = [row.get(column, math.nan) for row in rows]
            if all(isinstance(cell, int | float) for cell in cells):
                arrays[f"{name}/{column}"] = np.array(cells, np.float64)
                values.setdefault("integers", {})[f"{name}/{column}"] = all(isinstance(cell, int) for cell in cells)
            else:
                values.setdefault("texts", {})[f"{name}/{column}"] = cells
    return arrays, values


def unflatten(arrays: Arrays, values: Values, past: Values, settings: Settings) -> State:
    """The state that ``flatten`` and ``records`` took apart."""
    device, dtype = settings.device, settings.torch_dtype

    def part(path: str) -> dict[str, npt.NDArray[Any]]:
        return {name.removeprefix(f"{path}/"): a for name, a in arrays.items() if name.startswith(f"{path}/")}

    def tensors(path: str) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array).to(device) for name, array in part(path).items()}

    def vectors(kind: str) -> dict[str, ParameterVector]:
        found = {}
        for name, steps in values["steps"].items():
            if name.startswith(f"{kind}/"):
                held = tensors(name)
                found[name.removeprefix(f"{kind}/")] = ParameterVector(
                    held["values"], held["first"], held["second"], steps
                )
        return found

    current = TimeStep(
        state=arrays["running/state"],
        reward=np.zeros(len(arrays["running/returns"])),
        terminated=np.zeros(len(arrays["running/returns"]), bool),
        truncated=np.zeros(len(arrays["running/returns"]), bool),
        observations=part("running/observations"),
        action_masks=part("running/action_masks"),
        active=part("running/active"),
    )
    rollout = estimate = None
    if "rollout/rewards" in arrays:
        rollout = Rollout(**_fields(Rollout, "rollout", arrays, tensors))
    if part("estimate"):
        estimate = Estimate(**_fields(Estimate, "estimate", arrays, tensors))
    ratio = arrays.get("preceding_ratio")
    return State(
        settings=settings,
        policies=vectors("policies"),
        critics=vectors("critics"),
        normalizers={name: ValueNormalizer(**held) for name, held in values["normalizers"].items()},
        running=Running(
            current,
            arrays["running/returns"],
            arrays["running/lengths"],
            tensors("running/memory"),
            tensors("running/critic_memory"),
        ),
        env=part("env") or None,
        phase=values["phase"],
        position=values["position"],
        iteration=values["iteration"],
        env_steps=values["env_steps"],
        order=tuple(values["order"]),
        pinned=values["pinned"],
        rollout=rollout,
        estimate=estimate,
        preceding_ratio=None if ratio is None else torch.from_numpy(ratio).to(device, dtype),
        m_factors=tensors("m_factors"),
        row=past["row"],
        **{name: _log(name, arrays, past) for name in RECORDS},
    )


def write(path: str | os.PathLike[str], arrays: Arrays, values: Values) -> Path:
    """One file, whole or not at all: written beside its place, flushed to the disk, then renamed.

    Raises ``OSError`` as the system gives it (disk full, no permission); what stood at ``path`` before is untouched.
    """
    path = Path(path)
    text = json.dumps(values, sort_keys=True)
    metadata = {"workbench": text, "sha256": digest(arrays, json.loads(text))}
    if len(text) > LONG:
        arrays, metadata["workbench"] = arrays | {DOCUMENT: np.frombuffer(text.encode(), np.uint8)}, DOCUMENT
    content = safetensors.numpy.save(arrays, metadata=metadata)
    if path.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, f"{str(path)!r} is a directory; name a file in it, such as {str(path / 'run.safetensors')!r}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


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
    plain = dataclasses.asdict(settings)
    if callable(plain["order"]):
        plain["order"] = {"callable": getattr(plain["order"], "__qualname__", repr(plain["order"]))}
    return json.loads(json.dumps(plain))  # type: ignore[no-any-return]  # tuples as they will be read


def _fields(kind: type, path: str, arrays: Arrays, tensors: Any) -> Values:
    found: Values = {}
    for f in dataclasses.fields(kind):
        name = f"{path}/{f.name}"
        if name not in arrays:
            found[f.name] = tensors(name)
        elif f.name.startswith("episode_"):
            found[f.name] = arrays[name]
        else:
            found[f.name] = torch.from_numpy(arrays[name])
    if "rewards" in found:
        device = found["observations"][next(iter(found["observations"]))].device
        found |= {name: value.to(device) for name, value in found.items() if isinstance(value, Tensor)}
    return found


def _log(name: str, arrays: Arrays, past: Values) -> Log[Any]:
    length = past["lengths"][name]
    columns: dict[str, list[Any]] = {}
    for path, array in arrays.items():
        if path.startswith(f"{name}/"):
            whole = past.get("integers", {}).get(path, False)
            columns[path.removeprefix(f"{name}/")] = [int(x) if whole else x for x in array.tolist()]
    for path, cells in past.get("texts", {}).items():
        if path.startswith(f"{name}/"):
            turned = [tuple(cell) if isinstance(cell, list) else cell for cell in cells]
            columns[path.removeprefix(f"{name}/")] = turned
    in_order = {column: columns[column] for column in past.get("columns", {}).get(name, columns)}
    return Log([{column: cells[i] for column, cells in in_order.items()} for i in range(length)])
