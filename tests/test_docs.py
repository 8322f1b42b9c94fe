"""The pages in docs/ do what they say: their Python runs as written, with the results they show, and they build."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from mutants import MUTANTS

import workbench as wb
from workbench.running import methods as recipes

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
IDENTIFIER = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT / "docs").with_suffix(""))


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_its_python_runs_with_the_results_shown(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "METHODS", dict(recipes.METHODS))  # a page may register one
    text = page.read_text(encoding="utf-8")
    # Blocks in their places, all else blank, so that a failure names the line in the page.
    parts, line = [], 0
    for block in BLOCK.finditer(text):
        start = text.count("\n", 0, block.start(1))
        parts.append("\n" * (start - line) + block[1])
        line = start + block[1].count("\n")
    examples = doctest.DocTestParser().get_doctest("".join(parts), {"__name__": "page"}, page.name, str(page), 0)
    failures: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(examples, out=failures.append)
    assert not failures, "".join(failures)


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_its_links_lead_somewhere(page: Path) -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / path).exists(), path


@pytest.mark.parametrize("page", ["reliability.md", "faq.md"])
def test_the_number_of_known_faults_is_true(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert set(map(int, re.findall(r"(\d+) (?:known )?faults", text))) == {len(MUTANTS)}


def test_every_tutorial_is_on_the_first_page() -> None:
    listed = re.findall(r"^\| `(\d\d_\w+)` \|", (ROOT / "docs/index.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))


# ---- the built documentation ----


def test_it_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    reference = (tmp_path / "site" / "api" / "trainers.html").read_text(encoding="utf-8")
    assert "E[min(r·M, clip(r, 1 ± ε)·M)]" in reference, "the docstrings are not in it"
    pages = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html"))
    fetched = re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["'](?:https?:)?//[^"']+""", pages)
    assert fetched == [], "reading a page must fetch nothing from another host"


def test_every_page_is_in_the_navigation() -> None:
    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for inner in (entry.values() if isinstance(entry, dict) else entry) for page in pages(inner)]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(listed) == sorted(f"{name_of(page)}.md" for page in DOCS)


def public(module: ModuleType) -> set[str]:
    """The full names of a module's public classes, functions and constants, where they are defined."""
    found = {name: getattr(module, name) for name in module.__all__}
    return {name for name, value in found.items() if not isinstance(value, ModuleType | str)}


@pytest.mark.parametrize("name", ["workbench", "workbench.envs", "workbench.theory", "workbench.statistics"])
def test_the_reference_has_every_public_name(name: str) -> None:
    # Plain arrays and mappings, which an environment's author never makes, are described where they occur.
    described = {"Actions", "Snapshot"}
    listed = [path for page in (ROOT / "docs/api").glob("*.md") for path in IDENTIFIER.findall(page.read_text("utf-8"))]
    module = wb if name == "workbench" else importlib.import_module(name)
    assert public(module) - {path.rsplit(".", 1)[1] for path in listed} - described == set()


def test_the_reference_has_every_view() -> None:
    page = (ROOT / "docs/api/views.md").read_text(encoding="utf-8")
    assert public(wb.views) - {path.rsplit(".", 1)[1] for path in IDENTIFIER.findall(page)} == set()


def test_docstrings_become_markdown() -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.as_markdown("Of ``x``.\n\n    y = x") == "Of `x`.\n\n    y = x"
    assert hooks.as_markdown(">>> twice(2)\n4") == "```python\n>>> twice(2)\n4\n```"
    assert hooks.as_markdown("x  a ``number``\ny  another") == "```text\nx  a number\ny  another\n```"
    assert hooks.as_markdown("- a  list\n- of two") == "- a  list\n- of two"
