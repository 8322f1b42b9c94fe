"""How fast the player draws: frames a second at 600×400, and the time to open.

    python tests/jupyter/measure_replay.py            # as a page of its own
    python tests/jupyter/measure_replay.py --lab      # in a cell of JupyterLab

Measured in a headless Chromium, by its software renderer unless ``--gpu``. The second player of a page opens warm: the
page has k3d already. No part of the tests: a number of frames a second is the machine's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from browsers import find_chromium
from lab import Notebook, Server, browser_page
from playwright.sync_api import Page, sync_playwright

import workbench as wb

ROBOTS = (("Ant", "4x2"), ("Walker2d", "6x1"), ("HalfCheetah", "2x3"), ("Humanoid", "17x1"))
SETUP = """
import workbench as wb
from IPython.display import display, HTML
display(HTML("<style>.wb-replay {{ width: 602px }}</style>"))
env = wb.envs.mujoco({scenario!r}, {conf!r}, n_envs=4)
trainer = wb.happo(env, seed=0, n_steps=50).run(iterations=2, progress=False)
replay = trainer.replay(max_steps=1000)
"""
COUNT = """(seconds) => new Promise((resolve) => {
  const players = [...document.querySelectorAll(".wb-replay")];
  const player = players[players.length - 1].player;
  player.setLoop(true);
  player.play();
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const before = player.drawn, start = performance.now();
    setTimeout(() => {
      const rate = (player.drawn - before) / ((performance.now() - start) / 1000);
      player.pause();
      resolve([rate, player.host.clientWidth, player.host.clientHeight]);
    }, 1000 * seconds);
  }));
})"""
OPENED = "n => [...document.querySelectorAll('.wb-replay')][n]?.dataset.opened"


def opened(page: Page, number: int) -> int:
    """Milliseconds that a player took from when it was asked for to its first frame."""
    page.locator(".wb-replay .wb-stage").nth(number).scroll_into_view_if_needed()
    page.wait_for_function(OPENED, arg=number, timeout=60_000)
    return int(page.evaluate(OPENED, number))


def rate(page: Page, seconds: float) -> tuple[float, int, int]:
    """Frames a second while it plays, and the stage's width and height."""
    frames, width, height = page.evaluate(COUNT, seconds)
    return frames, width, height


def own_page(page: Page, folder: Path, scenario: str, conf: str, seconds: float) -> tuple[list[int], float, int, int]:
    env = wb.envs.mujoco(scenario, conf, n_envs=4)
    trainer = wb.happo(env, seed=0, n_steps=50).run(iterations=2, progress=False)
    path = trainer.replay(max_steps=1000).to_html(folder / f"{scenario}.html")
    page.set_viewport_size({"width": 634, "height": 900})
    page.goto(path.as_uri())
    return [opened(page, 0)], *rate(page, seconds)


def in_lab(page: Page, server: Server, scenario: str, conf: str, seconds: float) -> tuple[list[int], float, int, int]:
    name = f"{scenario}.ipynb"
    server.write(name, [SETUP.format(scenario=scenario, conf=conf), "replay", "trainer.replay(max_steps=1000)"])
    notebook = Notebook(page, server, name).open()
    notebook.run(0)
    notebook.run(1)
    times = [opened(page, 0)]
    notebook.run(2)
    times.append(opened(page, 1))
    return times, *rate(page, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", action="store_true", help="in JupyterLab")
    parser.add_argument("--gpu", action="store_true", help="let the browser use a graphics processor")
    parser.add_argument("--seconds", type=float, default=4.0, help="that each is watched")
    parser.add_argument("--robots", nargs="*", default=[name for name, _ in ROBOTS])
    given = parser.parse_args()
    options = ["--no-sandbox"] + ([] if given.gpu else ["--disable-gpu"])
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=options)
        server = Server(folder / "server") if given.lab else None
        try:
            for scenario, conf in ROBOTS:
                if scenario not in given.robots:
                    continue
                with browser_page(browser, offline=not given.lab) as page:
                    started = time.perf_counter()
                    if server is None:
                        times, frames, width, height = own_page(page, folder, scenario, conf, given.seconds)
                    else:
                        times, frames, width, height = in_lab(page, server, scenario, conf, given.seconds)
                    took = time.perf_counter() - started
                    ms = ", then ".join(map(str, times))
                    rate_there = f"{frames:.1f} frames/s at {width}×{height}"
                    print(f"{scenario} {conf}: {rate_there}; opened in {ms} ms [{took:.0f} s]", flush=True)
        finally:
            browser.close()
            if server is not None:
                server.stop()


if __name__ == "__main__":
    main()
