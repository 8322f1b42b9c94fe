"""The panel as a user finds it on a page."""

from __future__ import annotations

from typing import Any

from lab import SECONDS, Notebook
from playwright.sync_api import Locator, Page

from workbench.jupyter.panel.frame_scheduler import PATIENCE

CELL = """
import numpy as np
import workbench as wb

rng = np.random.default_rng(0)
shape = (3, 2, 2, 2, 2)
game = wb.theory.TabularGame(rng.uniform(size=shape), rng.dirichlet(np.ones(3), size=shape), np.ones(3) / 3, 0.9)
env = wb.envs.tabular(game, n_envs=4)
trainer = wb.happo(env, seed=0, n_steps=25, hidden_sizes=(16,), order="fixed")
session = wb.Session(trainer)
session
"""
AGENTS = [f"agent_{k}" for k in range(4)]


class Panel:
    """The panel on a page."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self.page: Page = notebook.page

    def button(self, what: str) -> Locator:
        return self.page.locator(f'.wb-buttons [data-do="{what}"]')

    def chips(self) -> Locator:
        return self.page.locator(".wb-chip")

    def order(self) -> list[str]:
        return self.page.locator(".wb-chip .wb-name").all_inner_texts()

    def message(self) -> Locator:
        return self.page.locator(".wb-message")

    def where(self) -> Locator:
        return self.page.locator(".wb-where")

    def field(self) -> Locator:
        return self.page.locator('.wb-setting input[type="text"]')

    def chooser(self, what: str) -> Locator:
        """ "page", "kind" or "run"."""
        names = {"page": "The figures that are shown", "kind": "How M-factors are drawn"}
        return self.page.get_by_label(names.get(what, "The run that the panel drives"))

    def figure(self) -> Locator:
        return self.page.locator(".wb-plot .js-plotly-plot")

    def legend(self, name: str) -> Locator:
        return self.page.locator(f'.wb-legend [data-group="{name}"]')

    def ask(self, expression: str) -> Any:
        return self.notebook.ask(expression)

    def drag(self, start: int, goal: int) -> None:
        """Drag a chip to where another is."""
        boxes = [self.chips().nth(k).bounding_box() for k in (start, goal)]
        (x0, y0), (x1, y1) = ((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes if box)
        mouse = self.page.mouse
        mouse.move(x0, y0)
        mouse.down()
        mouse.move(x1 + (8 if goal > start else -8), y1, steps=12)
        mouse.up()

    def await_figure(self) -> None:
        """Wait until the page shows the newest frame."""
        frame = "() => Number(document.querySelector('.wb-plot .wb-figure').dataset.frame)"
        self.page.wait_for_function(
            f"() => ({frame})() >= {self.ask('session._panel.plot.sent')}", timeout=30 * SECONDS
        )

    def await_no_frames(self) -> None:
        """Wait until no frame has been sent for longer than an unanswered one is waited for."""
        sent, still = -1, 0.0
        while still < 1000 * PATIENCE + 500:
            before, sent = sent, self.ask("session._panel.plot.sent")
            still = still + 250 if sent == before else 0.0
            self.page.wait_for_timeout(250)

    def await_traces(self, *names: str) -> None:
        """Wait until traces of all these names are drawn and shown."""
        self.page.wait_for_function(
            """([names, figure]) => names.every((name) =>
                 figure.data?.some((one) => one.name === name && one.visible !== false))""",
            arg=[list(names), self.figure().first.element_handle()],
        )

    def traces(self) -> list[dict[str, Any]]:
        """Name, type, x and number of points of what is drawn, as far as it is shown."""
        self.await_figure()
        return self.figure().first.evaluate(
            """node => node.data.filter(t => t.visible !== false)
                 .map(t => ({name: t.name, type: t.type, points: t.x?.length ?? 0, x: [...(t.x ?? [])]}))"""
        )
