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
from typing import Any, ClassVar

import anywidget
import numpy as np

STATIC = Path(__file__).parent / "static"
LIBRARIES = {"plotly": "package_data/plotly.min.js", "k3d": "static/standalone.js"}

PageMessage = Mapping[str, Any]  # what a page says

_PACKING = threading.Lock()


def script(*names: str) -> str:
    """The script of a widget, after what all have in common: files of ``static``, one after the other."""
    return "\n".join((STATIC / f"{name}.js").read_text(encoding="utf-8") for name in ("common", *names))


def style(*names: str) -> str:
    """The style sheet of a widget, after the one that all have in common."""
    return "".join((STATIC / f"{name}.css").read_text(encoding="utf-8") for name in ("common", *names))


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


class PageWidget(anywidget.AnyWidget):
    """A widget whose page draws with an installed library, and which leaves nothing behind when it is closed."""

    library: ClassVar[str]

    def __init__(self, **traits: object) -> None:
        # Packing takes a moment, which the page needs anyway to set itself up.
        name = f"workbench-{self.library}"
        threading.Thread(target=packed, args=(self.library,), name=name, daemon=True).start()
        super().__init__(**traits)
        self.on_msg(self._hear)

    def _hear(self, _: object, message: PageMessage, __: object) -> None:
        if message.get("type") != "script":
            self.hear(message)
        elif message.get("name") in LIBRARIES:
            self.send({"type": "script", "name": message["name"]}, buffers=[packed(message["name"])])

    def hear(self, message: PageMessage) -> None:
        """The page says something else than that it needs the library."""

    def close(self) -> None:
        """Take it off the page."""
        self.layout.close()  # a widget too, which ipywidgets would keep for ever
        super().close()


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

    def pack(self, value: object) -> Any:
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
