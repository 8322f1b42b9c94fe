"""The tutorials, copied to where one works on them: ``python -m workbench notebooks DIRECTORY``."""

# Needs the standard library only: setup.py runs this file to see what belongs into an installed package.

from __future__ import annotations

import shutil
from pathlib import Path

FIRST = "notebooks/01_quickstart.ipynb"
DATA = ("learning", "results", "tuning", "walker2d")  # what the tutorials read, beside what they make themselves
PACKED = "_tutorials"  # within an installed package


def files_below(root: Path) -> list[Path]:
    """The tutorials below a checkout or a package, and the data that they read."""
    notebooks = [path for path in root.glob("notebooks/*.ipynb") if not path.name.endswith(".partial.ipynb")]
    data = [path for name in DATA for path in (root / "data" / name).rglob("*") if path.is_file()]
    return sorted(notebooks) + sorted(data)


def home() -> Path:
    """Where the tutorials lie: within the package where it was installed, around it in a checkout."""
    package = Path(__file__).parent.parent
    for root in (package / PACKED, package.parent):
        if (root / FIRST).is_file():
            return root
    raise FileNotFoundError(f"{FIRST} comes with neither this package nor a checkout around it; install it again.")


def copy(directory: str | Path) -> tuple[list[Path], list[Path]]:
    """Copy the tutorials to ``directory``, where they find their data; returns (what was copied, what was left alone).

    A file that is there already and differs is left alone: somebody has worked on it.
    """
    root, target = home(), Path(directory).expanduser()
    copied, kept = [], []
    for source in files_below(root):
        place = target / source.relative_to(root)
        if place.exists() and place.read_bytes() != source.read_bytes():
            kept.append(place)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        copied.append(place)
    return copied, kept
