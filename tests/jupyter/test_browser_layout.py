"""Whatever the number of agents, the window and the theme: nothing on the panel overlaps, is cut or loses its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Notebook, Server, browser_page
from layout import await_arranged, faults, look
from panel_page import Panel
from playwright.sync_api import Browser, Locator, expect

PAGE, KIND = "The figures that are shown", "How M-factors are drawn"
NUMBERS = (2, 4, 8, 17)
SIZES = ((1400, 900), (1000, 700))
SETUP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import workbench as wb
from point_team import PointTeam

def session(n, iterations=10):
    trainer = wb.happo(PointTeam(4, n), seed=0, n_steps=25, hidden_sizes=(8,))
    trainer.run(iterations=iterations, progress=False)
    trainer.evaluate(2)
    for _ in range(2 + n // 2):
        trainer.step()
    return wb.Session(trainer)

sessions = {{}}
"""


def agents(n: int) -> list[str]:
    return [f"agent_{k}" for k in range(n)]


@pytest.fixture(scope="module")
def panel(server: Server, browser: Browser) -> Iterator[Panel]:
    """A notebook with a panel for each number of agents, each in mid-iteration."""
    server.write("layout.ipynb", [SETUP, *(f"sessions[{n}] = session({n})\nsessions[{n}]" for n in NUMBERS)])
    with browser_page(browser) as page:
        panel = Panel(Notebook(page, server, "layout.ipynb").open())
        page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        for cell in range(len(NUMBERS) + 1):
            panel.notebook.run(cell)
        yield panel
        panel.notebook.theme("JupyterLab Light")  # a setting of the server, which other files' tests have too
        assert page.errors == []  # type: ignore[attr-defined]


def shown(panel: Panel, n: int) -> Locator:
    """The panel of ``n`` agents, with its figure as arranged for the window."""
    box = panel.page.locator(".jp-Notebook .wb-panel").nth(NUMBERS.index(n))
    box.evaluate("node => node.scrollIntoView({ block: 'start' })")
    await_arranged(panel, box, f"sessions[{n}]")
    return box


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_everything_is_seen(panel: Panel, size: tuple[int, int], theme: str) -> None:
    panel.page.set_viewport_size({"width": size[0], "height": size[1]})
    panel.notebook.theme(theme)
    assert [(n, faults(shown(panel, n), agents(n))) for n in NUMBERS] == [(n, []) for n in NUMBERS]
    if size == SIZES[0]:
        assert max(look(shown(panel, n))["height"] for n in NUMBERS) < 790  # what a window so high has room for


@pytest.mark.parametrize(
    ("what", "size"), [("diagnostics", SIZES[0]), ("diagnostics", SIZES[1]), ("histogram", SIZES[1]), ("box", SIZES[0])]
)
def test_so_it_is_whatever_is_drawn(panel: Panel, what: str, size: tuple[int, int]) -> None:
    panel.page.set_viewport_size({"width": size[0], "height": size[1]})
    chooser, usual = (PAGE, "overview") if what == "diagnostics" else (KIND, "violin")
    for n in (4, 17):
        box = shown(panel, n)
        box.get_by_label(chooser).select_option(what)
        assert faults(shown(panel, n), agents(n)) == [], n
        box.get_by_label(chooser).select_option(usual)


def test_so_it_is_in_a_view_beside_the_notebook(panel: Panel) -> None:
    panel.page.set_viewport_size({"width": SIZES[0][0], "height": SIZES[0][1]})
    for n in NUMBERS:
        panel.notebook.show_beside(NUMBERS.index(n) + 1)
        box = panel.page.locator(".jp-LinkedOutputView .wb-panel")
        await_arranged(panel, box, f"sessions[{n}]")
        assert faults(box, agents(n)) == [], n
        panel.notebook.close_beside()


def test_so_it_is_with_an_error_and_a_fork(panel: Panel) -> None:
    box = shown(panel, 4)
    box.get_by_role("button", name="Fork").click()
    expect(box.locator(".wb-message")).to_contain_text("parts from main")
    panel.ask("[setattr(sessions[4].trainer.env, 'step', lambda actions: 1 / 0)]")
    box.get_by_role("button", name="Run").click()
    expect(box.locator(".wb-message")).to_contain_text("Stopped by ZeroDivisionError")
    box.locator("summary").first.click()
    for size in SIZES:
        panel.page.set_viewport_size({"width": size[0], "height": size[1]})
        assert faults(shown(panel, 4), agents(4)) == []
