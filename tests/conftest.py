"""What every test may use: the browser, and a watch for processes left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from browsers import BROWSERS, find_chromium
from hypothesis import settings

# A shell's background jobs ignore interrupts, and pass that on; tests that send some would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    with contextlib.suppress(ValueError):  # not the main thread, which then has nothing to interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)

# No test hangs on wall time, and what passes here passes everywhere.
settings.register_profile("workbench", deadline=None, derandomize=True)
settings.load_profile("workbench")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium to drive. Without one a test is skipped, but fails in CI, where nobody reads of skips."""
    path = find_chromium()
    if path is not None and shutil.which(path) is None:
        pytest.fail(f"WORKBENCH_CHROMIUM is {path!r}, which is no program; name a Chromium or unset it.")
    if path is not None:
        return path
    reason = f"no Chromium found (tried {', '.join(BROWSERS)}); install one or set WORKBENCH_CHROMIUM."
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def no_process_left_behind() -> Iterator[None]:
    """Whatever a test starts (workers, kernels, servers, browsers) it also ends."""
    before = set(psutil.Process().children(recursive=True))
    yield
    started = [child for child in psutil.Process().children(recursive=True) if child not in before]
    # multiprocessing keeps two helpers until the interpreter exits; they are its own, and nobody's leak.
    own = ("resource_tracker", "forkserver")
    _, alive = psutil.wait_procs([child for child in started if not any(map(_command(child).count, own))], timeout=10)
    assert not alive, f"processes left behind: {[(child.pid, _command(child)) for child in alive]}"


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """A client of two workers on this machine, for all sweeps that do not kill any."""
    from workbench.sweeps.cluster import cluster

    with cluster(workers=2) as connected:
        yield connected


ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout's own directory."""
    return ROOT


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Every file under version control; a test of them has nothing to look at in an unpacked archive."""
    # A container's checkout may belong to someone else, which git refuses to read unless told.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout, or no git")
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]
