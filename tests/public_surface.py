"""The public surface: every public name, with the parameters that a call of it may be written with.

    python tests/public_surface.py > tests/public_surface.txt

The record is what the last release had; ``test_public_names`` holds the code to it. A name may be added freely; one may
be taken out of the record only with a line in the changelog that says what to write instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import workbench as wb

STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
METHODS = ("happo", "hatrpo", "haa2c", "mappo", "ippo", "shared_ppo")


def parameters(function: Any) -> list[str]:
    """``name``, ``name=`` where it has a default, ``*name`` and ``**name``; keyword-only ones after a lone ``*``."""
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        default = "" if parameter.default is inspect.Parameter.empty else "="
        found.append(STARS.get(parameter.kind, "") + parameter.name + default)
    return found


def called(name: str, value: Any) -> str:
    """``name(parameters)``, or the name alone of what is not called."""
    if (inspect.isroutine(value) and callable(value)) or (inspect.isclass(value) and not issubclass(value, Exception)):
        return f"{name}({', '.join(parameters(value))})"
    return name


def members(name: str, kind: type) -> Iterator[str]:
    """A class's own public attributes and methods."""
    for member in sorted(dir(kind)):
        value = getattr(kind, member)
        ours = "workbench" in (getattr(value, "__module__", None) or "workbench")
        if not member.startswith("_") and (ours or not callable(value)):
            yield called(f"{name}.{member}", value)


def surface() -> Iterator[str]:
    """All of it, a line each."""
    spaces = {"wb": wb, "wb.envs": wb.envs, "wb.theory": wb.theory, "wb.statistics": wb.statistics}
    for space, module in {**spaces, "wb.views": wb.views, "wb.errors": wb.errors}.items():
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        for name in sorted(getattr(module, "__all__", own)):
            value = getattr(module, name)
            if name.startswith("_") or inspect.ismodule(value):
                continue
            yield called(f"{space}.{name}", value)
            if inspect.isclass(value) and not issubclass(value, Exception):
                yield from members(f"{space}.{name}", value)
    env = wb.envs.mujoco("HalfCheetah", "2x3", n_envs=1)
    yield from members("trainer", type(wb.happo(env)))
    yield from members("env", type(env))
    for method in METHODS:
        yield from (f"{method}.{option}" for option in sorted(wb.options(method)))


if __name__ == "__main__":
    print("\n".join(dict.fromkeys(surface())))
