"""What tests of the notebook side may use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kernels import folder_of_specs
from lab import Server
from playwright.sync_api import Browser, sync_playwright
from sessions import SECONDS, make_trainer

from workbench.jupyter.panel.session import Session


@pytest.fixture
def open_session() -> Iterator[Callable[..., Session]]:
    """Makes sessions that are closed at the end, after which no thread of theirs is left."""
    before = set(threading.enumerate())
    sessions: list[Session] = []

    def make(trainer: Any = None, **options: Any) -> Session:
        sessions.append(Session(make_trainer() if trainer is None else trainer, **options))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()
    for thread in {thread for thread in threading.enumerate() if thread.name.startswith("workbench")} - before:
        thread.join(SECONDS)
        assert not thread.is_alive(), thread


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Jupyter server with JupyterLab and Notebook, and a folder of its own."""
    folder = tmp_path_factory.mktemp("jupyter")
    server = Server(folder, environment={"JUPYTER_PATH": str(folder_of_specs(folder / "specs"))})
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """A headless Chromium."""
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()
