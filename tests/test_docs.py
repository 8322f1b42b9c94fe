"""The pages in docs/ do what they say: their Python runs as written, with the results they show."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

DOCS = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_its_python_runs_with_the_results_shown(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # Blocks in their places, all else blank, so that a failure names the line in the page.
    parts, line = [], 0
    for block in BLOCK.finditer(text):
        start = text.count("\n", 0, block.start(1))
        parts.append("\n" * (start - line) + block[1])
        line = start + block[1].count("\n")
    examples = doctest.DocTestParser().get_doctest("".join(parts), {}, page.name, str(page), 0)
    failures: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(examples, out=failures.append)
    assert not failures, "".join(failures)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page: Path) -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / path).exists(), path
