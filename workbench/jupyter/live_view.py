"""``LiveView``: one view in a cell of its own, drawn anew while its trainers train, whoever steps them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from workbench.errors import unknown_name
from workbench.jupyter import look
from workbench.jupyter.drawings import DRAWINGS, WITH_M_FACTORS, Drawing
from workbench.jupyter.flusher import ANSWER, Flusher
from workbench.jupyter.live_plot import LivePlot
from workbench.jupyter.message import Message, one_line
from workbench.jupyter.record import Record
from workbench.jupyter.runs import named
from workbench.jupyter.shown import AroundEachCell, ShownRecord
from workbench.jupyter.tape import Tape
from workbench.jupyter.widgets import close_all


class LiveView:
    """A view by name (``wb.views.live`` makes one), of one trainer or of several, with the view's own options.

    What fails in drawing is said under the figure; training goes on.
    """

    def __init__(self, view: str, trainers: Any, options: Mapping[str, Any]) -> None:
        if view not in DRAWINGS:
            raise unknown_name("view", view, DRAWINGS)
        self._view = view
        self._options = dict(options)
        self._tapes = [Tape(trainer, name) for name, trainer in named(trainers).items()]
        self.record()  # what the view does not take is refused here and now
        self._flusher = Flusher(self._flush, self._failed)
        self._flusher.gentle = True
        self._plot = LivePlot(self._hear)
        self._widths = self._plot.widths
        self._shown = ShownRecord(self.record, self._failed)
        self._around_each_cell = AroundEachCell(self._before_cell, self._after_cell)
        told = weakref.WeakMethod(self._changed)  # a trainer keeps no view alive
        self._ends: list[Callable[[], object]] = [
            weakref.finalize(self, tape.trainer.subscribe(lambda event: (method := told()) and method()))
            for tape in self._tapes
        ]

    def record(self) -> Record:
        """The figure as it is now, in a form that is kept with the notebook."""
        return self._drawing().record()

    def close(self) -> None:
        """Follow nothing any more, and take the figure off the page; its record stays."""
        for end in self._ends:
            end()
        for tape in self._tapes:
            tape.close()
        self._flusher.close()
        self._around_each_cell.close()
        self._shown.close()
        close_all(self._plot)

    def _drawing(self) -> Drawing:
        factors = self._view in WITH_M_FACTORS
        runs = [tape.run(beside=not (factors and i == 0)) for i, tape in enumerate(self._tapes)]
        return DRAWINGS[self._view](runs, **self._options)

    def _flush(self) -> bool:
        drawing = self._drawing()
        self._plot.complain(Message())
        sent = self._plot.draw(drawing.arranged(dict.fromkeys(self._plot.widths, look.PANEL_HEIGHT)), drawing.text)
        self._shown.renew_soon()
        return sent

    def _failed(self, error: Exception) -> None:
        self._plot.complain(Message.of(f"The figure failed, training goes on: {one_line(error)}", error))

    def _changed(self) -> None:
        self._flusher.poke()

    def _hear(self) -> None:
        if self._plot.drawn == self._plot.sent:
            self._flusher.answered(self._plot.took and self._plot.took + ANSWER)
        if self._plot.widths != self._widths:
            self._widths = self._plot.widths
            self._flusher.poke()

    def _before_cell(self) -> None:
        self._flusher.unattended = True

    def _after_cell(self) -> None:
        self._flusher.unattended = False
        self._flusher.poke()

    def __repr__(self) -> str:
        return f"Live view {self._view} of {', '.join(tape.name for tape in self._tapes)}"

    def _ipython_display_(self) -> None:
        self._shown.display(self._plot, repr(self))
        self._flusher.poke()
