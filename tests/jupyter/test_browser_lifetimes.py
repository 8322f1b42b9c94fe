"""What becomes of the panel when the page is loaded again, the kernel is gone, the cell is deleted, there are many."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from lab import SECONDS, Notebook, Server, browser_page
from panel_page import CELL, Panel
from playwright.sync_api import Browser, Page, expect

from workbench.jupyter.figures.record import PLOTLY_MIME


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser_page(browser) as page:
        yield page


def opened(page: Page, server: Server, name: str, cells: list[str]) -> Panel:
    server.write(name, cells)
    panel = Panel(Notebook(page, server, name).open())
    panel.notebook.run(0)
    panel.figure().wait_for()
    return panel


def test_the_panel_outlives_a_reload_and_the_record_the_kernel(page: Page, server: Server) -> None:
    panel = opened(page, server, "lifetimes.ipynb", [CELL, "session.start(iterations=2); session.wait()"])
    panel.notebook.run(1)
    expect(panel.message()).to_contain_text("Done: 200 env steps.")
    record = page.locator(".jp-OutputArea-child:has(.wb-buttons) + .jp-OutputArea-child")
    expect(record).to_be_hidden()

    # Loaded again: the panel is there as it was, and alive.
    saved = panel.notebook.save()
    panel.notebook.open(fresh=False)
    panel.figure().wait_for(timeout=60 * SECONDS)
    expect(panel.page.locator(".wb-where")).to_contain_text("iteration 2 ")
    panel.button("step iteration").click()
    expect(panel.page.locator(".wb-where")).to_contain_text("iteration 3 ")
    assert panel.ask("trainer.iteration") == 3

    # What was saved holds the figures of the end, for readers without a kernel.
    outputs = [output["data"] for output in saved.cells[0].outputs]
    assert outputs[0]["text/plain"] == "Session of HAPPO (main) · paused · iteration 0"
    (bundle,) = (data for data in outputs if PLOTLY_MIME in data)
    assert len(base64.b64decode(bundle["image/png"])) > 10_000
    assert any(trace.get("name") == "agent_3" for trace in bundle[PLOTLY_MIME]["data"])

    # Opened without a kernel: the last record is shown.
    panel.notebook.command("notebook:shutdown-kernel")
    panel.notebook.save()
    panel.notebook.open(wait_for_kernel=False)
    image = page.locator(".jp-OutputArea-child .plot-img, .jp-OutputArea-child .js-plotly-plot").first
    expect(image).to_be_visible(timeout=60 * SECONDS)
    expect(page.locator(".wb-buttons")).to_have_count(0)


def test_a_second_view_a_cleared_output_and_a_deleted_cell(page: Page, server: Server) -> None:
    panel = opened(page, server, "views.ipynb", [CELL, "session", "1"])
    panel.notebook.run(1)
    panel.notebook.scroll_to(1)
    expect(panel.figure()).to_have_count(2)
    panel.button("step iteration").nth(1).click()
    for k in (0, 1):
        expect(page.locator(".wb-where").nth(k)).to_contain_text("iteration 1 ")
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")
    panel.notebook.command("notebook:clear-cell-output")
    expect(panel.figure()).to_have_count(1)
    panel.button("step iteration").click()
    expect(page.locator(".wb-where")).to_contain_text("iteration 2 ")
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")
    panel.notebook.command("notebook:delete-cell")
    expect(panel.figure()).to_have_count(0)
    panel.ask("session.start(iterations=3)")
    panel.ask("session.wait()")
    assert panel.ask("trainer.iteration") == 5
    assert page.errors == []  # type: ignore[attr-defined]


TEN = """
import gc, threading, weakref
from IPython.display import display
from ipywidgets.widgets import widget as registry

before = set(registry._instances), set(threading.enumerate())
sessions = [wb.Session(wb.happo(env.remake(4), n_steps=8, hidden_sizes=(8,)), name=f"run {k}") for k in range(10)]
for one in sessions:
    display(one)
del one
"""


# What the ten have brought into the kernel beside themselves. The one thread that draws records stays.
THREADS = "sum('workbench' in t.name and t.name != 'workbench-record' for t in set(threading.enumerate()) - before[1])"
WIDGETS = "len(set(registry._instances) - before[0])"


def test_ten_sessions_in_one_kernel_all_work_and_leave_nothing(page: Page, server: Server) -> None:
    setup = CELL.strip().rsplit("\n", 2)[0]  # without the session
    server.write("ten.ipynb", [setup, TEN, "1"])
    panel = Panel(Notebook(page, server, "ten.ipynb").open())
    panel.notebook.run(0)
    panel.notebook.run(1)
    boxes = page.locator(".wb-panel")
    expect(boxes).to_have_count(10)
    for k in range(10):
        boxes.nth(k).get_by_role("button", name="Forward one agent").click()
        expect(boxes.nth(k).locator('.wb-chip[data-state="done"]')).to_have_count(1)
        boxes.nth(k).locator(".wb-plot").scroll_into_view_if_needed()  # what is out of sight is told nothing
        boxes.nth(k).locator(".js-plotly-plot").wait_for()
    assert panel.ask("[len(one.trainer.remaining) for one in sessions]") == [3] * 10

    # All at once, each to its end; then any of them still answers.
    panel.ask("[one.start(iterations=4) for one in sessions]")
    for k in range(10):
        boxes.nth(k).scroll_into_view_if_needed()
        expect(boxes.nth(k).locator(".wb-where")).to_contain_text("iteration 4 ")
    boxes.nth(6).get_by_role("button", name="Run").click()
    expect(boxes.nth(6).locator(".wb-where")).to_contain_text("running")
    boxes.nth(6).get_by_role("button", name="Pause").click()
    expect(boxes.nth(6).locator(".wb-message")).to_contain_text("Paused")
    assert panel.ask("[one.trainer.iteration for one in sessions[:6]]") == [4] * 6

    assert page.errors == []  # type: ignore[attr-defined]

    # Closed. (The records come to light then, drawn by JupyterLab's own Plotly, which complains of some.)
    panel.ask("[globals().update(gone=[weakref.ref(one) for one in sessions])]")
    panel.ask("[[one.close() for one in sessions], sessions.clear()] and None")
    expect(boxes).to_have_count(0)
    panel.notebook.run(2)
    left = f"[gc.collect() and None, sum(ref() is not None for ref in gone), {THREADS}, {WIDGETS}][1:]"
    for _ in range(100):  # a thread that was drawing comes to its end by itself
        if panel.ask(left) == [0, 0, 0]:
            break
        page.wait_for_timeout(100)
    assert panel.ask(left) == [0, 0, 0]


# What a busy page does now and then: it hands over two sightings at once, the older one first.
TWO_AT_ONCE = """() => {
  const Real = window.IntersectionObserver;
  window.IntersectionObserver = class extends Real {
    constructor(tell, options) {
      super((entries) => tell(entries.flatMap((one) => [{ isIntersecting: !one.isIntersecting }, one])), options);
    }
  };
}"""


def test_of_several_sightings_the_newest_counts(page: Page, server: Server) -> None:
    server.write("sightings.ipynb", [CELL])
    panel = Panel(Notebook(page, server, "sightings.ipynb").open())
    page.evaluate(TWO_AT_ONCE)
    panel.notebook.run(0)
    panel.figure().wait_for()
    for iteration in (1, 2):
        panel.button("step iteration").click()
        expect(panel.where()).to_contain_text(f"iteration {iteration} ")
    panel.await_figure()


def test_the_figure_has_its_place_before_it_is_drawn(page: Page, server: Server) -> None:
    server.write("place.ipynb", [CELL])
    panel = Panel(Notebook(page, server, "place.ipynb").open())
    page.evaluate(
        "() => { const never = () => new Promise(() => {}); window.Plotly = { react: never, newPlot: never }; }"
    )
    panel.notebook.run(0)
    expect(page.locator(".wb-legend button")).to_have_count(4)
    height = page.locator(".wb-figure").evaluate("node => node.clientHeight")
    assert height == page.locator(".wb-figure").evaluate("node => parseInt(node.style.minHeight)") > 300


def test_plotly_is_sent_once_to_a_page_and_little_else(page: Page, server: Server) -> None:
    received: list[int] = []

    def count(socket: object) -> None:
        socket.on("framereceived", lambda frame: received.append(len(frame)))  # type: ignore[attr-defined]

    page.on("websocket", count)
    server.write("once.ipynb", [CELL, "wb.Session(wb.happo(env, n_steps=25, hidden_sizes=(16,)))"])
    panel = Panel(Notebook(page, server, "once.ipynb").open())
    panel.notebook.run(0)
    panel.figure().wait_for()
    script = panel.ask("len(__import__('workbench.jupyter.assets').jupyter.assets.packed('plotly'))")
    first = sum(received)
    assert script < first < script + 1_000_000
    panel.notebook.run(1)
    panel.notebook.scroll_to(1)
    expect(panel.figure()).to_have_count(2)
    assert sum(received) - first < 1_000_000
