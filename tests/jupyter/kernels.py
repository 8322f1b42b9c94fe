"""The kernels that the panel is tested in: the installed ipykernel, and an older one in a folder of its own.

``make test`` installs the older one beside the environment's packages. Its kernel is this same interpreter, with that
folder first on its path.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

INSTALLED, OLDER = "python3", "older-ipykernel"
REQUIREMENTS = Path(__file__).parent / "older-ipykernel.txt"
FOLDER = Path(sys.prefix) / "older-ipykernel"


def version(kernel: str) -> str:
    """The version of ipykernel that a kernel is to have."""
    if kernel == INSTALLED:
        import ipykernel

        return ipykernel.__version__
    return REQUIREMENTS.read_text().strip().partition("ipykernel==")[2]


def folder_of_specs(folder: Path) -> Path:
    """A folder for JUPYTER_PATH, with the older kernel in it."""
    spec = folder / "kernels" / OLDER / "kernel.json"
    spec.parent.mkdir(parents=True)
    path = os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")]))
    launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    described = {"argv": launch, "display_name": OLDER, "language": "python", "env": {"PYTHONPATH": path}}
    spec.write_text(json.dumps(described))
    return folder


def need(kernel: str) -> None:
    """Skip the test that has no such kernel, but fail it in CI, where nobody reads of skips."""
    if kernel == INSTALLED or (FOLDER / "ipykernel").is_dir():
        return
    reason = (
        f"no second ipykernel in {FOLDER}; `make test` installs it, or: "
        f"{sys.executable} -m pip install --no-deps --target {FOLDER} -r {REQUIREMENTS}"
    )
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(reason)
    pytest.skip(reason)
