"""``LivePlot``: a Plotly figure that is drawn anew, fast, as often as its page can follow.

A frame is a figure in plain form. Its arrays travel as float32 in one block, the rest as JSON; the page draws the
newest frame with ``Plotly.react``. plotly.js is the installed plotly package's, sent once to each page, when it asks.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from workbench.jupyter import look

STATIC = Path(__file__).parent / "static"
COMMON_CSS = (STATIC / "common.css").read_text(encoding="utf-8")

_PACKING = threading.Lock()


@functools.cache
def _packed_plotly() -> bytes:
    package = importlib.util.find_spec("plotly")
    assert package is not None
    assert package.origin is not None
    script = Path(package.origin).parent / "package_data" / "plotly.min.js"
    return gzip.compress(script.read_bytes(), compresslevel=6, mtime=0)


def packed_plotly() -> bytes:
    """plotly.js as the installed plotly package has it, gzip-compressed; packed once a process."""
    with _PACKING:
        return _packed_plotly()


class LivePlot(anywidget.AnyWidget):
    """A figure in the page. ``draw(figure)`` shows the newest; nobody need see those before it.

    width  of the figure on the page in pixels, as the page last said; ``look.WIDTH`` before any has
    drawn  the number of the last frame that a page has drawn; ``sent`` that of the last frame sent
    """

    _esm = STATIC / "live_plot.js"
    _css = COMMON_CSS + (STATIC / "live_plot.css").read_text(encoding="utf-8")

    spec = traitlets.Dict().tag(sync=True)
    block = traitlets.Bytes().tag(sync=True)
    templates = traitlets.Dict().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_message: Callable[[], None] = lambda: None) -> None:
        """``on_message`` is called, in whatever thread, when a page has drawn a frame or has another width."""
        self.width = look.WIDTH
        self.sent = 0
        self.drawn = 0
        self._on_message = on_message
        # Packing takes a moment, which the page needs anyway to set itself up.
        threading.Thread(target=packed_plotly, name="workbench-plotly", daemon=True).start()
        super().__init__(templates={"light": look.template("light"), "dark": look.template("dark")})
        self.on_msg(self._hear)

    def draw(self, figure: Mapping[str, Any], label: str) -> None:
        """Send a frame; ``label`` is what a screen reader says of it."""
        block = Block()
        data = block.pack(figure["data"])
        layout = {key: value for key, value in figure["layout"].items() if key != "width"}
        self.sent += 1
        spec = {"data": data, "layout": block.pack(layout), "label": label, "frame": self.sent}
        with self.hold_sync():
            self.block = block.bytes()
            self.spec = spec

    def _hear(self, _: object, message: Mapping[str, Any], __: object) -> None:
        kind = message.get("type")
        if kind == "plotly":
            self.send({"type": "plotly"}, buffers=[packed_plotly()])
        elif kind == "drawn":
            self.drawn = max(self.drawn, int(message["frame"]))
            self._on_message()
        elif kind == "width":
            self.width = int(message["width"])
            self._on_message()


class Block:
    """Arrays of numbers put together as float32; ``pack`` leaves {"$": [offset, length]} in the place of each.

    >>> block = Block()
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
