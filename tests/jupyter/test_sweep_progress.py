"""A sweep's progress in a notebook: what is drawn, and that nothing of it is code."""

from __future__ import annotations

import html.parser
from dataclasses import replace

import IPython.display
import pytest

from workbench.jupyter import sweep_progress
from workbench.jupyter.sweep_progress import SweepProgress, drawn
from workbench.sweeps.progress import Progress, RunProgress

HALF = Progress(
    total=8,
    finished=2,
    failed=1,
    waiting=4,
    running=(RunProgress("a", "order=<b>fixed</b>", 0.25, 12.3456, 3.0),),
    failures={"order=x": "ValueError: <script>alert(1)</script>"},
    seconds=75.0,
    eta=600.0,
)


class Page(html.parser.HTMLParser):
    """The tags and the text of a page; every tag that is opened must be closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_what_is_drawn_says_how_far_it_has_come():
    bundle = drawn(HALF)._repr_mimebundle_()
    page = Page(bundle["text/html"])
    assert "2 of 8 finished · 1 running · 4 waiting · 1 failed · ETA 10 min · 75 s gone" in page.text
    assert "order=<b>fixed</b> 25% · return 12.35" in page.text
    assert "failed: order=x: ValueError: <script>alert(1)</script>" in page.text
    assert {tag for tag, _ in page.tags} == {"div", "span"}
    (bar,) = [attributes for _, attributes in page.tags if attributes.get("role") == "progressbar"]
    assert (bar["aria-valuenow"], bar["aria-valuemax"]) == ("3", "8")
    assert "width:25.00%" in bundle["text/html"]
    assert bundle["text/plain"] == "Sweep: 2 of 8 finished, 1 failed"


class Handle:
    def __init__(self):
        self.shown = []

    def update(self, shown):
        self.shown.append(shown)


class Sweeping:
    """As much of a sweep as its view looks at."""

    progress = HALF

    def __init__(self):
        self.asked = []

    def pause(self):
        self.asked.append("pause")

    def resume(self):
        self.asked.append("resume")

    def cancel(self):
        self.asked.append("cancel")


@pytest.fixture
def display(monkeypatch):
    """What was displayed, and the handle that keeps it up to date."""
    displayed, handle = [], Handle()

    def show(shown, display_id=None):
        displayed.append(shown)
        return handle if display_id else None

    monkeypatch.setattr(IPython.display, "display", show)
    return displayed, handle


def test_it_is_kept_up_to_date_and_its_buttons_go_at_the_end(display):
    displayed, handle = display
    sweep = Sweeping()
    view = SweepProgress(sweep)
    buttons = displayed[0]
    for button in buttons.children:
        button.click()
    assert sweep.asked == ["pause", "resume", "cancel"]
    view.show(HALF)
    assert buttons.comm is not None
    done = replace(HALF, finished=7, running=(), waiting=0, state="done")
    view.show(done)
    final, gone = (shown._repr_mimebundle_()["text/html"] for shown in handle.shown[-2:])
    assert "7 of 8 finished" in final
    assert sweep_progress.WRONG in final
    assert gone == ""
    assert buttons.comm is None
