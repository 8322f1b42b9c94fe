"""The pictures of docs/replay.md and the front page's film, of exported policies of one environment.

    python tests/jupyter/picture_replay.py "1M steps=DIRECTORY" ["10k steps=DIRECTORY" …] [--ghost "label=DIRECTORY"]

The first is what is shown, the others are on the second scrubber. Directories are what ``wb.export_policies`` wrote.
Writes to docs/images: ``replay_light.png`` and ``replay_dark.png``, the player in JupyterLab, and ``replay.gif``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from browsers import find_chromium
from lab import Notebook, Server, browser_page
from playwright.sync_api import sync_playwright

import workbench as wb

IMAGES = Path(__file__).resolve().parent.parent.parent / "docs" / "images"

SHOW = """
import workbench as wb
policies = {{label: wb.load_policies(path) for label, path in {takes!r}.items()}}
ghost = {{label: wb.load_policies(path) for label, path in {ghost!r}.items()}} or None
replay = wb.replay(policies, max_steps=300, ghost=ghost)
replay
"""


def labelled(text: str) -> tuple[str, str]:
    label, _, path = text.partition("=")
    return label, str(Path(path).resolve())


def pictures(takes: dict[str, str], ghost: dict[str, str], frame: int) -> None:
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"])
        server = Server(Path(temporary) / "server")
        try:
            server.write("replay.ipynb", [SHOW.format(takes=takes, ghost=ghost)])
            with browser_page(browser, 1100, 900, device_scale_factor=1.5) as page:
                notebook = Notebook(page, server, "replay.ipynb").open()
                notebook.run(0)
                player = page.locator(".wb-replay")
                player.wait_for()
                handle = player.element_handle()
                page.wait_for_function("root => root.dataset.opened && root.player.stage.alive", arg=handle)
                player.evaluate("(root, frame) => root.player.seek(frame)", frame)
                for name, theme in (("light", "JupyterLab Light"), ("dark", "JupyterLab Dark")):
                    notebook.theme(theme)
                    page.wait_for_timeout(500)
                    player.screenshot(path=IMAGES / f"replay_{name}.png")
        finally:
            browser.close()
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="+", type=labelled, metavar="LABEL=DIRECTORY")
    parser.add_argument("--ghost", type=labelled, metavar="LABEL=DIRECTORY")
    parser.add_argument("--frame", type=int, default=120, help="that the pictures show")
    parser.add_argument("--film", type=int, nargs=2, default=(60, 160), help="the film's first and last frame")
    given = parser.parse_args()
    takes = dict(reversed(given.policies))  # the last take is the one that is shown
    pictures(takes, dict([given.ghost]) if given.ghost else {}, given.frame)
    shown = wb.replay(wb.load_policies(given.policies[0][1]), max_steps=300)
    start, stop = given.film
    shown.to_gif(IMAGES / "replay.gif", start=start, stop=stop, width=400, height=260)


if __name__ == "__main__":
    main()
