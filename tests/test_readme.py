"""The README does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_its_python_runs_as_written(code, capsys):
    names: dict[str, object] = {}
    exec(code, names)
    trainer, fork = names["trainer"], names["fork"]
    assert trainer.iteration == fork.iteration == 1
    assert fork.steered
    assert "effective_sample_size" in capsys.readouterr().out


def test_its_map_names_every_module():
    package = Path(__file__).parent.parent / "workbench"
    modules = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    map_ = README.split("## Map")[1].split("## Further")[0]
    missing = {name for name in modules if not name.startswith("_") and not re.search(rf"\b{name}\b", map_)}
    assert not missing


def test_its_files_are_there():
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).parent.parent / path).exists(), path
