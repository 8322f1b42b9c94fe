"""The same panel in Jupyter Notebook 7, which shares JupyterLab's parts but not its page."""

from __future__ import annotations

import pytest
from lab import Notebook, Server, browser_page
from panel_page import CELL, Panel
from playwright.sync_api import Browser, expect


def test_the_panel_works_in_notebook_7(browser: Browser, server: Server) -> None:
    pytest.importorskip("notebook", minversion="7")
    server.write("seven.ipynb", [CELL])
    with browser_page(browser) as page:
        panel = Panel(Notebook(page, server, "seven.ipynb", application="notebooks").open())
        panel.notebook.run(0)
        panel.figure().wait_for()
        page.errors.clear()  # type: ignore[attr-defined]

        panel.button("step agent").click()
        expect(page.locator('.wb-chip[data-state="done"]')).to_have_count(1)
        page.get_by_role("button", name="Reverse those who are left").click()
        expect(panel.message()).to_have_text("Order as arranged: agent_3 → agent_2 → agent_1.")
        assert panel.ask("trainer.remaining") == ["agent_3", "agent_2", "agent_1"]

        panel.button("run").click()
        expect(page.locator(".wb-where")).to_contain_text("running")
        panel.field().fill("0.05")
        panel.field().press("Enter")
        expect(panel.message()).to_contain_text("clip ε is 0.05 from the update of")
        panel.button("pause").click()
        expect(panel.message()).to_contain_text("Paused in iteration")
        assert panel.ask("[session.running, trainer.clip_epsilon]") == [False, 0.05]

        panel.button("rewind iteration").click()  # to where every agent can be moved
        expect(panel.message()).to_contain_text("next: collect")
        panel.chips().first.focus()
        page.keyboard.press("Shift+ArrowRight")
        expect(panel.message()).to_contain_text("Order as arranged")
        assert panel.ask("list(trainer.order)") == panel.order()
        assert panel.traces()
        assert page.errors == []  # type: ignore[attr-defined]
