"""``LiveView``: one view in a cell of its own, drawn anew while its trainers train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, cast

from workbench.jupyter import look
from workbench.jupyter.cells import CellHooks
from workbench.jupyter.figures.drawings import Drawing
from workbench.jupyter.figures.record import Record
from workbench.jupyter.figures.run_columns import Several, named
from workbench.jupyter.look import Spec
from workbench.jupyter.panel.history_buffer import HistoryBuffer, follow
from workbench.jupyter.panel.live_plot import LivePlot
from workbench.jupyter.panel.stored_record import StoredRecord
from workbench.learning.events import Event

if TYPE_CHECKING:
    from workbench.running.trainer import Trainer


class LiveView:
    """A view (``wb.views.live`` makes one) of one trainer or of several, with the view's own options.

    view       the function of ``wb.views``; ``one`` says that it takes one trainer, and so the first
    m_factors  whether it draws the first trainer's M-factors, which are large

    What fails in drawing is said under the figure; training goes on.
    """

    def __init__(
        self,
        view: Callable[..., Record],
        trainers: Several,
        options: Mapping[str, object],
        *,
        one: bool,
        m_factors: bool,
    ) -> None:
        self._view, self._options = view, options
        self._one, self._m_factors = one, m_factors
        self._buffers = [HistoryBuffer(cast("Trainer", trainer), name) for name, trainer in named(trainers).items()]
        self.record()  # what the view does not take is refused here and now
        self._plot = LivePlot(self._arranged)
        self._plot.frames.gentle = True
        self._shown = StoredRecord(self.record, self._plot.failed)
        self._around_each_cell = CellHooks(self._unattended)
        self._ends = [follow(buffer.trainer.subscribe, self._changed) for buffer in self._buffers]

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
        self._plot.close()
        self._around_each_cell.close()
        self._shown.close()

    def _arranged(self, widths: Iterable[int]) -> tuple[Mapping[int, Spec], str]:
        drawing = self.record()
        self._shown.renew_soon()
        return drawing.arranged(dict.fromkeys(widths, look.PANEL_HEIGHT)), drawing.text

    def _changed(self, _: Event) -> None:
        self._plot.frames.poke()

    def _unattended(self, on: bool) -> None:
        self._plot.frames.unattended = on
        if not on:
            self._plot.frames.poke()

    def __repr__(self) -> str:
        return f"Live view {self._view.__name__} of {', '.join(buffer.name for buffer in self._buffers)}"

    def _ipython_display_(self) -> None:
        self._shown.display(self._plot, repr(self))
        self._plot.frames.poke()
