"""The player's widget, and its life: it is closed when the cell that showed it runs again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import traitlets

from workbench.jupyter.assets import answer, packed, script, style

SCRIPTS = ("replay/scene", "replay/pictures", "replay/numbers", "replay/player")


class PlayerWidget(anywidget.AnyWidget):
    """The player of a replay on the page.

    spec      what there is to show, its arrays in ``block``
    block     all arrays, as float32 one after the other
    pictures  PNG one after the other, for environments that draw themselves
    at        {"take", "episode", "frame"} to be shown, as code last said
    shown     the same, as the page last said
    """

    _esm = script("page", *SCRIPTS)
    _css = style("replay/player")

    spec = traitlets.Dict().tag(sync=True)
    block = traitlets.Bytes().tag(sync=True)
    pictures = traitlets.Bytes().tag(sync=True)
    at = traitlets.Dict().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)

    def __init__(self, on_start: Callable[[Mapping[str, Any]], str], **traits: Any) -> None:
        """``on_start`` is called with a place that the page asks to start at; it returns what to say there."""
        # Packing takes a moment, which the page needs anyway to set itself up.
        threading.Thread(target=packed, args=("k3d",), name="workbench-k3d", daemon=True).start()
        super().__init__(**traits)
        self._on_start = on_start
        self.on_msg(self._hear)

    def close(self) -> None:
        """Take it off the page, and let go of what it held."""
        # What the page keeps of a closed widget, it keeps empty.
        self.spec, self.block, self.pictures = {}, b"", b""
        self.at = self.shown = {}
        self.layout.close()  # a widget too, which would outlive this one
        super().close()

    def _hear(self, _: object, message: Mapping[str, Any], __: object) -> None:
        if message.get("type") == "script":
            answer(self, message)
        elif message.get("type") == "start":
            try:
                text, error = self._on_start(message), False
            except Exception as refusal:
                text, error = f"{type(refusal).__name__}: {refusal}", True
            self.send({"type": "started", "text": text, "error": error})


class ClosedOnRerun:
    """What each cell of the notebook has shown, closed when the cell runs again; elsewhere it does nothing.

    Widgets live until they are closed, whether a page still shows them or not; a cell that is run again and again would
    otherwise leave one behind each time.
    """

    def __init__(self) -> None:
        self._shown: dict[str, list[Callable[[], None]]] = {}
        self._watching: Any = None

    def add(self, close: Callable[[], None]) -> None:
        """``close`` is to be called when the cell that is running now runs again."""
        cell = self._watch()
        if cell is not None:
            self._shown.setdefault(cell, []).append(close)

    def _watch(self) -> str | None:
        """The running cell; from the first call on, cells are watched."""
        try:
            from IPython.core.getipython import get_ipython
        except ImportError:
            return None
        shell = get_ipython()
        parent: Any = getattr(getattr(shell, "kernel", None), "get_parent", dict)()
        cell = parent.get("metadata", {}).get("cellId")
        if shell is not None and self._watching is not shell:
            shell.events.register("pre_run_cell", self._begins)
            self._watching = shell
        return cell if isinstance(cell, str) else None

    def _begins(self, info: Any) -> None:
        for close in self._shown.pop(getattr(info, "cell_id", None) or "", []):
            close()


SHOWN = ClosedOnRerun()
