"""Parameter values: plain data only, checked against what the notebook declares, and named by a hash."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from workbench.sweeps.files import json_value

Parameters = Mapping[str, Any]  # plain values by name; which kind each is of, the notebook says

IDENTIFYING = ("method", "scenario", "agent_conf")  # parameters by which people tell runs apart, where there are such

CONTAINERS: Mapping[str, type] = {"list": list, "tuple": tuple, "Sequence": list, "List": list, "Tuple": tuple}
SCALARS: Mapping[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "dict": dict, "Dict": dict}
EXPECTED = {int: "an integer", float: "a number", str: "text", bool: "True or False", dict: "a dict"}

INTERVAL = re.compile(r"in\s*(?P<left>[\[(])\s*(?P<low>[^,\s]+)\s*,\s*(?P<high>[^\])\s]+)\s*(?P<right>[\])])")
BOUND = re.compile(r"(?P<sign>>=|<=|≥|≤|>|<)\s*(?P<bound>[-+.\w∞]+)")
CHOICE = re.compile(r"one of\s+(?P<names>[^;:.]+)")
SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "≥": operator.ge,
    "≤": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


class ParameterError(ValueError):
    """A value that is not of the kind declared; the message says what was expected."""


def plain(value: object) -> object:
    """``value`` as None, bool, int, float, str, or lists, tuples and dictionaries of those.

    NumPy's become Python's, and paths text. Only such values reach a notebook, written as literals: nothing in them is
    ever executed.

    >>> plain({"sizes": np.array([64, 64]), "lr": np.float32(0.5), "order": (np.int64(1), 0)})
    {'sizes': [64, 64], 'lr': 0.5, 'order': (1, 0)}
    """
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isnan(value):
        raise ParameterError("a number; NaN equals nothing, not even itself")
    for kind in (int, float, str):
        if isinstance(value, kind):  # enumerations and the like lose what they are beyond it
            return kind(value)
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else [plain(item) for item in value]
    if isinstance(value, range):
        return list(value)
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise ParameterError("a dictionary whose keys are text")
        return {str(name): plain(item) for name, item in value.items()}
    raise ParameterError("None, True or False, a number, text, or a list, tuple or dictionary of those")


def annotation(text: str) -> ast.expr:
    """A type annotation, parsed and never evaluated."""
    return ast.parse(text, mode="eval").body


def fit(value: object, kind: ast.expr) -> object:
    """A plain value as the kind that an annotation names; raises ``ParameterError``. Unknown kinds take anything.

    Whole floats are integers where one is asked for (1e6), integers are floats, lists and tuples are each other.
    """
    if isinstance(kind, ast.Constant) and isinstance(kind.value, str):
        return fit(value, annotation(kind.value))
    if isinstance(kind, ast.Constant) and kind.value is None:
        if value is not None:
            raise ParameterError("None")
        return None
    if isinstance(kind, ast.BinOp) and isinstance(kind.op, ast.BitOr):
        return _one_of_kinds(value, [kind.left, kind.right])
    inner = kind.slice if isinstance(kind, ast.Subscript) else None
    inners = inner.elts if isinstance(inner, ast.Tuple) else [] if inner is None else [inner]
    named = kind.value if isinstance(kind, ast.Subscript) else kind
    name = named.attr if isinstance(named, ast.Attribute) else getattr(named, "id", "")
    if inners and name in ("Optional", "Union"):
        return _one_of_kinds(value, [*inners, ast.Constant(None)] if name == "Optional" else inners)
    if inners and name == "Literal":
        allowed = [ast.literal_eval(each) for each in inners]
        if not any(value == each and type(value) is type(each) for each in allowed):
            raise ParameterError(f"one of {', '.join(map(repr, allowed))}")
        return value
    if name in CONTAINERS:
        return _container(value, CONTAINERS[name], inners)
    return _scalar(value, SCALARS[name]) if name in SCALARS else value


def _scalar(value: object, kind: type) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind in (int, float) and isinstance(value, str) and _number(value) is not None:
        raise ParameterError("a number, and this is text (in YAML, write 1.0e-3 instead of 1e-3)")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ParameterError(EXPECTED[kind])
    return value


def _container(value: object, kind: type, inners: Sequence[ast.expr]) -> object:
    if not isinstance(value, list | tuple):
        raise ParameterError(f"a {kind.__name__}, such as {'(64, 64)' if kind is tuple else '[64, 64]'}")
    if not inners:
        return kind(value)
    any_length = isinstance(inners[-1], ast.Constant) and inners[-1].value is ...
    if kind is not tuple:
        any_length = any_length or len(inners) == 1
    if not any_length and len(value) != len(inners):
        raise ParameterError(f"{len(inners)} values")
    kinds = [inners[0]] * len(value) if any_length else inners
    try:
        return kind(fit(item, each) for item, each in zip(value, kinds, strict=True))
    except ParameterError as error:
        raise ParameterError(f"a {kind.__name__} of: {error}") from None


def _one_of_kinds(value: object, kinds: Sequence[ast.expr]) -> object:
    expected, fitting = [], []
    for kind in kinds:
        try:
            fitting.append(fit(value, kind))
        except ParameterError as error:
            expected.append(str(error))
    if not fitting:
        raise ParameterError(", or ".join(expected))
    # 1 stays 1 in ``int | float``, and 1.0 stays 1.0: what is unchanged comes before what was converted.
    return next((each for each in fitting if each == value and type(each) is type(value)), fitting[0])


def expected_by(comment: str, value: object) -> str | None:
    """What a parameter's comment says of its range, if the value is a number outside of it.

    Read at the comment's beginning: ``in (0, 1)`` with round or square brackets, or ``≥ 1`` and the like.

    >>> expected_by("in (0, 1): clip ε", 1.5)
    'a number in (0, 1)'
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if found := INTERVAL.match(comment.strip()):
        low, high = _number(found["low"]), _number(found["high"])
        if low is None or high is None:
            return None
        above = low <= value if found["left"] == "[" else low < value
        below = value <= high if found["right"] == "]" else value < high
        return None if above and below else f"a number in {found[0].removeprefix('in').strip()}"
    if found := BOUND.match(comment.strip()):
        bound, sign = _number(found["bound"]), {">=": "≥", "<=": "≤"}.get(found["sign"], found["sign"])
        return None if bound is None or SIGNS[sign](value, bound) else f"a number {sign} {found['bound']}"
    return None


def choices(comment: str) -> list[str]:
    """The names that a parameter's comment allows, where it begins with ``one of a, b or c``; else none, as of prose.

    >>> choices("one of happo, hatrpo or mappo: the method")
    ['happo', 'hatrpo', 'mappo']
    """
    found = CHOICE.match(comment.strip())
    names = re.split(r",|\bor\b", re.sub(r"\([^)]*\)?", "", found["names"])) if found else []
    stripped = [name.strip().strip("'\"") for name in names if name.strip()]
    return stripped if len(stripped) > 1 and not any(" " in name for name in stripped) else []


def _number(text: str) -> float | None:
    try:
        return float(text.replace("∞", "inf").replace("_", ""))
    except ValueError:
        return None


def canonical(parameters: Parameters) -> dict[str, object]:
    """What stands for parameters where equality counts: a tuple is a list, an infinity its name."""
    found: dict[str, object] = json_value(parameters, name_infinities=True)
    return found


def digest(parameters: Parameters) -> str:
    """16 hexadecimal digits that name parameters, whatever their order."""
    text = json.dumps(canonical(parameters), sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def size_of(parameters: Parameters) -> float:
    """By what the cost of a run is reckoned: its env steps, or 1 where it does not say."""
    steps = parameters.get("env_steps")
    return float(steps) if isinstance(steps, int | float) and steps > 0 else 1.0


def short(value: object) -> str:
    """A value for a table or a legend.

    >>> short(0.05), short((0, 1)), short(None), short("random")
    ('0.05', '(0, 1)', 'None', 'random')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)
