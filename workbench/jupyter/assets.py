"""What pages are sent: the widgets' own scripts and styles, the libraries that they draw with, and arrays.

A library is the installed package's, sent once to each page, when it asks; nothing is ever fetched from elsewhere.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

STATIC = Path(__file__).parent / "static"
LIBRARIES = {"plotly": "package_data/plotly.min.js", "k3d": "static/standalone.js"}

_PACKING = threading.Lock()


def script(*names: str) -> str:
    """The script of a widget, after what all have in common: files of ``static``, one after the other."""
    return "\n".join((STATIC / f"{name}.js").read_text(encoding="utf-8") for name in ("common", *names))


def style(name: str) -> str:
    """The style sheet of a widget, after the one that all have in common."""
    return "".join((STATIC / f"{each}.css").read_text(encoding="utf-8") for each in ("common", name))


@functools.cache
def _packed(library: str) -> bytes:
    package = importlib.util.find_spec(library)
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / LIBRARIES[library]
    return gzip.compress(path.read_bytes(), compresslevel=6, mtime=0)


def packed(library: str) -> bytes:
    """The script of an installed library, gzip-compressed; packed once a process."""
    with _PACKING:
        return _packed(library)


def answer(widget: Any, message: Mapping[str, Any]) -> None:
    """Send the page of ``widget`` the library that it asks for."""
    name = message.get("name")
    if name in LIBRARIES:
        widget.send({"type": "script", "name": name}, buffers=[packed(name)])


class ArrayBlock:
    """Arrays of numbers put together as float32; ``pack`` leaves {"$": [offset, length]} in the place of each.

    >>> block = ArrayBlock()
    >>> block.pack({"x": np.arange(3), "name": "a", "text": ["b"]})
    {'x': {'$': [0, 3]}, 'name': 'a', 'text': ['b']}
    >>> np.frombuffer(block.bytes(), dtype=np.float32).tolist()
    [0.0, 1.0, 2.0]
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def pack(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            start, self._length = self._length, self._length + value.size
            self._parts.append(np.ascontiguousarray(value, dtype=np.float32).tobytes())
            return {"$": [start, value.size]}
        if isinstance(value, Mapping):
            return {key: self.pack(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.pack(item) for item in value]
        return value

    def bytes(self) -> bytes:
        return b"".join(self._parts)
