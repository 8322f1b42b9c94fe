"""A sweep written down in a file: what ``python -m workbench sweep spec.yaml`` reads.

    notebook: ../notebooks/experiment.ipynb
    directory: ../data/sweeps/orders
    fixed: {scenario: HalfCheetah, agent_conf: 2x3, env_steps: 300000}
    grid:
      order: [random, fixed, reversed]
    seeds: [0, 1, 2, 3, 4]
    workers: 2

The keys are the arguments of ``wb.Sweep``, and of its ``run``: ``workers`` or ``scheduler``. Paths are relative to the
file. TOML (``spec.toml``) has the same keys.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import yaml

from workbench.errors import path_of, unknown_name
from workbench.sweeps.files import Json
from workbench.sweeps.sweep import Sweep

WHERE = ("workers", "scheduler")
NEEDED = ("notebook", "directory")


class _OnceLoader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML without objects, in which a key that stands twice is refused instead of the first being dropped."""


def _once(loader: _OnceLoader, node: yaml.MappingNode) -> dict[Hashable, object]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    repeated = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
    if repeated is not None:
        raise ValueError(f"the key {repeated!r} stands there twice (line {node.start_mark.line + 1} and after)")
    found: dict[Hashable, object] = yaml.SafeLoader.construct_mapping(loader, node, deep=True)
    return found


_OnceLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _once)


def read_spec(path: str | Path) -> tuple[Sweep, Json]:
    """The sweep that a file describes, and where it is to run: {"workers": …} or {"scheduler": …}.

    Raises ``FileNotFoundError``, or ``ValueError`` for what it does not understand.
    """
    path = path_of("spec", path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r} to read a sweep from.")
    given = parse(path)
    known = [name for name in inspect.signature(Sweep).parameters if name != "self"]
    check_keys(f"key of {path.name}", given, [*known, *WHERE])
    for name in NEEDED:
        if not isinstance(given.get(name), str):
            raise ValueError(f"{path.name} has no {name}, or not as text; expected a path relative to the file.")
    where = {name: given.pop(name) for name in WHERE if name in given}
    paths = {name: path.parent / given.pop(name) for name in NEEDED}
    return Sweep(paths["notebook"], directory=paths["directory"], **given), where


def check_keys(what: str, given: Iterable[str], known: Sequence[str]) -> None:
    """``UnknownNameError`` for a key that is none of those known."""
    for name in given:
        if name not in known:
            raise unknown_name(what, name, known)


def parse(path: Path) -> Json:
    """The keys of a .yaml or .toml file; ``ValueError`` for what is neither, or holds none."""
    if path.suffix not in (".yaml", ".yml", ".toml"):
        raise ValueError(f"{path.name} is neither .yaml nor .toml; expected one of them.")
    text = path.read_text(encoding="utf-8")
    try:
        found = tomllib.loads(text) if path.suffix == ".toml" else yaml.load(text, _OnceLoader)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path.name} cannot be read: {' '.join(str(error).split())}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no keys; expected at least {' and '.join(NEEDED)}.")
    return found
