"""The files around the code agree with one another: pins, commands, environments, notebooks."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import workbench

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINNED = {canonicalize_name(name): version for name, _, version in (pin.partition("==") for pin in PINS)}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def direct_requirements() -> list[Requirement]:
    """What pyproject asks for, extras included."""
    extras = PROJECT["optional-dependencies"]
    return [
        Requirement(line) for line in [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    ]


def needed(requirement: Requirement, extras: set[str]) -> bool:
    """Whether this machine needs it, as pip would decide."""
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({**default_environment(), "extra": extra}) for extra in extras or {""})


def everything_needed() -> set[str]:
    """Names of all packages that an installation with every extra brings here, followed through their metadata."""
    found: set[str] = set()
    waiting = [requirement for requirement in direct_requirements() if requirement.name != "workbench"]
    while waiting:
        requirement = waiting.pop()
        found.add(canonicalize_name(requirement.name))
        try:
            lines = importlib.metadata.requires(requirement.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # the tools of an extra that is not installed
        further = [Requirement(line) for line in lines]
        waiting += [
            each
            for each in further
            if needed(each, {"", *requirement.extras}) and canonicalize_name(each.name) not in found
        ]
    return found


# ---- pins ----


def test_pins_are_exact_sorted_and_carry_no_build_of_one_machine() -> None:
    assert [pin for pin in PINS if not re.fullmatch(r"[\w.-]+==[\w.!]+", pin)] == []
    assert sorted(PINS, key=lambda pin: pin.partition("==")[0].lower()) == PINS


def test_pins_lie_in_the_ranges_of_pyproject() -> None:
    for requirement in direct_requirements():
        if requirement.name != "workbench":
            version = PINNED.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement.name} is not in constraints.txt"
            assert version in requirement.specifier, f"{requirement} does not allow the pin {version}"


def test_every_package_that_gets_installed_is_pinned() -> None:
    # The CUDA build of torch brings its libraries in the versions that torch itself pins.
    of_torch = re.compile(r"nvidia-|cuda-|triton")
    unpinned = {name for name in everything_needed() if not of_torch.match(name)} - PINNED.keys()
    assert unpinned == set(), "add them to constraints.txt"


# ---- versions, licence, commands ----


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:\.dev\d+)?", workbench.__version__)
    written = f'"{workbench.__version__}"'
    holders = [
        path
        for path in [*(ROOT / "workbench").rglob("*.py"), ROOT / "pyproject.toml"]
        if written in path.read_text("utf-8")
    ]
    assert holders == [ROOT / "workbench" / "__init__.py"]
    assert workbench.__version__ in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_licence() -> None:
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert licence.startswith("MIT License")
    assert "The workbench authors" in licence
    assert PROJECT["license"] == "MIT"


def make(*words: str) -> str:
    if shutil.which("make") is None:
        pytest.skip("no make")
    return subprocess.run(
        ["make", "--no-print-directory", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_make_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert phony is not None
    assert re.findall(r"^  make (\w+)", make(), re.MULTILINE) == phony[1].split()


def test_some_tests_are_run_without_the_notebooks() -> None:
    assert "--nbval notebooks/*.ipynb" in make("-n", "test")
    some = make("-n", "test", "ARGS=-k 'theory or envs'")
    assert "loadfile -k 'theory or envs'" in some
    assert "nbval" not in some


def test_lab_opens_the_quickstart_on_the_loopback_and_loosens_nothing() -> None:
    launch = make("-n", "lab", "ARGS=--no-browser").splitlines()[-1]
    assert "notebooks/01_quickstart.ipynb" in launch
    assert launch.endswith("--no-browser")
    assert "--ip=127.0.0.1" in launch
    assert not re.search(r"token|password|allow_origin|allow_remote|disable_check_xsrf", launch)


def test_conda_installs_what_make_lab_installs() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert environment["dependencies"][-1] == {"pip": ["-c constraints.txt", "-e ."]}
    assert re.search(
        r"pip install .*-c constraints\.txt -e \.$", make("-n", "-W", "pyproject.toml", "lab"), re.MULTILINE
    )


def test_ci_ends_in_the_command_that_users_run() -> None:
    script = ROOT / ".ci" / "run"
    assert script.read_text("utf-8").rstrip().splitlines()[-1] == "exec make test"
    subprocess.run(["bash", "-n", script], check=True)
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    assert {"run": "bash .ci/run"} in workflow["jobs"]["test"]["steps"]


def test_forms_for_issues_can_be_filled_in() -> None:
    forms = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert len(forms) == 2
    for path in forms:
        form = yaml.safe_load(path.read_text("utf-8"))
        assert {"name", "description", "body"} <= form.keys()
        names = [part["id"] for part in form["body"]]
        assert len(set(names)) == len(names)


def test_hooks_before_a_commit_run_what_ci_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    entries = " ".join(hook["entry"] for hook in repository["hooks"])
    for tool in ("ruff check", "ruff format", "mypy"):
        assert f".venv/bin/{tool}" in entries
    assert all((ROOT / path).is_file() for path in re.findall(r"tests/\w+\.py", entries))


# ---- notebooks ----


def cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_as_it_ran(path: Path) -> None:
    """nbval compares with stored outputs, and so finds nothing wrong with a notebook that has none."""
    notebook = json.loads(path.read_text("utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    first = notebook["cells"][0]
    assert first["cell_type"] == "markdown"
    assert "".join(first["source"]).startswith("# ")
    counts = [cell["execution_count"] for cell in cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "run it top to bottom in a fresh kernel and save it"
    assert any(cell["outputs"] for cell in cells(notebook)), "it holds no outputs"
    for cell in cells(notebook):
        raised = [output["ename"] for output in cell["outputs"] if output["output_type"] == "error"]
        assert not raised or "raises-exception" in cell["metadata"].get("tags", []), raised
        unstored = {"skip", "nbval-skip"} & set(cell["metadata"].get("tags", []))
        assert not unstored, f"a cell is tagged {unstored}: it would not run"
