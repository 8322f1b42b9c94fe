"""The panel in JupyterLab, in a real browser: what is done on the page happens to the trainer, and is seen."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from lab import SECONDS, Notebook, Server, browser_page
from panel_page import AGENTS, CELL, Panel
from playwright.sync_api import Browser, expect


@pytest.fixture(scope="module")
def opened(server: Server, browser: Browser) -> Iterator[Panel]:
    """The notebook, open, its panel shown."""
    server.write("panel.ipynb", [CELL, "1 + 1"])
    with browser_page(browser) as page:
        panel = Panel(Notebook(page, server, "panel.ipynb").open())
        panel.notebook.run(0)
        panel.figure().wait_for()
        yield panel


@pytest.fixture
def panel(opened: Panel) -> Iterator[Panel]:
    """The panel of a fresh trainer, at rest; afterwards the page has complained of nothing."""
    opened.notebook.run(0)
    opened.figure().wait_for()
    expect(opened.message()).to_have_text("Ready.")
    opened.page.errors.clear()  # type: ignore[attr-defined]
    yield opened
    opened.ask("session.close()")
    assert opened.page.errors == []  # type: ignore[attr-defined]


def test_a_step_is_seen_in_trainer_and_page(panel: Panel) -> None:
    panel.button("step agent").click()
    expect(panel.page.locator('.wb-chip[data-state="done"]')).to_have_count(1)
    assert panel.ask("trainer.remaining") == AGENTS[1:]
    expect(panel.page.locator('.wb-chip[data-state="now"]')).to_have_text("2agent_1")
    panel.button("step iteration").click()
    expect(panel.where()).to_contain_text("iteration 1 ")
    assert panel.ask("trainer.iteration") == 1
    panel.await_traces(*AGENTS)


def test_run_and_pause(panel: Panel) -> None:
    panel.button("run").click()
    expect(panel.where()).to_contain_text("running")
    expect(panel.where()).to_contain_text(re.compile(r"iteration ([3-9]|\d\d)"), timeout=60 * SECONDS)
    expect(panel.button("step agent")).to_be_disabled()
    panel.button("pause").click()
    expect(panel.message()).to_contain_text("Paused in iteration")
    assert panel.ask("session.running") is False
    iteration = panel.ask("trainer.iteration")
    expect(panel.where()).to_contain_text(f"iteration {iteration} ")
    lines = [trace for trace in panel.traces() if trace["name"] == "agent_2" and trace["points"] > 3]
    assert lines[-1]["points"] == panel.ask("int((trainer.agent_history['agent'] == 'agent_2').sum())")


def test_a_chip_is_dragged(panel: Panel) -> None:
    panel.drag(0, 2)
    wanted = ["agent_1", "agent_2", "agent_0", "agent_3"]
    expect(panel.message()).to_have_text("Order as arranged: agent_1 → agent_2 → agent_0 → agent_3.")
    assert panel.order() == wanted
    assert panel.ask("trainer.order") == wanted
    expect(panel.page.locator(".wb-order select")).to_have_value("arranged")


def test_chips_are_moved_by_keyboard_and_keep_the_focus(panel: Panel) -> None:
    panel.chips().first.focus()
    keyboard = panel.page.keyboard
    for key in (" ", "ArrowRight", "ArrowRight", " "):
        keyboard.press(key)
    expect(panel.message()).to_have_text("Order as arranged: agent_1 → agent_2 → agent_0 → agent_3.")
    focused = "() => document.activeElement.dataset.unit"
    assert panel.page.evaluate(focused) == "agent_0"
    keyboard.press("Shift+ArrowLeft")
    expect(panel.message()).to_have_text("Order as arranged: agent_1 → agent_0 → agent_2 → agent_3.")
    assert panel.page.evaluate(focused) == "agent_0"
    assert panel.ask("trainer.order") == ["agent_1", "agent_0", "agent_2", "agent_3"]
    for key in (" ", "End", "Escape"):
        keyboard.press(key)
    assert panel.order() == ["agent_1", "agent_0", "agent_2", "agent_3"]
    assert panel.page.locator(".wb-order [aria-live]").inner_text() == "put back"


def test_in_mid_iteration_the_updated_stay_and_the_others_move(panel: Panel) -> None:
    panel.button("step agent").click()
    expect(panel.page.locator('.wb-chip[data-state="done"]')).to_have_count(1)
    panel.chips().first.focus()
    panel.page.keyboard.press(" ")
    assert "already updated" in panel.page.locator(".wb-order [aria-live]").inner_text()
    panel.page.get_by_role("button", name="Reverse those who are left").click()
    expect(panel.message()).to_have_text("Order as arranged: agent_3 → agent_2 → agent_1.")
    assert panel.ask("trainer.iteration_order") == ["agent_0", "agent_3", "agent_2", "agent_1"]
    assert panel.order() == ["agent_0", "agent_3", "agent_2", "agent_1"]


def test_epsilon_is_changed_while_it_trains(panel: Panel) -> None:
    panel.button("run").click()
    expect(panel.where()).to_contain_text("running")
    panel.field().fill("0.05")
    panel.field().press("Enter")
    expect(panel.message()).to_contain_text("clip ε is 0.05 from the update of")
    panel.button("pause").click()
    expect(panel.message()).to_contain_text("Paused")
    assert panel.ask("trainer.clip_epsilon") == 0.05
    assert panel.ask("[c.name for c in trainer.interventions]") == ["clip_epsilon"]
    panel.page.locator('.wb-setting input[type="range"]').focus()
    panel.page.keyboard.press("ArrowRight")
    expect(panel.message()).to_contain_text("clip ε is 0.06 from")
    assert panel.ask("trainer.clip_epsilon") == 0.06
    panel.field().fill("7")
    panel.field().press("Enter")
    expect(panel.page.locator('.wb-message[data-kind="error"]')).to_contain_text("clip_epsilon")
    assert panel.ask("trainer.clip_epsilon") == 0.06


def test_rewind_and_fork(panel: Panel) -> None:
    panel.button("step iteration").click()
    expect(panel.where()).to_contain_text("iteration 1 ")
    before = panel.ask("trainer.fingerprint()")
    panel.button("step agent").click()
    expect(panel.page.locator('.wb-chip[data-state="done"]')).to_have_count(1)
    panel.button("rewind iteration").click()
    expect(panel.message()).to_contain_text("Back in iteration 1")
    assert panel.ask("trainer.fingerprint()") == before
    panel.button("fork").click()
    expect(panel.message()).to_contain_text("fork 1 parts from main in iteration 1")
    panel.button("step iteration").click()
    expect(panel.where()).to_contain_text("iteration 2 ")
    assert panel.ask("trainer.fingerprint()") == before
    assert panel.ask("session.trainer.iteration") == 2
    panel.chooser("run").select_option("main")
    expect(panel.message()).to_have_text("The panel drives main now.")
    assert panel.ask("session.trainer is trainer") is True


def test_an_error_is_shown_with_its_traceback_and_the_rest_goes_on(panel: Panel) -> None:
    panel.ask("[setattr(env, 'step', lambda actions: 1 / 0)]")
    panel.button("run").click()
    expect(panel.message()).to_contain_text("Stopped by ZeroDivisionError: division by zero")
    panel.page.locator(".wb-status summary").click()
    expect(panel.page.locator(".wb-status pre")).to_contain_text("<lambda>")
    panel.ask("[delattr(env, 'step')]")
    panel.button("step iteration").click()
    expect(panel.where()).to_contain_text("iteration 1 ")
    expect(panel.page.locator(".wb-status details")).to_be_hidden()


def test_code_and_buttons_stay_in_step(panel: Panel) -> None:
    assert panel.ask("[e.phase for e in session.step('iteration')][-1]") == "update_critic"
    expect(panel.where()).to_contain_text("iteration 1 ")
    panel.ask("setattr(trainer, 'clip_epsilon', 0.11)")
    panel.notebook.run(1)  # any cell: what was changed by hand is seen after it
    expect(panel.field()).to_have_value("0.11")


def test_the_distribution_can_be_switched(panel: Panel) -> None:
    panel.button("step iteration").click()
    expect(panel.where()).to_contain_text("iteration 1 ")
    panel.chooser("kind").select_option("box")
    panel.page.wait_for_function("() => document.querySelector('.wb-plot .wb-figure').data.some(t => t.type === 'box')")


def test_the_figure_follows_the_theme(panel: Panel) -> None:
    colour = "() => document.querySelector('.wb-plot .wb-figure').layout.template.layout.font.color"
    panel.notebook.theme("JupyterLab Light")
    light = panel.page.evaluate(colour)
    panel.notebook.theme("JupyterLab Dark")
    panel.page.wait_for_function(f"light => ({colour})() !== light", arg=light)
    text = panel.where().evaluate("node => getComputedStyle(node).color")
    panel.notebook.theme("JupyterLab Light")
    panel.page.wait_for_function(f"light => ({colour})() === light", arg=light)
    assert panel.where().evaluate("node => getComputedStyle(node).color") != text


def test_all_controls_have_names(panel: Panel) -> None:
    for control in panel.page.locator(".wb button, .wb select, .wb input, .wb summary, .wb [role=option]").all():
        name = control.evaluate(
            "node => node.getAttribute('aria-label') || node.labels?.[0]?.textContent || node.textContent"
        )
        assert name.strip()
    panel.await_figure()
    named = panel.page.locator(
        ", ".join(f".wb-panel [role={role}]" for role in ("toolbar", "listbox", "figure", "group"))
    )
    for part in named.all():
        assert part.evaluate("node => node.getAttribute('aria-label') ?? node.getAttribute('aria-labelledby')")
    assert named.count() == 5


def test_the_whole_panel_is_used_by_keyboard_alone(panel: Panel) -> None:
    page, press = panel.page, panel.page.keyboard.press

    def tab_to(what: str) -> None:
        """Press Tab until a control has the focus."""
        for _ in range(30):
            press("Tab")
            if page.evaluate("what => document.activeElement.matches(what)", what):
                return
        raise AssertionError(f"{what} cannot be reached")

    def focused(what: str) -> bool:
        return bool(page.evaluate("what => document.activeElement.matches(what)", what))

    panel.notebook.command("notebook:enter-command-mode")
    tab_to(".wb-chip")
    for key in (" ", "ArrowRight", " "):
        press(key)
    expect(panel.message()).to_have_text("Order as arranged: agent_1 → agent_0 → agent_2 → agent_3.")
    tab_to('[aria-label="Reverse those who are left"]')
    press("Enter")
    expect(panel.message()).to_have_text("Order as arranged: agent_3 → agent_2 → agent_0 → agent_1.")
    tab_to(".wb-order select")
    press("Home")
    press("ArrowDown")
    expect(panel.message()).to_contain_text("Order: ")
    assert panel.ask("trainer.order") == page.locator(".wb-order select").input_value()

    tab_to('[data-do="step agent"]')
    done = page.locator('.wb-chip[data-state="done"]')
    for k in (1, 2):
        press("Enter")
        expect(done).to_have_count(k)
        expect(panel.button("step agent")).to_be_enabled()  # a moment after the chip: a key does not wait for that
        assert focused('[data-do="step agent"]')  # and so it can be pressed again
    tab_to('[data-do="run"]')
    press("Space")
    expect(panel.where()).to_contain_text("running")
    assert focused('[data-do="run"]')
    press("Space")  # does nothing now
    tab_to('[data-do="pause"]')
    press("Enter")
    expect(panel.message()).to_contain_text("Paused in iteration")
    assert panel.ask("session.running") is False
    tab_to('[data-do="fork"]')
    press("Enter")
    expect(panel.message()).to_contain_text("fork 1 parts from main")
    tab_to('[data-do="code"]')
    press("Enter")
    expect(panel.message()).to_contain_text("The run as Python")
    assert page.locator(".wb-traceback:visible pre").text_content() == panel.ask("session.trainer.script()")

    tab_to('.wb-setting input[type="range"]')
    press("ArrowLeft")
    expect(panel.message()).to_contain_text("clip ε is 0.19 from")
    tab_to('.wb-setting input[type="text"]')
    press("Control+a")
    page.keyboard.type("0,07")
    press("Enter")
    expect(panel.message()).to_contain_text("clip ε is 0.07 from")
    assert panel.ask("[trainer.clip_epsilon, session.trainer.clip_epsilon]") == [0.2, 0.07]

    tab_to('[aria-label="The figures that are shown"]')
    press("ArrowDown")
    page.wait_for_function("() => document.querySelector('.wb-figure').getAttribute('aria-label').includes('Diagnost')")
    tab_to('[aria-label="The run that the panel drives"]')
    press("ArrowUp")
    expect(panel.message()).to_have_text("The panel drives main now.")
    tab_to(".modebar-btn")
    assert page.locator(".modebar").evaluate("node => getComputedStyle(node).opacity") == "1"
    tab_to('.wb-legend [data-group="agent_2"]')
    press("Shift+Enter")
    expect(page.locator('.wb-legend [aria-pressed="true"]')).to_have_text(["agent_2"])


def test_the_legend_switches_by_keyboard_and_keeps_the_focus_as_agents_are_updated(panel: Panel) -> None:
    legend = panel.page.locator(".wb-legend button")
    expect(legend).to_have_text(AGENTS)  # though none has a number yet
    panel.legend("agent_3").focus()
    panel.page.keyboard.press("Enter")
    expect(panel.legend("agent_3")).to_have_attribute("aria-pressed", "false")
    panel.ask("[session.step('agent') and None]")
    panel.await_traces(*AGENTS[:3])
    expect(legend).to_have_text(AGENTS)
    assert panel.page.evaluate("() => document.activeElement.dataset.group") == "agent_3"
    panel.ask("[session.step('iteration') and None]")
    assert "agent_3" not in {trace["name"] for trace in panel.traces()}
    panel.page.keyboard.press("Space")
    expect(panel.legend("agent_3")).to_have_attribute("aria-pressed", "true")
    panel.page.wait_for_function("() => document.querySelector('.wb-figure').data.every(t => t.visible !== false)")
    panel.page.keyboard.press("Shift+Enter")
    expect(panel.page.locator('.wb-legend [aria-pressed="true"]')).to_have_text(["agent_3"])
    panel.page.keyboard.press("Shift+Enter")
    expect(panel.page.locator('.wb-legend [aria-pressed="true"]')).to_have_text(AGENTS)


def test_nothing_is_sent_to_a_figure_out_of_sight(panel: Panel) -> None:
    panel.await_figure()
    panel.page.locator(".wb-plot").evaluate("node => { node.style.display = 'none'; }")
    panel.ask("session.start(iterations=3)")
    expect(panel.where()).to_contain_text("iteration 3 ")
    panel.await_no_frames()
    sent = panel.ask("session._panel.plot.sent")
    panel.ask("session.start(iterations=6)")
    expect(panel.where()).to_contain_text("iteration 9 ")
    panel.await_no_frames()
    assert panel.ask("session._panel.plot.sent") <= sent + 1
    panel.page.locator(".wb-plot").evaluate("node => { node.style.display = ''; }")
    panel.page.wait_for_function(
        "() => document.querySelector('.wb-plot .wb-figure').data.some(t => t.x?.length === 9)"
    )


def test_whoever_sees_only_the_chips_is_answered(panel: Panel) -> None:
    row = panel.page.locator(".wb-row")
    row.evaluate("node => { node.style.marginTop = '3000px'; }")  # the status line is far out of sight
    for order in (AGENTS[::-1], AGENTS) * 2:
        panel.page.get_by_role("button", name="Reverse").click()
        expect(panel.page.locator(".wb-chip .wb-name")).to_have_text(order)
    for _ in range(100):  # the page says so once it has painted
        if panel.ask("session._panel._control_frames._unanswered") is False:
            break
        panel.page.wait_for_timeout(100)
    assert panel.ask("session._panel._control_frames._unanswered") is False
    row.evaluate("node => { node.style.marginTop = ''; }")
