"""What pyproject.toml cannot say: the tutorials lie beside the package, and are built into it."""

from __future__ import annotations

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
TUTORIALS = runpy.run_path(str(ROOT / "workbench" / "commands" / "tutorials.py"))


class BuildWithTutorials(build_py):
    """Copies the package, then the tutorials and their data into it."""

    def _tutorials(self) -> dict[Path, Path]:
        if self.editable_mode:
            return {}  # a checkout has them where they are
        packed = Path(self.build_lib) / "workbench" / TUTORIALS["PACKED"]
        return {path: packed / path.relative_to(ROOT) for path in TUTORIALS["files_below"](ROOT)}

    def run(self) -> None:
        super().run()
        for source, target in self._tutorials().items():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target), preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *map(str, self._tutorials().values())]


setup(cmdclass={"build_py": BuildWithTutorials})
