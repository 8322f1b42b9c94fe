"""The notebook's cells: calls around each, and what to close when a cell runs again. Without a notebook, nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.events import EventManager
    from IPython.core.interactiveshell import ExecutionInfo, InteractiveShell


def _shell() -> InteractiveShell | None:
    """IPython's running shell, or None."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return None
    return get_ipython()


def in_notebook() -> bool:
    """Whether a kernel runs this, so that what is displayed reaches a page."""
    return getattr(_shell(), "kernel", None) is not None


class CellHooks:
    """Says before each cell, ``tell(True)``, and after it, ``tell(False)``, that one is running, until closed.

    ``inside`` is whether a cell is running that began after this was made.
    """

    def __init__(self, tell: Callable[[bool], None]) -> None:
        self.inside = False
        self._tell = tell
        shell = _shell()
        self._events: EventManager | None = None if shell is None else shell.events
        if self._events is not None:
            self._events.register("pre_run_cell", self._enter)
            self._events.register("post_run_cell", self._leave)

    def _enter(self, *_: object) -> None:
        self.inside = True
        self._tell(True)

    def _leave(self, *_: object) -> None:
        self.inside = False
        self._tell(False)

    def close(self) -> None:
        """Call nothing any more."""
        if self._events is not None:
            self._events.unregister("pre_run_cell", self._enter)
            self._events.unregister("post_run_cell", self._leave)
            self._events = None


class ClosedOnRerun:
    """Closes what a cell has shown when the cell runs again.

    Widgets live until they are closed, whether a page still shows them or not; a cell that runs again and again would
    leave one behind each time.
    """

    def __init__(self) -> None:
        self._shown: dict[str, list[Callable[[], None]]] = {}
        self._watching: InteractiveShell | None = None

    def add(self, close: Callable[[], None]) -> None:
        """Call ``close`` when the cell that is running now runs again."""
        shell = _shell()
        if shell is None:
            return
        if self._watching is not shell:
            shell.events.register("pre_run_cell", self._begins)
            self._watching = shell
        parent: Callable[[], dict[str, dict[str, object]]] = getattr(getattr(shell, "kernel", None), "get_parent", dict)
        cell = parent().get("metadata", {}).get("cellId")
        if isinstance(cell, str):
            self._shown.setdefault(cell, []).append(close)

    def _begins(self, info: ExecutionInfo) -> None:
        for close in self._shown.pop(getattr(info, "cell_id", None) or "", []):
            close()
