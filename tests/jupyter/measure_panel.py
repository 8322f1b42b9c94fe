"""What the panel costs and how soon it answers, in JupyterLab in a headless Chromium.

    python tests/jupyter/measure_panel.py opening    # bytes to the page, time to the first figure
    python tests/jupyter/measure_panel.py clicks     # from a click to the pixels, at rest
    python tests/jupyter/measure_panel.py pause      # from the click to the standstill, beside how long phases last
    python tests/jupyter/measure_panel.py cost       # env steps/s with the panel open and without any, in turns
    python tests/jupyter/measure_panel.py memory     # of kernel and page over 2,000 updates

Ant 4x2 everywhere, with 20 × 200 steps an iteration but for ``memory``. No part of the tests: times are the machine's.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from browsers import find_chromium
from lab import Notebook, Server, browser_page
from layout import await_arranged
from panel_page import Panel
from playwright.sync_api import Browser, Page, sync_playwright

SETUP = """
import threading, time
import psutil
import workbench as wb

env = wb.envs.mujoco("Ant", "4x2", n_envs={n_envs})
trainer = wb.happo(env, seed=0, n_steps={n_steps}, hidden_sizes={hidden_sizes})
"""
SHOW = "session = wb.Session(trainer)\nsession"
FULL = {"n_envs": 20, "n_steps": 200, "hidden_sizes": (128, 128)}
SMALL = {"n_envs": 8, "n_steps": 50, "hidden_sizes": (64, 64)}

# Milliseconds from an action to the frame in which a condition holds, and that frame is on the screen.
UNTIL = """() => new Promise((resolve, reject) => {
  const figure = document.querySelector(".wb-figure"), frame = Number(figure.dataset.frame);
  const order = () => [...document.querySelectorAll(".wb-chip")].map((chip) => chip.dataset.unit).join();
  const before = order(), start = performance.now();
  const look = () => {
    if (%(condition)s) requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
    else if (performance.now() - start > 10000) reject(new Error("nothing happened"));
    else requestAnimationFrame(look);
  };
  %(action)s;
  requestAnimationFrame(look);
})"""
NEW_FRAME = "Number(figure.dataset.frame) > frame"
CLICKS = {
    "reverse the order": (
        "document.querySelector('.wb-tools button + button').click()",
        "order() !== before",
    ),
    "switch violins and boxes": (
        """const chooser = document.querySelector('[aria-label="How M-factors are drawn"]');
        chooser.value = chooser.value === "box" ? "violin" : "box";
        chooser.dispatchEvent(new Event("change"))""",
        NEW_FRAME,
    ),
}


def quantile(values: list[float], share: float) -> float:
    """The least of the values that so large a share of them do not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def told(values: list[float]) -> str:
    middle, high = statistics.median(values), quantile(values, 0.95)
    return f"median {middle:.0f} ms, 95 % below {high:.0f} ms, longest {max(values):.0f} ms (n = {len(values)})"


@contextmanager
def opened(browser: Browser, server: Server, task: dict[str, object], **page_options: int) -> Iterator[Panel]:
    """A page with an open panel."""
    server.write("measured.ipynb", [SETUP.format(**task), SHOW, SHOW.replace("session", "second")])
    with browser_page(browser, **page_options) as page:
        panel = Panel(Notebook(page, server, "measured.ipynb").open())
        panel.notebook.run(0)
        yield panel


def show(panel: Panel) -> None:
    """Run the cell that makes the panel, and bring it wholly onto the screen."""
    panel.notebook.run(1)
    panel.figure().first.wait_for()
    box = panel.page.locator(".wb-panel").first
    box.evaluate("node => node.scrollIntoView({ block: 'start' })")
    await_arranged(panel, box)


def stand(panel: Panel, what: str = "session.running", every: float = 0.5) -> None:
    """Wait until it trains no more, without keeping the kernel busy meanwhile."""
    while panel.ask(what):
        panel.page.wait_for_timeout(1000 * every)


# --- opening ----------------------------------------------------------------------------------------------------------


def opening(browser: Browser, server: Server) -> None:
    """Bytes that the page receives, and the time from running the cell to the first figure."""
    with opened(browser, server, FULL) as panel:
        received: list[int] = []
        # The sockets of this page are open already; load it again to listen.
        panel.page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))))
        panel.notebook.open(fresh=False)
        panel.notebook.run(0)
        panel.ask("[trainer.run(iterations=5, progress=False) and None]")
        script = panel.ask("len(__import__('workbench.jupyter.assets').jupyter.assets.packed('plotly'))")
        for cell, name in ((1, "first panel of the page"), (2, "second panel, warm"), (2, "third panel, warm")):
            before, taken = sum(received), first_paint(panel.page, cell)
            panel.page.wait_for_timeout(1500)
            total = sum(received) - before
            beside = total - script if cell == 1 else total
            print(
                f"{name}: painted after {taken:.0f} ms; {total / 1e6:.2f} MB came, {beside / 1e6:.2f} MB beside plotly"
            )
        print(f"plotly's script, packed, once a page: {script / 1e6:.2f} MB")


def first_paint(page: Page, cell: int) -> float:
    """Milliseconds from running a cell until its figure is on the screen."""
    return float(
        page.evaluate(
            """(cell) => new Promise((resolve) => {
              const { content } = window.jupyterapp.shell.currentWidget;
              const node = content.widgets[cell].node;
              node.querySelector(".wb-panel")?.closest(".jp-OutputArea-child").remove();
              content.activeCellIndex = cell;
              node.scrollIntoView({ block: "start" });
              const start = performance.now();
              window.jupyterapp.commands.execute("notebook:run-cell");
              const look = () => {
                if (node.querySelector(".wb-figure[data-frame]"))
                  requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
                else requestAnimationFrame(look);
              };
              look();
            })""",
            cell,
        )
    )


# --- answering --------------------------------------------------------------------------------------------------------


def clicks(browser: Browser, server: Server, times: int = 100) -> None:
    """From a click to the pixels, at rest, after some training."""
    with opened(browser, server, FULL) as panel:
        panel.ask("[trainer.run(iterations=10, progress=False) and None]")
        panel.ask("[[trainer.step() and None for _ in range(4)]]")
        show(panel)
        for name, (action, condition) in CLICKS.items():
            code = UNTIL % {"action": action, "condition": condition}
            taken = []
            for _ in range(times):
                panel.page.wait_for_timeout(500)  # until all that the last one brought about is over
                taken.append(panel.page.evaluate(code))
            print(f"{name}: {told(taken[5:])}", flush=True)


def pause(browser: Browser, server: Server, times: int = 12) -> None:
    """From the click on Pause to the standstill, and to the page's word, beside how long the phases last."""
    with opened(browser, server, FULL) as panel:
        panel.ask("[trainer.run(iterations=1, progress=False) and None]")
        show(panel)
        panel.notebook.ask(
            "[globals().update(ends=[]), trainer.subscribe(lambda e: ends.append((time.time(), e.phase))) and None]"
        )
        seen: list[float] = []
        stood: dict[str, list[float]] = {}
        later = 0
        for k in range(times):
            panel.ask("[ends.clear(), session.start()]")
            panel.page.wait_for_timeout(1500 + 370 * k)
            clicked, shown = panel.page.evaluate(
                """() => new Promise((resolve) => {
                  const start = Date.now(), look = () => {
                    if (/^Paused/.test(document.querySelector(".wb-message").textContent)) resolve([start, Date.now()]);
                    else requestAnimationFrame(look);
                  };
                  document.querySelector('[data-do="pause"]').click();
                  look();
                })"""
            )
            ends = panel.ask("ends")
            after = [(moment - clicked / 1000, phase) for moment, phase in ends if moment > clicked / 1000]
            later += max(len(after) - 1, 0)
            if after:
                stood.setdefault(after[-1][1], []).append(1000 * after[-1][0])
            seen.append(shown - clicked)
        lasted: dict[str, list[float]] = {}
        panel.ask("[ends.clear(), session.start(iterations=4)]")
        stand(panel)
        ends = panel.ask("ends")
        for (begin, _), (end, phase) in itertools.pairwise(ends):
            lasted.setdefault(phase, []).append(1000 * (end - begin))
        for phase, values in lasted.items():
            print(f"{phase} lasts {told(values)}")
        for phase, values in stood.items():
            print(f"pause in {phase}: stands after {told(values)}")
        print(f"the page says so: {told(seen)}")
        print(f"phases begun after the one in which the click fell: {later}")


# --- costing ----------------------------------------------------------------------------------------------------------

TURNS = """
bare = trainer.fork()
ends = {"panel": [], "bare": []}
trainer.subscribe(lambda event: ends["panel"].append(time.perf_counter()))
bare.subscribe(lambda event: ends["bare"].append(time.perf_counter()))
thread = threading.Thread()

def turn(which, iterations):
    global begun, thread
    ends[which].clear()
    begun = time.perf_counter()
    if which == "panel":
        session.start(iterations=iterations)
    else:
        thread = threading.Thread(target=bare.run, kwargs={"iterations": iterations, "progress": False})
        thread.start()
"""


def cost(browser: Browser, server: Server, pairs: int = 20, iterations: int = 8) -> None:
    """Training with the panel open and on the screen, and a fork of it in the same kernel without any, in turns."""
    with opened(browser, server, FULL) as panel:
        panel.ask("[trainer.run(iterations=2, progress=False) and None]")
        show(panel)
        panel.ask(f"[exec({TURNS!r}, globals())]")
        steps = iterations * FULL["n_envs"] * FULL["n_steps"]  # type: ignore[operator]

        def speed(which: str) -> float:
            panel.ask(f"[turn({which!r}, {iterations})]")
            stand(panel, "session.running or thread.is_alive()")
            return float(steps / panel.ask(f"ends[{which!r}][-1] - begun"))

        for which in ("panel", "bare"):
            speed(which)
        frames, begun = panel.ask("session._panel.plot.drawn"), time.monotonic()
        ratios, speeds = [], []
        for k in range(pairs):
            names = ("panel", "bare") if k % 2 else ("bare", "panel")
            pair = {which: speed(which) for which in names}
            speeds.append(pair["bare"])
            ratios.append(pair["panel"] / pair["bare"])
        frames = panel.ask("session._panel.plot.drawn") - frames
        low, high = sorted(ratios)[5], sorted(ratios)[-6]  # of 20: 95.9 % for the median, whatever the distribution
        print(f"without a panel: median {statistics.median(speeds):,.0f} env steps/s")
        middle, low, high = (100 * (value - 1) for value in (statistics.median(ratios), low, high))
        print(
            f"with the panel open: {middle:+.1f} %, median of {pairs} pairs (96 % interval {low:+.1f} to {high:+.1f} %)"
        )
        print(f"frames drawn in all turns, {time.monotonic() - begun:.0f} s, of which half with the panel: {frames}")


def memory(browser: Browser, server: Server, updates: int = 2000, warm_up: int = 600) -> None:
    """Resident memory of the kernel and JavaScript heap of the page, after garbage is collected, over many updates."""
    with opened(browser, server, SMALL) as panel:
        show(panel)
        tools = panel.page.context.new_cdp_session(panel.page)
        tools.send("HeapProfiler.enable")

        def look(done: int) -> tuple[float, float]:
            stand(panel)
            panel.page.wait_for_timeout(2500)
            for _ in range(3):
                tools.send("HeapProfiler.collectGarbage")
            heap = tools.send("Runtime.getHeapUsage")["usedSize"] / 1e6
            resident = panel.ask("[__import__('gc').collect(), psutil.Process().memory_info().rss][1]") / 1e6
            frames = panel.ask("session._panel.plot.drawn")
            print(f"{done} updates, {frames} frames: kernel {resident:.1f} MB, page {heap:.1f} MB", flush=True)
            return resident, heap

        panel.ask(f"[session.start(iterations={warm_up // 4})]")
        first = look(warm_up)
        for k in range(1, 5):
            panel.ask(f"[session.start(iterations={updates // 16})]")
            last = look(warm_up + k * updates // 4)
        print(f"growth over {updates} updates: kernel {last[0] - first[0]:+.1f} MB, page {last[1] - first[1]:+.1f} MB")


PARTS: dict[str, Callable[[Browser, Server], None]] = {
    part.__name__: part for part in (opening, clicks, pause, cost, memory)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=options)
        for part in parser.parse_args().parts:
            server = Server(Path(temporary) / part)
            try:
                PARTS[part](browser, server)
            finally:
                server.stop()
        browser.close()


if __name__ == "__main__":
    main()
