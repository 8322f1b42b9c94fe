"""Where results come from: versions, the git revision of the notebook's folder, the machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import shutil
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from workbench.envs.workers import usable_cpus

PACKAGES = ("numpy", "torch", "mujoco", "gymnasium", "pandas", "papermill", "distributed", "ipykernel")


def now() -> str:
    """The time, to a thousandth of a second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def versions() -> dict[str, str]:
    """Of Python, the workbench and what it computes with."""
    from workbench import __version__

    found = {"python": platform.python_version(), "workbench": __version__}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, str | int]:
    """Where this process runs."""
    about = {"host": socket.gethostname(), "system": platform.platform(), "processor": processor()}
    return {**about, "cores": usable_cpus()}


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def git_state(folder: Path) -> dict[str, object] | None:
    """Revision, and whether files differ from it, of the repository that a folder is in; None where there is none."""
    if shutil.which("git") is None:
        return None
    revision = _git(folder, "rev-parse", "HEAD")
    if revision is None:
        return None
    return {"revision": revision, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *words: str) -> str | None:
    # A container's checkout may belong to someone else, which git refuses to read unless told.
    command = ["git", "-c", "safe.directory=*", *words]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
