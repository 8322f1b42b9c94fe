"""A Jupyter server of the tests' own, and notebooks in a real browser."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, Page, expect

TOKEN = "for-tests-only"
SECONDS = 1000.0  # Playwright counts in milliseconds

# What the browser needs none of: news, extensions from the network, a check of what it may offer.
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}


class Server:
    """``jupyter lab`` (or ``jupyter notebook``) on 127.0.0.1, with a home and a folder of its own."""

    def __init__(self, folder: Path, program: str = "jupyterlab", environment: dict[str, str] | None = None) -> None:
        self.folder = folder / "notebooks"
        self.folder.mkdir(parents=True)
        settings = folder / "settings"
        for name, values in SETTINGS.items():
            package, plugin = name.split(":")
            place = settings / package / f"{plugin}.jupyterlab-settings"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(values))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        home = folder / "home"
        home.mkdir()
        self.log = (folder / "server.log").open("w")
        self.process = subprocess.Popen(
            [
                *[sys.executable, "-m", program, "--no-browser", f"--ServerApp.root_dir={self.folder}", "--allow-root"],
                *["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0"],
                *[f"--IdentityProvider.token={TOKEN}", "--ServerApp.open_browser=False"],
                *["--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"],
                *[f"--LabApp.user_settings_dir={settings}"],
                *["--LabServerApp.extension_manager=readonly", f"--LabApp.workspaces_dir={folder / 'workspaces'}"],
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={
                **os.environ,
                **(environment or {}),
                "HOME": str(home),
                "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
                "JUPYTER_CONFIG_DIR": str(folder / "config"),
                "IPYTHONDIR": str(folder / "ipython"),
                "OMP_NUM_THREADS": "1",
            },
            start_new_session=True,
        )
        self._await()

    def _await(self) -> None:
        address = f"http://127.0.0.1:{self.port}/api/status?token={TOKEN}"
        end = time.monotonic() + 90
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=5).close()
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"the Jupyter server did not start:\n{Path(self.log.name).read_text()[-3000:]}")

    def stop(self) -> None:
        """End the server and its kernels."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()

    def write(self, name: str, cells: list[str], kernel: str = "python3") -> Path:
        """A notebook of code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
        path = self.folder / name
        nbformat.write(notebook, path)
        return path


class Notebook:
    """One notebook open in a page; cells are counted from 0."""

    def __init__(self, page: Page, server: Server, name: str, application: str = "lab/tree") -> None:
        """``application``: "lab/tree" for JupyterLab, "notebooks" for Jupyter Notebook 7."""
        self.page = page
        self.server = server
        self.name = name
        self.application = application

    def open(self, wait_for_kernel: bool = True, fresh: bool = True) -> Notebook:
        """Load the page; ``fresh``: with no other notebook open, as the workspace may remember."""
        reset = "&reset" if fresh else ""
        self.page.goto(f"http://127.0.0.1:{self.server.port}/{self.application}/{self.name}?token={TOKEN}{reset}")
        self._wait("app => app.shell.currentWidget?.content?.widgets?.length > 0")
        if wait_for_kernel:
            self._wait("app => app.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'")
        return self

    def _wait(self, condition: str, seconds: float = 90) -> None:
        self.page.wait_for_function(
            f"() => window.jupyterapp && ({condition})(window.jupyterapp)", timeout=seconds * SECONDS
        )

    def command(self, name: str, **arguments: Any) -> Any:
        """One of JupyterLab's commands."""
        return self.page.evaluate(
            "([name, args]) => window.jupyterapp.commands.execute(name, args).then(() => null)", [name, arguments]
        )

    def theme(self, name: str) -> None:
        """Change JupyterLab's theme ("JupyterLab Dark") and wait until that is over.

        Its splash fades for a moment, and a change within that moment has JupyterLab take the splash away twice, which
        it reports as an error.
        """
        self.command("apputils:change-theme", theme=name)
        self.page.wait_for_function(
            """name => document.body.dataset.jpThemeName === name && !document.getElementById("jupyterlab-splash")""",
            arg=name,
        )

    def run(self, cell: int, seconds: float = 90) -> None:
        """Run one cell and wait for its end."""
        self.page.evaluate(
            """async (cell) => {
              const panel = window.jupyterapp.shell.currentWidget;
              panel.content.activeCellIndex = cell;
              await window.jupyterapp.commands.execute("notebook:run-cell");
            }""",
            cell,
        )
        self._wait(
            f"""app => {{
              const model = app.shell.currentWidget.content.widgets[{cell}].model;
              return model.executionCount !== null && model.executionState !== "running";
            }}""",
            seconds,
        )

    def output(self, cell: int) -> str:
        """The text of a cell's outputs."""
        return self.page.evaluate(
            """(cell) => window.jupyterapp.shell.currentWidget.content.widgets[cell].model.outputs.toJSON()
              .map((o) => o.text ?? o.data?.["text/plain"] ?? (o.traceback ?? []).join("\\n")).flat().join("")""",
            cell,
        )

    def ask(self, expression: str, seconds: float = 60) -> Any:
        """The value of a Python expression in the kernel, through JSON."""
        code = f"import json as _json; _value = _json.dumps({expression})"
        reply = self.page.evaluate(
            """async (code) => {
              const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
              const future = kernel.requestExecute({code, silent: true, user_expressions: {value: "_value"}});
              return (await future.done).content;
            }""",
            code,
        )
        if reply["status"] != "ok" or reply["user_expressions"]["value"]["status"] != "ok":
            raise AssertionError(f"{expression}: {reply}")
        return json.loads(eval(reply["user_expressions"]["value"]["data"]["text/plain"]))

    def save(self) -> nbformat.NotebookNode:
        """Save, and return what lies on the disk."""
        self.command("docmanager:save")
        return nbformat.read(self.server.folder / self.name, 4)

    def show_beside(self, cell: int) -> None:
        """A cell's output in a view of its own ("Create New View for Cell Output"), on the right of the notebook."""
        self.page.evaluate(
            """async (cell) => {
              const { shell, commands } = window.jupyterapp;
              const notebook = shell.currentWidget;
              const before = new Set(shell.widgets("main"));
              notebook.content.activeCellIndex = cell;
              await commands.execute("notebook:create-output-view");
              const view = [...shell.widgets("main")].find((widget) => !before.has(widget));
              shell.add(view, "main", { mode: "split-right", ref: notebook.id });
              shell.activateById(notebook.id);
            }""",
            cell,
        )

    def close_beside(self) -> None:
        """Close all but the notebook."""
        self.page.evaluate(
            """() => {
              const { shell } = window.jupyterapp;
              for (const widget of [...shell.widgets("main")]) if (widget !== shell.currentWidget) widget.close();
            }"""
        )

    def scroll_to(self, cell: int) -> None:
        """Bring a cell's output onto the screen."""
        self.page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(
            ".jp-Cell-outputWrapper"
        ).scroll_into_view_if_needed()


# anywidget's stopwatch: a model that took two seconds to load is told of so, and is shown all the same. It says how
# busy the machine was, and nothing of the page.
LATE = "[anywidget] Failed to initialize model."


@contextlib.contextmanager
def browser_page(browser: Browser, width: int = 1400, height: int = 900, **context: Any) -> Iterator[Page]:
    """A fresh page whose console errors are collected in ``page.errors``."""
    surroundings = browser.new_context(viewport={"width": width, "height": height}, **context)
    page = surroundings.new_page()
    errors: list[str] = []

    def told(text: str) -> None:
        if LATE not in text:
            errors.append(text)

    page.on("console", lambda message: told(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: told(str(error)))
    page.errors = errors  # type: ignore[attr-defined]
    page.set_default_timeout(30 * SECONDS)
    expect.set_options(timeout=30 * SECONDS)
    try:
        yield page
    finally:
        surroundings.close()
