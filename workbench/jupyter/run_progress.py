"""The bar of ``run()`` in a notebook: quiet HTML, updated in place; what it showed last stays."""

from __future__ import annotations

from html import escape
from typing import Any

from tqdm.std import tqdm

from workbench.jupyter.cells import in_notebook
from workbench.jupyter.sweep_progress import BAR, INK, Html, filled
from workbench.sweeps.progress import duration

__all__ = ["NotebookBar", "in_notebook"]


class NotebookBar(tqdm):  # type: ignore[misc]  # it has no types
    """tqdm's counting and timing; nothing of it goes to the terminal (``gui``)."""

    def __init__(self, **options: Any) -> None:
        self._handle: Any = None
        super().__init__(**options, gui=True, miniters=1)  # 1: no thread of tqdm's own draws
        self.display()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Show the bar as it is now."""
        import IPython.display

        if self._handle is None:
            display: Any = IPython.display.display
            self._handle = display(self._drawn(), display_id=True)
        else:
            self._handle.update(self._drawn())
        return True

    def close(self) -> None:
        """Show it for the last time."""
        if not self.disable:
            self.display()
        super().close()

    def _drawn(self) -> Html:
        """The text holds no times, so that it is the same whenever a run came as far."""
        now = self.format_dict
        rate = now["rate"] or ((self.n - self.initial) / now["elapsed"] if now["elapsed"] else 0.0)
        left = duration((self.total - self.n) / rate) + " left" if rate and self.n < self.total else ""
        pace = f"{self.format_sizeof(rate)} a second" if rate else ""
        done = f"{self.n:,} of {self.total:,} env steps"
        words = " · ".join(filter(None, [self.desc, done, self.postfix, pace, left]))
        body = escape(words) + filled([(self.n, BAR)], self.total)
        return Html(f"<div style='color:{INK};font-variant-numeric:tabular-nums'>{body}</div>", f"{self.desc}: {done}")
