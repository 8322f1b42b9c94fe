"""``LiveView``: one view in a cell of its own, drawn anew while its trainers train, whoever steps them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from workbench.jupyter import look
from workbench.jupyter.figures.drawings import Drawing
from workbench.jupyter.figures.record import Record
from workbench.jupyter.figures.run_columns import named
from workbench.jupyter.panel.frame_scheduler import ANSWER, FrameScheduler
from workbench.jupyter.panel.history_buffer import HistoryBuffer
from workbench.jupyter.panel.live_plot import LivePlot
from workbench.jupyter.panel.message import Message, one_line
from workbench.jupyter.panel.stored_record import CellHooks, StoredRecord
from workbench.jupyter.panel.widgets import close_all


class LiveView:
    """A view (``wb.views.live`` makes one) of one trainer or of several, with the view's own options.

    view       the function of ``wb.views``; ``one`` says that it takes one trainer, and so the first
    m_factors  whether it draws the first trainer's M-factors, which are large

    What fails in drawing is said under the figure; training goes on.
    """

    def __init__(
        self,
        name: str,
        view: Callable[..., Record],
        trainers: Any,
        options: Mapping[str, Any],
        *,
        one: bool,
        m_factors: bool,
    ) -> None:
        self._name, self._view, self._options = name, view, dict(options)
        self._one, self._m_factors = one, m_factors
        self._buffers = [HistoryBuffer(trainer, name) for name, trainer in named(trainers).items()]
        self.record()  # what the view does not take is refused here and now
        self._frames = FrameScheduler(self._flush, self._failed)
        self._frames.gentle = True
        self._plot = LivePlot(self._hear)
        self._widths = self._plot.widths
        self._shown = StoredRecord(self.record, self._failed)
        self._around_each_cell = CellHooks(self._before_cell, self._after_cell)
        told = weakref.WeakMethod(self._changed)  # a trainer keeps no view alive
        self._ends: list[Callable[[], object]] = [
            weakref.finalize(self, buffer.trainer.subscribe(lambda event: (method := told()) and method()))
            for buffer in self._buffers
        ]

    def record(self) -> Drawing:
        """The figure as it is now, in a form that is kept with the notebook."""
        runs = [buffer.run(beside=not (self._m_factors and i == 0)) for i, buffer in enumerate(self._buffers)]
        drawing = self._view(runs[0] if self._one else runs, **self._options)
        assert isinstance(drawing, Drawing)
        return drawing

    def close(self) -> None:
        """Follow nothing any more, and take the figure off the page; its record stays."""
        for end in self._ends:
            end()
        for buffer in self._buffers:
            buffer.close()
        self._frames.close()
        self._around_each_cell.close()
        self._shown.close()
        close_all(self._plot)

    def _flush(self) -> bool:
        drawing = self.record()
        self._plot.complain(Message())
        sent = self._plot.draw(drawing.arranged(dict.fromkeys(self._plot.widths, look.PANEL_HEIGHT)), drawing.text)
        self._shown.renew_soon()
        return sent

    def _failed(self, error: Exception) -> None:
        self._plot.complain(Message.of(f"The figure failed, training goes on: {one_line(error)}", error))

    def _changed(self) -> None:
        self._frames.poke()

    def _hear(self) -> None:
        if self._plot.drawn == self._plot.sent:
            self._frames.answered(self._plot.took and self._plot.took + ANSWER)
        if self._plot.widths != self._widths:
            self._widths = self._plot.widths
            self._frames.poke()

    def _before_cell(self) -> None:
        self._frames.unattended = True

    def _after_cell(self) -> None:
        self._frames.unattended = False
        self._frames.poke()

    def __repr__(self) -> str:
        return f"Live view {self._name} of {', '.join(buffer.name for buffer in self._buffers)}"

    def _ipython_display_(self) -> None:
        self._shown.display(self._plot, repr(self))
        self._frames.poke()
