"""A sweep's progress on a terminal: a block that is kept up to date, or, where nobody watches, a line for each end."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

from workbench.sweeps.progress import Progress


class TerminalProgress:
    """Shows progress on a stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._drawn = 0  # lines of the block that stands on the screen
        self._last: Progress | None = None

    def show(self, progress: Progress) -> None:
        """Bring what is shown up to date."""
        ends = ("finished", "failed", "pruned", "state")
        last, self._last = self._last, progress
        moved = last is None or any(getattr(progress, name) != getattr(last, name) for name in ends)
        if self._stream.isatty():
            self._redraw(progress)
        elif moved:
            print(progress.counts(), file=self._stream, flush=True)
            for label in sorted(progress.failures.keys() - (last.failures.keys() if last else set())):
                print(f"failed: {label}: {progress.failures[label]}", file=self._stream, flush=True)
        if progress.state in ("done", "cancelled"):
            self._drawn = 0

    def _redraw(self, progress: Progress) -> None:
        width = shutil.get_terminal_size().columns
        lines = [line[: width - 1] for line in str(progress).splitlines()]
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        self._stream.write(up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(lines)
