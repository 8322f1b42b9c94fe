"""Parameter values: plain data only, checked against what the notebook declares, and named by a hash."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

CONTAINERS: Mapping[str, type] = {"list": list, "tuple": tuple, "Sequence": list, "List": list, "Tuple": tuple}
SCALARS: Mapping[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "dict": dict, "Dict": dict}

INTERVAL = re.compile(r"in\s*(?P<left>[\[(])\s*(?P<low>[^,\s]+)\s*,\s*(?P<high>[^\])\s]+)\s*(?P<right>[\])])")
BOUND = re.compile(r"(?P<sign>>=|<=|≥|≤|>|<)\s*(?P<bound>[-+.\w∞]+)")
CHOICE = re.compile(r"one of\s+(?P<names>[^;:.]+)")


class Misfit(ValueError):  # noqa: N818 - what is found, not how it is told
    """A value that is not of the kind declared; the message says what was expected."""


def plain(value: Any) -> Any:
    """``value`` as None, bool, int, float, str, or lists, tuples and dictionaries of those; NumPy's become Python's.

    Only such values reach a notebook, written as literals: nothing in them is ever executed.

    >>> plain({"sizes": np.array([64, 64]), "lr": np.float32(0.5), "order": (np.int64(1), 0)})
    {'sizes': [64, 64], 'lr': 0.5, 'order': (1, 0)}
    """
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isnan(value):
        raise Misfit("a number; NaN equals nothing, not even itself")
    for kind in (int, float, str):
        if isinstance(value, kind):  # enumerations and the like lose what they are beyond it
            return kind(value)
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else [plain(item) for item in value]
    if isinstance(value, range):
        return list(value)
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise Misfit("a dictionary whose keys are text")
        return {str(name): plain(item) for name, item in value.items()}
    raise Misfit("None, True or False, a number, text, or a list, tuple or dictionary of those")


def annotation(text: str) -> ast.expr:
    """A type annotation, parsed and never evaluated."""
    return ast.parse(text, mode="eval").body


def fit(value: Any, kind: ast.expr) -> Any:
    """A plain value as the kind that an annotation names; raises ``Misfit``. Kinds that are not known take anything.

    Whole floats are integers where one is asked for (1e6), integers are floats, lists and tuples are each other.
    """
    if isinstance(kind, ast.Constant) and isinstance(kind.value, str):
        return fit(value, annotation(kind.value))
    if isinstance(kind, ast.Constant) and kind.value is None:
        if value is not None:
            raise Misfit("None")
        return None
    if isinstance(kind, ast.BinOp) and isinstance(kind.op, ast.BitOr):
        return _one_of_kinds(value, [kind.left, kind.right])
    if isinstance(kind, ast.Subscript):
        return _subscripted(value, _name(kind.value), kind.slice)
    name = _name(kind)
    if name in SCALARS:
        return _scalar(value, SCALARS[name])
    if name in CONTAINERS:
        return _container(value, CONTAINERS[name], None)
    return value


def _name(kind: ast.expr) -> str:
    return kind.attr if isinstance(kind, ast.Attribute) else getattr(kind, "id", "")


def _subscripted(value: Any, name: str, inner: ast.expr) -> Any:
    inners = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name == "Optional":
        return _one_of_kinds(value, [inner, ast.Constant(None)])
    if name == "Union":
        return _one_of_kinds(value, inners)
    if name == "Literal":
        allowed = [ast.literal_eval(each) for each in inners]
        if not any(value == each and type(value) is type(each) for each in allowed):
            raise Misfit(f"one of {', '.join(map(repr, allowed))}")
        return value
    if name in CONTAINERS:
        return _container(value, CONTAINERS[name], inners)
    if name in SCALARS:
        return _scalar(value, SCALARS[name])
    return value


def _scalar(value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind in (int, float) and isinstance(value, str) and _number(value) is not None:
        raise Misfit("a number, and this is text (in YAML, write 1.0e-3 instead of 1e-3)")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Misfit({int: "an integer", float: "a number", str: "text", bool: "True or False"}.get(kind, "a dict"))
    return value


def _container(value: Any, kind: type, inners: Sequence[ast.expr] | None) -> Any:
    if not isinstance(value, list | tuple):
        raise Misfit(f"a {kind.__name__}, such as {'(64, 64)' if kind is tuple else '[64, 64]'}")
    if inners is None:
        return kind(value)
    any_length = len(inners) == 1 or (isinstance(inners[-1], ast.Constant) and inners[-1].value is ...)
    if kind is tuple and not (isinstance(inners[-1], ast.Constant) and inners[-1].value is ...):
        any_length = False
    if not any_length and len(value) != len(inners):
        raise Misfit(f"{len(inners)} values")
    kinds = [inners[0]] * len(value) if any_length else inners
    try:
        return kind(fit(item, each) for item, each in zip(value, kinds, strict=True))
    except Misfit as error:
        raise Misfit(f"a {kind.__name__} of: {error}") from None


def _one_of_kinds(value: Any, kinds: Sequence[ast.expr]) -> Any:
    expected = []
    fitting = []
    for kind in kinds:
        try:
            fitting.append(fit(value, kind))
        except Misfit as error:
            expected.append(str(error))
    if not fitting:
        raise Misfit(", or ".join(expected))
    # 1 stays 1 in ``int | float``, and 1.0 stays 1.0: what is unchanged comes before what was converted.
    return next((each for each in fitting if each == value and type(each) is type(value)), fitting[0])


def range_check(comment: str) -> Callable[[Any], str | None] | None:
    """What a parameter's comment says of its range: a function from values to None or what was expected.

    Read at the comment's beginning: ``in (0, 1)`` with round or square brackets, or ``≥ 1`` and the like. None where it
    says nothing of the kind.

    >>> range_check("in (0, 1): clip ε")(1.5)
    'a number in (0, 1)'
    """
    text = comment.strip()
    if found := INTERVAL.match(text):
        low, high = _number(found["low"]), _number(found["high"])
        if low is None or high is None:
            return None
        left, right = found["left"] == "[", found["right"] == "]"
        expected = f"a number in {found[0].removeprefix('in').strip()}"
        return _holds(lambda x: (low <= x if left else low < x) and (x <= high if right else x < high), expected)
    if found := BOUND.match(text):
        bound = _number(found["bound"])
        if bound is None:
            return None
        tests: dict[str, Callable[[Any], bool]] = {
            "≥": lambda x: x >= bound,
            "≤": lambda x: x <= bound,
            ">": lambda x: x > bound,
            "<": lambda x: x < bound,
        }
        sign = {">=": "≥", "<=": "≤"}.get(found["sign"], found["sign"])
        return _holds(tests[sign], f"a number {sign} {found['bound']}")
    return None


def choices(comment: str) -> list[str]:
    """The names that a parameter's comment allows, where it begins with ``one of a, b or c``; else none.

    >>> choices("one of happo, hatrpo or mappo: the method")
    ['happo', 'hatrpo', 'mappo']
    """
    found = CHOICE.match(comment.strip())
    names = re.split(r",|\bor\b", found["names"]) if found else []
    return [name.strip().strip("'\"") for name in names if name.strip()]


def _holds(test: Callable[[Any], bool], expected: str) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        return expected if numeric and not test(value) else None

    return check


def _number(text: str) -> float | None:
    try:
        return float(text.replace("∞", "inf").replace("_", ""))
    except ValueError:
        return None


def canonical(value: Any) -> Any:
    """What stands for a value where equality counts: a tuple is a list, an infinity its name."""
    if isinstance(value, float) and math.isinf(value):
        return {"float": repr(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, dict):
        return {name: canonical(item) for name, item in value.items()}
    return value


def digest(parameters: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that name parameters, whatever their order."""
    text = json.dumps(canonical(dict(parameters)), sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def short(value: Any) -> str:
    """A value for a table or a legend.

    >>> short(0.05), short((0, 1)), short(None), short("random")
    ('0.05', '(0, 1)', 'None', 'random')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)
