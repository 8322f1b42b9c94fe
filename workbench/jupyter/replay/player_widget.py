"""The player's widget. It is closed when the cell that showed it runs again."""

from __future__ import annotations

from collections.abc import Callable

import traitlets

from workbench.jupyter.assets import PageMessage, PageWidget, script, style
from workbench.jupyter.cells import ClosedOnRerun

SCRIPTS = ("replay/scene", "replay/pictures", "replay/numbers", "replay/player")


class PlayerWidget(PageWidget):
    """The player of a replay on the page.

    spec      what there is to show, its arrays in ``block``
    block     all arrays, as float32 one after the other
    pictures  PNG one after the other, for environments that draw themselves
    at        {"take", "episode", "frame"} to be shown, as code last said
    shown     the same, as the page last said
    """

    library = "k3d"
    _esm = script("page", *SCRIPTS)
    _css = style("replay/player")

    spec = traitlets.Dict().tag(sync=True)
    block = traitlets.Bytes().tag(sync=True)
    pictures = traitlets.Bytes().tag(sync=True)
    at = traitlets.Dict().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)

    def __init__(self, on_start: Callable[[PageMessage], str], **traits: object) -> None:
        """``on_start`` is called with a place that the page asks to start at; it returns what to say there."""
        self._on_start = on_start
        super().__init__(**traits)

    def close(self) -> None:
        """Take it off the page, and release what it holds."""
        # What the page keeps of a closed widget, it keeps empty.
        self.spec, self.block, self.pictures = {}, b"", b""
        self.at = self.shown = {}
        super().close()

    def hear(self, message: PageMessage) -> None:
        if message.get("type") == "start":
            try:
                text, error = self._on_start(message), False
            except Exception as refusal:
                text, error = f"{type(refusal).__name__}: {refusal}", True
            self.send({"type": "started", "text": text, "error": error})


SHOWN = ClosedOnRerun()
