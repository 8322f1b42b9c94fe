"""What is installed without the repository: the wheel, the source archive, and the tutorials in both."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from workbench.__main__ import main
from workbench.commands import tutorials


@pytest.fixture(scope="module")
def built(tracked: list[Path], root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a wheel and a source archive, made from the files under version control."""
    tree = tmp_path_factory.mktemp("tree")
    for path in tracked:
        place = tree / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    code = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, check=True)
    return tree / "dist"


def test_the_wheel_has_code_tutorials_and_all_that_pages_need(built: Path, tracked: list[Path], root: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        licence = next(name for name in names if name.endswith("LICENSE"))
        assert wheel.read(licence).startswith(b"MIT License")
    of_package = {str(path.relative_to(root)) for path in tracked if path.is_relative_to(root / "workbench")}
    assert of_package - names == set()
    packed = {
        f"workbench/_tutorials/{path.relative_to(root)}" for path in tutorials.files_below(root) if path in tracked
    }
    assert len(packed) > 10
    assert packed - names == set()
    assert {name.split("/")[0] for name in names} == {
        "workbench",
        next(iter(built.glob("*.whl"))).name.split("-py3")[0] + ".dist-info",
    }


def test_the_source_archive_has_what_its_tests_need(built: Path, tracked: list[Path], root: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = {str(path.relative_to(root)) for path in tracked} - names
    assert missing <= {".gitignore"}


def test_the_data_that_notebooks_read_go_with_them(root: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in tutorials.files_below(root) if path.suffix == ".ipynb"]
    read = {name for text in texts for name in re.findall(r"\.\./data/(\w+)", text)}
    assert read - {"scratch"} == set(tutorials.DATA)


def test_the_command_copies_the_tutorials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "my tutorials"
    assert main(["notebooks", str(target)]) == 0
    printed = capsys.readouterr().out
    notebooks = sorted(target.glob("notebooks/*.ipynb"))
    assert f"{len(notebooks)} notebooks copied" in printed
    assert f'jupyter lab "{target / tutorials.FIRST}"' in printed
    assert (target / tutorials.FIRST).is_file()
    assert (target / "data" / "learning" / "halfcheetah_2x3_happo.csv").is_file()


def test_what_somebody_has_worked_on_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tutorials.copy(tmp_path)
    mine = tmp_path / tutorials.FIRST
    mine.write_text("mine", encoding="utf-8")
    main(["notebooks", str(tmp_path)])
    assert mine.read_text(encoding="utf-8") == "mine"
    assert f"left alone, since it was changed: {mine}" in capsys.readouterr().out


def test_a_package_without_tutorials_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tutorials, "__file__", str(tmp_path / "workbench" / "commands" / "tutorials.py"))
    with pytest.raises(FileNotFoundError, match="install it again"):
        tutorials.home()
    packed = tmp_path / "workbench" / tutorials.PACKED / tutorials.FIRST
    packed.parent.mkdir(parents=True)
    packed.write_text(json.dumps({"cells": []}), encoding="utf-8")
    copied, kept = tutorials.copy(tmp_path / "copy")
    assert [path.name for path in copied] == ["01_quickstart.ipynb"]
    assert kept == []


def test_where_nothing_can_be_written_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no directory", encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["notebooks", str(tmp_path / "file")])
    assert "file" in capsys.readouterr().err.splitlines()[-1]
