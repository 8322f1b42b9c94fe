"""One walk through all that a user does with a panel: in JupyterLab and in Notebook 7, in either ipykernel.

After each step both the trainer and the page are looked at.
"""

from __future__ import annotations

import kernels
import pytest
from lab import SECONDS, Notebook, Server, browser_page
from panel_page import AGENTS, CELL, Panel
from playwright.sync_api import Browser, expect

# Phases that last long enough for a hand to get in between.
SLOW = "\nimport time\nslow = trainer.subscribe(lambda event: time.sleep(0.04))"
PLACES = {"JupyterLab": "lab/tree", "Notebook 7": "notebooks"}


@pytest.mark.parametrize(
    ("application", "kernel"),
    [
        ("JupyterLab", kernels.INSTALLED),
        ("JupyterLab", kernels.OLDER),
        ("Notebook 7", kernels.INSTALLED),
        pytest.param("Notebook 7", kernels.OLDER, marks=pytest.mark.stress),
    ],
)
def test_a_walk(browser: Browser, server: Server, application: str, kernel: str) -> None:
    kernels.need(kernel)
    name = f"walk_{PLACES[application][:3]}_{kernel}.ipynb"
    before, last = CELL.strip().rsplit("\n", 1)
    server.write(name, [f"{before}{SLOW}\n{last}", "1 + 1"], kernel)
    with browser_page(browser) as page:
        panel = Panel(Notebook(page, server, name, PLACES[application]).open())
        _open(panel, kernel)
        _steer_while_it_trains(panel)
        _step_and_go_back(panel)
        _fork_and_resume(panel)
        _change_theme(panel)
        assert page.errors == []  # type: ignore[attr-defined]
        _load_again(panel)
        _restart(panel)
        _reopen_without_a_kernel(panel)


def _open(panel: Panel, kernel: str) -> None:
    panel.notebook.run(0)
    panel.figure().wait_for()
    panel.page.errors.clear()  # type: ignore[attr-defined]
    assert panel.ask("__import__('ipykernel').__version__") == kernels.version(kernel)
    expect(panel.message()).to_have_text("Ready.")
    assert panel.order() == panel.ask("list(trainer.remaining)") == AGENTS


def _steer_while_it_trains(panel: Panel) -> None:
    panel.button("run").click()
    expect(panel.where()).to_contain_text("running")
    assert panel.ask("session.running") is True

    # By mouse, one who is left: who is left changes under the hand, so it may take more than one try.
    for _ in range(20):
        panel.drag(3, 0)
        # It is done at the end of a phase; a second drag before that would add to the first.
        if panel.ask("trainer.order != 'fixed' or session._controller.asked_order is not None"):
            break
    expect(panel.message()).to_contain_text("Order as arranged")

    panel.field().fill("0.05")
    panel.field().press("Enter")
    expect(panel.message()).to_contain_text("clip ε is 0.05 from the update of")
    assert panel.ask("[session.running, trainer.clip_epsilon]") == [True, 0.05]

    arranged_in = panel.ask("trainer.iteration")
    while panel.ask("trainer.iteration") < arranged_in + 2:  # going back to before the change would undo it
        panel.page.wait_for_timeout(50)
    panel.button("pause").click()
    expect(panel.message()).to_contain_text("Paused in iteration")
    running, dragged = panel.ask("[session.running, list(trainer.order)]")
    assert running is False
    assert sorted(dragged) == AGENTS != dragged
    expect(panel.field()).to_have_value("0.05")
    expect(panel.where()).to_contain_text(f"iteration {panel.ask('trainer.iteration')} ")
    panel.button("rewind iteration").click()  # to where every agent can be moved
    expect(panel.message()).to_contain_text("next: collect")
    assert panel.order() == dragged

    panel.chips().first.focus()
    panel.page.keyboard.press("Shift+ArrowRight")
    moved = [dragged[1], dragged[0], *dragged[2:]]
    expect(panel.message()).to_have_text(f"Order as arranged: {' → '.join(moved)}.")
    assert panel.ask("list(trainer.order)") == panel.order() == moved
    assert panel.page.evaluate("() => document.activeElement.dataset.unit") == dragged[0]


def _step_and_go_back(panel: Panel) -> None:
    order = panel.order()
    done, at_first = panel.page.locator('.wb-chip[data-state="done"] .wb-name'), panel.ask("trainer.fingerprint()")
    panel.button("step agent").click()
    expect(done).to_have_text(order[:1])
    assert panel.ask("list(trainer.remaining)") == order[1:]
    panel.button("step agent").click()
    expect(done).to_have_text(order[:2])
    panel.button("rewind agent").click()
    expect(panel.message()).to_contain_text(f"next: update of {order[1]}")
    expect(done).to_have_text(order[:1])
    assert panel.ask("list(trainer.remaining)") == order[1:]
    panel.button("rewind iteration").click()
    expect(done).to_have_count(0)
    assert panel.ask("trainer.fingerprint()") == at_first
    panel.await_traces(*AGENTS)


def _fork_and_resume(panel: Panel) -> None:
    parent = panel.ask("[trainer.fingerprint(), trainer.iteration]")
    panel.button("fork").click()
    expect(panel.message()).to_contain_text("fork 1 parts from main")
    expect(panel.chooser("run")).to_have_value("fork 1")
    panel.button("run").click()
    expect(panel.where()).to_contain_text("running")
    while panel.ask("session.trainer.iteration") == parent[1]:
        panel.page.wait_for_timeout(50)
    panel.button("pause").click()
    expect(panel.message()).to_contain_text("Paused in iteration")
    assert panel.ask("[trainer.fingerprint(), trainer.iteration]") == parent
    assert panel.ask("session.trainer.iteration") > parent[1]
    assert panel.ask("list(session.trainers)") == ["main", "fork 1"]
    panel.await_traces("main", "fork 1")


def _change_theme(panel: Panel) -> None:
    ink = "() => document.querySelector('.wb-figure').layout.template.layout.font.color"
    panel.notebook.theme("JupyterLab Light")
    light = panel.page.evaluate(ink)
    state = panel.ask("session.trainer.fingerprint()")
    panel.notebook.theme("JupyterLab Dark")
    panel.page.wait_for_function(f"light => ({ink})() !== light", arg=light)
    panel.notebook.theme("JupyterLab Light")
    panel.page.wait_for_function(f"light => ({ink})() === light", arg=light)
    assert panel.ask("session.trainer.fingerprint()") == state


def _load_again(panel: Panel) -> None:
    state, where, order = panel.ask("session.trainer.fingerprint()"), panel.where().inner_text(), panel.order()
    panel.notebook.save()
    panel.notebook.open(fresh=False)
    panel.figure().wait_for(timeout=60 * SECONDS)
    expect(panel.where()).to_have_text(where)
    assert panel.order() == order
    assert panel.ask("session.trainer.fingerprint()") == state
    iteration = panel.ask("session.trainer.iteration")
    panel.button("step iteration").click()
    expect(panel.where()).to_contain_text(f"iteration {iteration + 1} ")
    assert panel.ask("session.trainer.iteration") == iteration + 1


def _restart(panel: Panel) -> None:
    panel.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    panel.notebook._wait("app => app.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")
    assert panel.ask("'trainer' in globals()") is False
    if panel.button("run").count():
        panel.button("run").click()
        expect(panel.message()).to_contain_text("The kernel does not answer")
    panel.notebook.run(0)
    panel.figure().wait_for()
    expect(panel.message()).to_have_text("Ready.")
    panel.button("step iteration").click()
    expect(panel.where()).to_contain_text("iteration 1 ")
    assert panel.ask("trainer.iteration") == 1
    panel.ask("session._shown.renew()")


def _reopen_without_a_kernel(panel: Panel) -> None:
    panel.notebook.command("notebook:shutdown-kernel")
    (stored,) = (output for output in panel.notebook.save().cells[0].outputs if "image/png" in output.data)
    assert stored.data["text/plain"] == "Panel of main"
    panel.notebook.open(wait_for_kernel=False)
    record = panel.page.locator(".jp-OutputArea-child .js-plotly-plot, .jp-OutputArea-child img").first
    expect(record).to_be_visible(timeout=60 * SECONDS)
    expect(panel.button("run")).to_have_count(0)
