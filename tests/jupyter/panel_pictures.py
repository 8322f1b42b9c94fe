"""Makes the pictures of the panel that docs/live_panel.md shows, from real runs in JupyterLab.

    python tests/jupyter/panel_pictures.py                   # those of docs/images
    python tests/jupyter/panel_pictures.py --all pictures    # every number of agents, window and theme, to look through

Each is taken in the middle of an iteration, the panel at the top of the window. A picture with anything cut, covered or
unnamed is not taken: what is wrong is said instead.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from browsers import find_chromium
from lab import Notebook, Server, browser_page
from layout import await_arranged, faults
from panel_page import Panel
from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parents[2] / "docs" / "images"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
SIZES = ((1400, 900), (1000, 700))
BESIDE = "beside"  # in a view beside the notebook
TASKS = {2: ("HalfCheetah", "2x3", 40), 4: ("Ant", "4x2", 40), 8: ("Ant", "8x1", 20), 17: ("Humanoid", "17x1", 12)}
TRAIN = """
import workbench as wb

env = wb.envs.mujoco({task!r}, {split!r}, n_envs=16)
trainer = wb.happo(env, seed=0, n_steps=125)
session = wb.Session(trainer)
session.start(iterations={iterations}, evaluate_every=10)
session.wait()
"""
SHOW = "session"
# With the cell above it where there is room.
CENTRE = """node => node.scrollIntoView({
  block: node.clientHeight + 100 < node.closest(".jp-WindowedPanel-outer").clientHeight ? "center" : "start",
})"""


@dataclass(frozen=True)
class Picture:
    """One picture: how many agents, in a window of which size and theme, in the notebook or ``beside`` it."""

    n_agents: int
    size: tuple[int, int]
    theme: str
    beside: bool = False

    @property
    def name(self) -> str:
        place = BESIDE if self.beside else f"{self.size[0]}x{self.size[1]}"
        return f"panel_{self.n_agents}_agents_{place}_{self.theme}.webp"


DOCS = [
    *(Picture(4, size, theme) for size in SIZES for theme in THEMES),
    *(Picture(4, SIZES[0], theme, beside=True) for theme in THEMES),
    Picture(2, SIZES[1], "light"),
    Picture(8, SIZES[1], "dark"),
    Picture(17, SIZES[0], "light"),
    Picture(17, SIZES[0], "dark"),
]
ALL = [
    *(Picture(*each) for each in itertools.product(TASKS, SIZES, THEMES)),
    *(Picture(n, SIZES[0], theme, beside=True) for n in TASKS for theme in THEMES),
]


def opened(page: Page, server: Server, n: int) -> Panel:
    """The panel of a run with ``n`` agents, half of which are updated in the iteration under way."""
    task, split, iterations = TASKS[n]
    name = f"{task.lower()}_{split}.ipynb"
    server.write(name, [TRAIN.format(task=task, split=split, iterations=iterations), SHOW])
    panel = Panel(Notebook(page, server, name).open())
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    for cell in (0, 1):
        panel.notebook.run(cell, seconds=600)
    for _ in range(n // 2):
        panel.ask("[session.step('agent') and None]")
    return panel


def take(panel: Panel, picture: Picture, folder: Path) -> None:
    """Take one picture."""
    page = panel.page
    page.set_viewport_size({"width": picture.size[0], "height": picture.size[1]})
    panel.notebook.theme(THEMES[picture.theme])
    if picture.beside:
        page.evaluate("() => document.querySelector('.jp-Notebook').scrollTo(0, 0)")
        panel.notebook.show_beside(1)
    box = page.locator(".jp-LinkedOutputView .wb-panel" if picture.beside else ".jp-Notebook .wb-panel")
    if not picture.beside:
        box.evaluate(CENTRE)
    await_arranged(panel, box)
    wrong = faults(box, panel.ask("list(trainer.env.agents)"))
    if wrong:
        raise SystemExit(f"{picture.name}: {'; '.join(wrong)}")
    page.mouse.move(5, 400)
    shot = Image.open(io.BytesIO(page.screenshot()))
    shot.convert("RGB").save(folder / picture.name, quality=82, method=6)
    print(f"{picture.name}: {(folder / picture.name).stat().st_size / 1024:.0f} KiB", flush=True)
    if picture.beside:
        panel.notebook.close_beside()


def take_all(pictures: Sequence[Picture], folder: Path) -> None:
    """Take pictures, a page and a run for each number of agents."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=options)
        server = Server(Path(temporary) / "server")
        try:
            for n in dict.fromkeys(picture.n_agents for picture in pictures):
                with browser_page(browser) as page:
                    panel = opened(page, server, n)
                    for picture in pictures:
                        if picture.n_agents == n:
                            take(panel, picture, folder)
                    panel.notebook.command("notebook:shutdown-kernel")
        finally:
            browser.close()
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every picture, into a folder of yours")
    folder = parser.parse_args().all
    take_all(ALL if folder else DOCS, folder or IMAGES)


if __name__ == "__main__":
    main()
