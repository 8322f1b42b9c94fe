"""What is written down of sweeps in .yaml and .toml files: keys and values, nothing that could be executed."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Hashable, Iterable
from pathlib import Path

import yaml

from workbench.errors import unknown_name
from workbench.sweeps.files import Json


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


def check_keys(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """``UnknownNameError`` for a key that is not known."""
    for name in given:
        if name not in known:
            raise unknown_name(what, name, known)


def parse(path: Path) -> Json:
    """The keys of a .yaml or .toml file; ``ValueError`` for what is neither, or holds none."""
    if path.suffix not in (".yaml", ".yml", ".toml"):
        raise ValueError(f"{path.name} is neither .yaml nor .toml; expected one of them.")
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else yaml.load(text, _OnceLoader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path.name} cannot be read: {' '.join(str(error).split())}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no keys; expected at least notebook and directory.")
    return found
