"""Nested values as a flat mapping of plain arrays and back, so that storing and reading them executes no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.envs.base import Array

Arrays = dict[str, Array]

_ARRAY = "\0array"  # marks, within the structure, where an array belongs


def to_arrays(value: object) -> Arrays:
    """``value`` (arrays, numbers, text, None, and lists and dicts of these) as arrays by name.

    "structure" is its JSON as bytes; the arrays in it follow as "0", "1" and so on. Raises ``TypeError`` naming what is
    none of these.

    >>> flat = to_arrays({"position": np.array([1.0, 2.0]), "step": 3})
    >>> sorted(flat)
    ['0', 'structure']
    >>> from_arrays(flat)
    {'position': array([1., 2.]), 'step': 3}
    """
    arrays: Arrays = {}

    def plain(part: object, path: str) -> Any:
        if isinstance(part, np.ndarray | np.generic) and np.asarray(part).dtype.kind in "biufc":
            name = str(len(arrays))
            arrays[name] = np.array(part)
            return {_ARRAY: name}
        if isinstance(part, Mapping):
            if odd := [key for key in part if not isinstance(key, str)]:
                raise TypeError(f"{path} has the key {odd[0]!r}; expected text.")
            return {key: plain(inner, f"{path}[{key!r}]") for key, inner in part.items()}
        if isinstance(part, list | tuple):
            return [plain(inner, f"{path}[{i}]") for i, inner in enumerate(part)]
        if part is None or isinstance(part, bool | int | float | str):
            return part
        raise TypeError(f"{path} is a {type(part).__name__}; expected arrays, numbers, text, None, lists or dicts.")

    structure = json.dumps(plain(value, "it"))
    return {"structure": np.frombuffer(structure.encode(), np.uint8).copy(), **arrays}


def from_arrays(flat: Mapping[str, Array]) -> Any:
    """What ``to_arrays`` took apart, in fresh arrays; tuples come back as lists."""

    def whole(part: object) -> Any:
        if isinstance(part, dict):
            if _ARRAY in part:
                return np.array(flat[part[_ARRAY]])
            return {key: whole(inner) for key, inner in part.items()}
        return [whole(inner) for inner in part] if isinstance(part, list) else part

    return whole(json.loads(np.asarray(flat["structure"], np.uint8).tobytes()))
