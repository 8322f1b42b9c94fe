"""Every mutant applies, and is caught: all of them under ``make stress``, a few here."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants import MUTANTS, ROOT, caught_by, copy_sources

NAMED = {mutant.name: mutant for mutant in MUTANTS}
FEW = ["unweight the discrete KL", "let the advantage run over an episode's end"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("mutants"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_applies_to_the_code_as_it_is(mutant):
    assert (ROOT / "workbench" / mutant.path).read_text(encoding="utf-8").count(mutant.old) == 1
    assert all((ROOT / "tests" / name).exists() for name in mutant.tests.split())


@pytest.mark.parametrize("name", FEW)
def test_a_few_mutants_are_caught(name, sources):
    assert caught_by(NAMED[name], sources)


@pytest.mark.stress
@pytest.mark.parametrize("name", [name for name in NAMED if name not in FEW])
def test_every_mutant_is_caught(name, sources):
    assert caught_by(NAMED[name], sources)
