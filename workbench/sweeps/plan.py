"""What a sweep is to run: combinations of parameter values, expanded and checked before anything runs."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.errors import unknown_name
from workbench.sweeps import values
from workbench.sweeps.notebook import SEED, Notebook

Choice = Mapping[str, Any]
DRAWS = ("uniform", "log_uniform", "integers", "choice")


@dataclass(frozen=True)
class Run:
    """One run: all parameters of the notebook but for the directory, and the hash that names it."""

    name: str
    parameters: Mapping[str, Any]

    def label(self, names: Iterable[str]) -> str:
        """The run in the words of some parameters.

        >>> Run("", {"order": "fixed", "lr": 0.01}).label(["order"])
        'order=fixed'
        """
        return " ".join(f"{name}={values.short(self.parameters[name])}" for name in names if name in self.parameters)


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep.

    runs    in the order in which they are begun: every combination with the first seed, then with the next
    swept   the parameters that were given several values, or values by name; not the seed
    seeds   the seeds, or () where none were given
    """

    runs: tuple[Run, ...]
    swept: tuple[str, ...]
    seeds: tuple[int, ...]

    def count(self) -> str:
        """How the number of runs comes about.

        >>> Plan(tuple(Run(str(i), {"order": i // 2, "seed": i % 2}) for i in range(6)), ("order",), (0, 1)).count()
        '6 runs = 3 order × 2 seeds'
        """
        cells = len(self.runs) // max(1, len(self.seeds))
        several = {name: n for name in self.swept if (n := len({repr(run.parameters[name]) for run in self.runs})) > 1}
        factors = [f"{n} {name}" for name, n in several.items()]
        if math.prod(several.values()) != cells:
            factors = [f"{cells} combinations of {', '.join(several)}"] if several else []
        if self.seeds:
            factors.append(f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}")
        total = f"{len(self.runs)} run{'s' * (len(self.runs) != 1)}"
        return f"{total} = {' × '.join(factors)}" if len(factors) > 1 else total


def expand(
    notebook: Notebook,
    *,
    grid: Mapping[str, Any] | None = None,
    zip: Mapping[str, Any] | None = None,
    random: Mapping[str, Any] | None = None,
    samples: int = 10,
    sampling_seed: int = 0,
    seeds: Iterable[int] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> Plan:
    """All combinations of grid × zip × random draws × seeds, each checked against the notebook's parameters.

    Raises ``ValueError`` for whatever the notebook would not take, ``UnknownNameError`` for a parameter that it lacks.
    """
    given = {"grid": grid or {}, "zip": zip or {}, "random": random or {}, "fixed": fixed or {}}
    check_names(notebook, given, seeds)
    columns = {name: _checked(notebook, name, each, "grid") for name, each in given["grid"].items()}
    cells: list[Choice] = [dict(pairs) for pairs in itertools.product(*_pairs(columns))]
    rows = _zipped({name: _checked(notebook, name, each, "zip") for name, each in given["zip"].items()})
    drawn = _drawn(notebook, given["random"], samples, sampling_seed)
    chosen_seeds = checked_seeds(notebook, seeds)
    base = {name: notebook.parameters[name].check(value) for name, value in given["fixed"].items()}
    runs: dict[str, Run] = {}
    for seed, cell, row, draw in itertools.product(chosen_seeds or (None,), cells, rows, drawn):
        with_seed = {} if seed is None else {SEED: seed}
        parameters = notebook.resolve({**base, **cell, **row, **draw, **with_seed})
        name = values.digest(parameters)
        runs[name] = Run(name, parameters)
    swept = tuple(name for kind in ("grid", "zip", "random") for name in given[kind] if name != SEED)
    return Plan(tuple(runs.values()), swept, chosen_seeds)


def check_names(notebook: Notebook, given: Mapping[str, Mapping[str, Any]], seeds: Iterable[int] | None) -> None:
    """Every name is a parameter that may be set, and given in one way only."""
    ways: dict[str, str] = {} if seeds is None else {SEED: "seeds"}
    for way, named in given.items():
        if not isinstance(named, Mapping):
            raise TypeError(f"{way} is {named!r}; expected a dictionary, such as {{'order': ['random', 'fixed']}}.")
        for name in named:
            if name not in notebook.swept_names:
                raise unknown_name(f"parameter of {notebook.path.name}", name, notebook.swept_names)
            if name in ways:
                raise ValueError(f"{name} is given by {ways[name]} and by {way}; give it once.")
            ways[name] = way


def _checked(notebook: Notebook, name: str, given: Any, way: str) -> list[Any]:
    """Several values of one parameter, each checked; the same one twice is refused."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ValueError(
            f"{way}[{name!r}] is {given!r}; expected a list of values, such as [{given!r}]. For one value in all runs: "
            f"fixed={{{name!r}: {given!r}}}."
        )
    found = [notebook.parameters[name].check(value) for value in given]
    if not found:
        raise ValueError(f"{way}[{name!r}] is empty; expected at least one value.")
    repeated = next((value for i, value in enumerate(found) if value in found[:i]), None)
    if repeated is not None and way == "grid":
        raise ValueError(f"{way}[{name!r}] has {repeated!r} twice.")
    return found


def _pairs(columns: Mapping[str, Sequence[Any]]) -> list[list[tuple[str, Any]]]:
    return [[(name, value) for value in column] for name, column in columns.items()]


def _zipped(columns: Mapping[str, Sequence[Any]]) -> list[Choice]:
    """Rows of columns that go together."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"the lists of zip differ in length: {told}. Give each as many, or use grid.")
    return [dict(pairs) for pairs in zip_pairs(columns)] or [{}]


def zip_pairs(columns: Mapping[str, Sequence[Any]]) -> list[list[tuple[str, Any]]]:
    """[[(name, value) of the first row, ...], ...]."""
    n_rows = min(map(len, columns.values()), default=0)
    return [[(name, column[i]) for name, column in columns.items()] for i in range(n_rows)]


def checked_seeds(notebook: Notebook, seeds: Iterable[int] | None) -> tuple[int, ...]:
    if seeds is None:
        return ()
    if SEED not in notebook.parameters:
        raise ValueError(f"{notebook.path.name} has no parameter '{SEED}'; add `{SEED}: int = 0` to its parameters.")
    if isinstance(seeds, str | bytes | Mapping) or not isinstance(seeds, Iterable):
        raise ValueError(f"seeds is {seeds!r}; expected a sequence of integers, such as range(5) or [0, 1, 2].")
    found = [notebook.parameters[SEED].check(seed) for seed in seeds]
    if not found:
        raise ValueError("seeds is empty; expected at least one, such as range(5).")
    if len(set(found)) < len(found):
        raise ValueError(f"seeds is {found}: a seed twice is the same run twice.")
    return tuple(found)


def _drawn(notebook: Notebook, random: Mapping[str, Any], samples: int, sampling_seed: int) -> list[Choice]:
    """``samples`` draws of all parameters in ``random``; the first k are the same however many are asked for."""
    if not random:
        return [{}]
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 1:
        raise ValueError(f"samples is {samples!r}; expected an integer ≥ 1.")
    if isinstance(sampling_seed, bool) or not isinstance(sampling_seed, int | np.integer) or sampling_seed < 0:
        raise ValueError(f"sampling_seed is {sampling_seed!r}; expected an integer ≥ 0.")
    spaces = {name: space(name, given) for name, given in random.items()}
    found: list[Choice] = []
    for i in range(int(samples)):
        draws = {}
        for name, (kind, given) in spaces.items():
            # Keyed by name and number: another parameter, or more samples, change no draw. (And no torch is imported.)
            rng = np.random.default_rng([sampling_seed, zlib.crc32(name.encode()), i])
            draws[name] = notebook.parameters[name].check(_draw(rng, kind, given))
        found.append(draws)
    return found


def space(name: str, given: Any) -> tuple[str, list[Any]]:
    """A distribution, read: a list of choices, or {"uniform": [low, high]}, "log_uniform", "integers" or "choice"."""
    example = "a list of choices, or a dictionary such as {'uniform': [0.05, 0.3]}"
    if isinstance(given, list | tuple):
        kind, among = "choice", list(given)
    elif isinstance(given, Mapping) and len(given) == 1:
        ((kind, among),) = given.items()
        if kind not in DRAWS:
            raise unknown_name(f"distribution of {name}", kind, DRAWS)
        if not isinstance(among, list | tuple):
            raise ValueError(f"{kind} of {name} is {among!r}; expected a list, such as [0.05, 0.3].")
        among = list(among)
    else:
        raise ValueError(f"the distribution of {name} is {given!r}; expected {example}.")
    if kind == "choice":
        if not among:
            raise ValueError(f"the choices of {name} are none; expected {example}.")
        return kind, among
    numbers = [value for value in among if isinstance(value, int | float | np.number) and not isinstance(value, bool)]
    if (
        len(among) != 2
        or len(numbers) != 2
        or not numbers[0] < numbers[1]
        or (kind == "log_uniform" and numbers[0] <= 0)
    ):
        positive = "0 < low" if kind == "log_uniform" else "low"
        raise ValueError(f"{kind} of {name} is {among!r}; expected [low, high] with {positive} < high.")
    if kind == "integers" and not all(float(value).is_integer() for value in numbers):
        raise ValueError(f"integers of {name} is {among!r}; expected whole numbers, the last included.")
    return kind, numbers


def _draw(rng: np.random.Generator, kind: str, given: Sequence[Any]) -> Any:
    if kind == "choice":
        return given[int(rng.integers(len(given)))]
    low, high = given
    if kind == "integers":
        return int(rng.integers(int(low), int(high), endpoint=True))
    if kind == "log_uniform":
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))
    return float(rng.uniform(low, high))
