"""Who may import whom, and the limits that keep each file readable."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Each module imports only those above it. "workbench" is the package's own front, which may import all.
LAYERS = (
    "errors",
    "theory",  # NumPy only, in float64
    "randomness",
    "envs",
    "networks",
    "learning",
    "episodes",
    "running",
    "statistics",
    "sweeps",
    "commands",
    "jupyter",
    "__main__",
    "workbench",
)

# The exceptions: methods of these show themselves, and import the view within the method, when called.
SHOW_THEMSELVES = {"running": "replay(), replay_rollout() and the bar of run()", "sweeps": "figure()"}

# Third-party packages that only these modules import; all others are free, except for theory.
CONFINED = {
    "ipywidgets": {"jupyter"},
    "anywidget": {"jupyter"},
    "plotly": {"jupyter"},
    "matplotlib": {"jupyter"},
    "IPython": {"jupyter"},
    "papermill": {"sweeps"},
    "distributed": {"sweeps"},
    "dask": {"sweeps"},
    "pettingzoo": {"envs"},
    "gymnasium_robotics": set[str](),
}
THEORY_NEEDS = {"numpy"}

# What `import workbench` must not load: a script pays for no notebook, and theory and worker processes for no torch.
NOT_AT_IMPORT = (
    *("ipywidgets", "anywidget", "plotly", "matplotlib", "IPython", "jupyterlab", "papermill", "distributed"),
    *("torch", "pandas", "mujoco", "pettingzoo"),
)

LONGEST_FILE = 700

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "workbench"


@dataclass(frozen=True)
class Import:
    """One import: which layer imports which, or which package, where, and whether within a function."""

    path: Path
    line: int
    layer: str
    target: str
    inner: bool
    name: str = ""

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.layer} imports {self.target}"


def layer_of(path: Path) -> str:
    """The layer that a file belongs to: the first part of its name below the package."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "workbench" if first == "__init__" else first


def imports_of(path: Path, source: str | None = None) -> Iterator[Import]:
    """Every import that the file makes, inside functions too; relative ones spelt out."""
    package = ["workbench", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8") if source is None else source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inner = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [(module, alias.name) for alias in node.names]
        else:
            continue
        for module, name in names:
            yield Import(path, node.lineno, layer_of(path), target_of(module, name), id(node) in inner, name)


def target_of(module: str, name: str) -> str:
    """The layer within the package that is imported, or the top name of another package."""
    top, *rest = module.split(".")
    if top != "workbench":
        return top
    if rest:
        return rest[0]
    return name if name in LAYERS else "workbench"


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def broken_directions(imports: list[Import]) -> list[str]:
    """The imports of a layer from below its own."""
    rank = {layer: number for number, layer in enumerate(LAYERS)}
    broken = []
    for each in imports:
        if each.target == each.layer or not {each.layer, each.target} <= rank.keys():
            continue
        shows_itself = each.layer in SHOW_THEMSELVES and each.target == "jupyter" and each.inner
        own_version = each.target == "workbench" and each.name == "__version__"
        if rank[each.target] > rank[each.layer] and not shows_itself and not own_version:
            broken.append(str(each))
    return broken


ALL_IMPORTS = list(itertools.chain.from_iterable(map(imports_of, sources())))


def test_every_module_has_its_place_in_the_table() -> None:
    unplaced = sorted({layer_of(path) for path in sources()} - set(LAYERS))
    assert not unplaced, f"put {unplaced} where they belong in LAYERS"


def test_modules_import_only_what_is_above_them() -> None:
    assert len(ALL_IMPORTS) > 20
    assert broken_directions(ALL_IMPORTS) == []


@pytest.mark.parametrize(
    ("path", "source", "broken"),
    [
        ("envs/new.py", "from workbench.running.trainer import Trainer", True),
        ("envs/new.py", "from .. import running", True),
        ("envs/new.py", "def late():\n    from workbench import running", True),
        ("envs/new.py", "import workbench.errors\nfrom .base import TeamEnv\nfrom workbench import theory", False),
        ("running/trainer.py", "def replay(self):\n    from workbench.jupyter import replay", False),
        ("running/trainer.py", "from workbench.jupyter import replay", True),
        ("running/checkpoint.py", "import workbench", True),
        ("running/checkpoint.py", "from workbench import __version__", False),
    ],
)
def test_the_direction_test_bites(path: str, source: str, broken: bool) -> None:
    assert bool(broken_directions(list(imports_of(PACKAGE / path, source)))) is broken


def test_the_architecture_page_shows_this_map() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*?) ?\|$", page, re.MULTILINE)
    assert [module for module, _, _ in rows] == list(LAYERS)
    also = {module: extra for module, _, extra in rows}
    untold = [
        f"{layer}: {package}"
        for package, layers in CONFINED.items()
        for layer in layers
        if not re.search(rf"\b{package}\b", also[layer], re.IGNORECASE)
    ]
    assert untold == []
    assert {layer for layer, extra in also.items() if "within" in extra} == set(SHOW_THEMSELVES)


def test_packages_are_imported_only_where_they_belong() -> None:
    strays = [str(each) for each in ALL_IMPORTS if each.layer not in CONFINED.get(each.target, {each.layer})]
    assert strays == []


def test_theory_needs_numpy_only() -> None:
    standard = sys.stdlib_module_names | {"errors", "theory"} | THEORY_NEEDS
    strays = [str(each) for each in ALL_IMPORTS if each.layer == "theory" and each.target not in standard]
    assert strays == []


def test_importing_the_package_loads_nothing_of_the_notebook() -> None:
    code = f"import sys, workbench; print(*(name for name in {NOT_AT_IMPORT!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.split() == []


def test_no_file_is_too_long_to_read(tracked: list[Path]) -> None:
    code = [path for path in tracked if path.suffix in {".py", ".js", ".css"} or path.name == "Makefile"]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in code}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_every_exception_to_the_rules_of_style_says_why(tracked: list[Path]) -> None:
    marks = [
        f"{path.relative_to(ROOT)}:{n}"
        for path in tracked
        if path.suffix == ".py"
        for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"# noq[a](?!: [A-Z]+\d+(?:, [A-Z]+\d+)* - \w)", line)
    ]
    assert marks == []


# Written so that the patterns do not find themselves. Homes, work folders and temporary files are one machine's own.
MACHINE_PATH = re.compile(
    r"(?<![\w.~$}-])/(?:wor[k]|roo[t]|hom[e]|User[s]|tm[p]|privat[e])/\w[\w./-]*|\b[A-Z]:\\Users\\"
)


def test_no_file_names_a_path_of_one_machine(tracked: list[Path]) -> None:
    found = []
    for path in tracked:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # pictures
        found += [
            f"{path.relative_to(ROOT)}:{n}: {hit[0]}"
            for n, line in enumerate(lines, 1)
            for hit in MACHINE_PATH.finditer(line)
        ]
    assert found == []


def test_the_machine_path_pattern_bites() -> None:
    assert MACHINE_PATH.search('File "/' + "home/someone/project/run.py")
    assert MACHINE_PATH.search("see /" + "tmp/ipykernel_12/34.py:5")
    assert not MACHINE_PATH.search("an address https://example.org/home/page or data/tmp/x")
