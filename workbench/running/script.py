"""A run as Python: what was done by hand, written so that a fresh process ends in the same fingerprint.

``State.changes`` holds what was done, and a rewind takes it back with everything else. Each of its rows has

    iteration, phase, position   where the cursor stood
    name                         the setting that was changed, "fork", "start" or "load"
    value                        its new value, as Python has it; "" for none
    gap                          why it cannot be written; "" where it can
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from workbench.envs.base import TeamEnv
from workbench.learning.settings import Settings
from workbench.learning.state import Setup, State

WIDTH = 100
FORK = "fork"
Row = dict[str, Any]


def noted(state: State, name: str, value: object = None, gap: str = "") -> State:
    """``state`` that remembers what was done to it here."""
    written = "" if gap or name == FORK else literal(value)
    if callable(value):
        rule = getattr(value, "__qualname__", repr(value))
        written, gap = "", f"{name} was the function {rule}, which stands in code of its own: give it to the trainer"
    where: Row = {"iteration": state.iteration, "phase": state.phase, "position": state.position}
    return replace(state, changes=state.changes.append({**where, "name": name, "value": written, "gap": gap}))


def script(setup: Setup, state: State, made_with: Mapping[str, Any], fingerprint: str) -> str:
    """The run as Python."""
    lines = ["import workbench as wb", "", *_environment(setup.env), *_recipe(setup, made_with)]
    rows, reached = list(state.changes), 0
    n_phases = len(setup.team.units) + 3
    while rows:
        row = rows.pop(0)
        now = _phases_done(row["iteration"], row["phase"], row["position"], n_phases)
        lines += _advance(reached, now, n_phases)
        reached = now
        if row["gap"]:
            lines += _gap(row["gap"])
        elif row["name"] == FORK:
            lines.append(_call("trainer = trainer.fork", _changes_of_a_fork(row, rows)))
        else:
            lines.append(f"trainer.{row['name']} = {row['value']}")
    lines += _advance(reached, _phases_done(state.iteration, state.phase, state.position, n_phases), n_phases)
    return "\n".join([*lines, f"print(trainer.fingerprint())  # {fingerprint}", ""])


def literal(value: object) -> str:
    """A plain value as Python: strings in double quotes, numbers that round-trip.

    >>> literal({"healthy_z_range": (0.7, math.inf), "order": "random"})
    '{"healthy_z_range": (0.7, float("inf")), "order": "random"}'
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(literal, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


def _call(name: str, keywords: Mapping[str, str], *positional: str) -> str:
    """``name(positional, keyword=…)``, one argument a line where one line is too short for them."""
    arguments = [*positional, *(f"{keyword}={value}" for keyword, value in keywords.items())]
    line = f"{name}({', '.join(arguments)})"
    return line if len(line) <= WIDTH else "\n    ".join([f"{name}(", *(f"{each}," for each in arguments)]) + "\n)"


def _gap(reason: str) -> list[str]:
    """What a script cannot say: the reason, and a line that stops it there."""
    reason = reason[:1].upper() + reason[1:]
    return [f"# {reason}.", f"raise NotImplementedError({literal(reason + '.')})"]


def _environment(env: TeamEnv) -> list[str]:
    if env.description is None:
        return [*_gap(f"{type(env).__name__} has no description to be made from: make it here, as env"), "env = ..."]
    options = dict(env.description)
    kind = options.pop("kind")
    if kind == "tabular":
        game = {name: literal(value) for name, value in options.pop("game").items() if value != ""}
        defaults = {"max_episode_steps": None, "end_at_absorbing": True}
        kept = {name: literal(value) for name, value in options.items() if (name, value) not in defaults.items()}
        return [_call("game = wb.theory.TabularGame", game), _call("env = wb.envs.tabular", kept, "game")]
    if kind == "mujoco":
        scenario, agent_conf = literal(options.pop("scenario")), literal(options.pop("agent_conf"))
        return [_call("env = wb.envs.mujoco", {k: literal(v) for k, v in options.items()}, scenario, agent_conf)]
    return [_call("env = wb.envs.make", {k: literal(v) for k, v in options.items()}, literal(kind))]


def _recipe(setup: Setup, made_with: Mapping[str, Any]) -> list[str]:
    """The trainer's making, with no setting that it would have had anyway."""
    kind, gaps = setup.method.settings, []
    given = dict(made_with)
    if isinstance(given["order"], dict):
        rule = given.pop("order")["callable"]
        gaps = _gap(f"order was the function {rule}, which stands in code of its own: give it to the trainer")
    settings = kind(**given)
    own = {f.name: getattr(settings, f.name) for f in dataclasses.fields(kind)}
    own = {f.name: own[f.name] for f in dataclasses.fields(kind) if own[f.name] != f.default}
    for name in tuple(own):
        fewer = {each: value for each, value in own.items() if each != name}
        if _same(kind, setup.method.name, fewer, settings):
            own = fewer
    keywords = {"seed": literal(setup.streams.seed), **{name: literal(value) for name, value in own.items()}}
    return [*gaps, _call(f"trainer = wb.{setup.method_name}", keywords, "env")]


def _same(kind: type[Settings], method: str, options: Mapping[str, object], settings: Settings) -> bool:
    """Whether ``options`` alone make ``settings``, on a machine with another number of threads too."""
    try:
        return "threads" in options and kind.make(method, options) == settings
    except ValueError:
        return False


def _changes_of_a_fork(fork: Row, rows: list[Row]) -> dict[str, str]:
    """The changes that were made at once, as keywords; taken out of ``rows``."""
    changes: dict[str, str] = {}
    where = ("iteration", "phase", "position")
    while rows and all(rows[0][name] == fork[name] for name in where):
        if rows[0]["gap"] or rows[0]["name"] in (FORK, *changes):
            break
        row = rows.pop(0)
        changes[row["name"]] = row["value"]
    return changes


def _phases_done(iteration: int, phase: str, position: int, n_phases: int) -> int:
    """How many phases lie before a cursor."""
    within = {"collect": 0, "estimate": 1, "update_agent": 2 + position, "update_critic": n_phases - 1}
    return iteration * n_phases + within[phase]


def _advance(start: int, end: int, n_phases: int) -> Sequence[str]:
    """From one number of phases to another, as a person would write it."""
    lines = []
    if start % n_phases and end // n_phases > start // n_phases:
        lines.append("trainer.iterate()")
        start += -start % n_phases
    whole, steps = (end - start) // n_phases if start % n_phases == 0 else 0, (end - start) % n_phases
    if whole:
        lines.append("trainer.iterate()" if whole == 1 else f"trainer.run(iterations={whole})")
    if steps == 1:
        lines.append("trainer.step()")
    elif steps:
        lines += [f"for _ in range({steps}):", "    trainer.step()"]
    return lines
