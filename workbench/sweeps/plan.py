"""What a sweep is to run: combinations of parameter values, expanded and checked before anything runs."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.envs.arguments import positive_integer
from workbench.errors import unknown_name
from workbench.sweeps import values
from workbench.sweeps.notebook import SEED, Notebook
from workbench.sweeps.values import Parameters

Several = Mapping[str, Iterable[Any]]  # {name: its values}
Space = Mapping[str, Any]  # {name: choices, or {"uniform": [low, high]}, …}
Distribution = tuple[str, list[Any]]  # one of DRAWS, and its choices or its ends
DRAWS = ("uniform", "log_uniform", "integers", "choice")


@dataclass(frozen=True)
class PlannedRun:
    """One run: all parameters of the notebook but for the directory, and the hash that names it."""

    parameters: Parameters
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", values.digest(self.parameters))

    def label(self, names: Iterable[str]) -> str:
        """The run in the words of some parameters.

        >>> PlannedRun({"order": "fixed", "lr": 0.01}).label(["order"])
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

    runs: tuple[PlannedRun, ...]
    swept: tuple[str, ...]
    seeds: tuple[int, ...]

    def count(self) -> str:
        """How the number of runs comes about.

        >>> Plan(tuple(PlannedRun({"order": i // 2, "seed": i % 2}) for i in range(6)), ("order",), (0, 1)).count()
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
    grid: Several | None = None,
    zip: Several | None = None,
    random: Space | None = None,
    samples: int = 10,
    sampling_seed: int = 0,
    seeds: Iterable[int] | None = None,
    fixed: Parameters | None = None,
) -> Plan:
    """All combinations of grid × zip × random draws × seeds, each checked against the notebook's parameters.

    Raises ``ValueError`` for whatever the notebook would not take, ``UnknownNameError`` for a parameter that it lacks.
    """
    given = {"grid": grid or {}, "zip": zip or {}, "random": random or {}, "fixed": fixed or {}}
    check_names(notebook, given, seeds)
    columns = {name: _checked(notebook, name, each, "grid") for name, each in given["grid"].items()}
    cells = [dict(pairs) for pairs in itertools.product(*([(name, one) for one in columns[name]] for name in columns))]
    rows = _rows({name: _checked(notebook, name, each, "zip") for name, each in given["zip"].items()})
    drawn = _drawn(given["random"], samples, sampling_seed)
    chosen_seeds = checked_seeds(notebook, seeds)
    with_seed: list[Parameters] = [{SEED: seed} for seed in chosen_seeds] or [{}]
    runs: dict[str, PlannedRun] = {}
    for seed, cell, row, draw in itertools.product(with_seed, cells, rows, drawn):
        run = PlannedRun(notebook.resolve({**given["fixed"], **cell, **row, **draw, **seed}))
        runs[run.name] = run
    swept = tuple(name for kind in ("grid", "zip", "random") for name in given[kind] if name != SEED)
    return Plan(tuple(runs.values()), swept, chosen_seeds)


def check_names(notebook: Notebook, given: Mapping[str, Parameters], seeds: Iterable[int] | None) -> None:
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


def _is_sequence(given: object) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)


def _checked(notebook: Notebook, name: str, given: Iterable[object], way: str) -> list[object]:
    """Several values of one parameter, each checked; the same one twice is refused."""
    if not _is_sequence(given):
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


def _rows(columns: Mapping[str, Sequence[object]]) -> list[Parameters]:
    """Rows of columns that go together; one without any parameter where there are none."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"the lists of zip differ in length: {told}. Give each as many, or use grid.")
    n_rows = next(iter(lengths.values()), 1)
    return [{name: column[i] for name, column in columns.items()} for i in range(n_rows)]


def checked_seeds(notebook: Notebook, seeds: Iterable[int] | None) -> tuple[int, ...]:
    """The seeds as the notebook takes them."""
    if seeds is None:
        return ()
    if SEED not in notebook.parameters:
        raise ValueError(f"{notebook.path.name} has no parameter '{SEED}'; add `{SEED}: int = 0` to its parameters.")
    if not _is_sequence(seeds):
        raise ValueError(f"seeds is {seeds!r}; expected a sequence of integers, such as range(5) or [0, 1, 2].")
    found: list[Any] = [notebook.parameters[SEED].check(seed) for seed in seeds]
    if not found:
        raise ValueError("seeds is empty; expected at least one, such as range(5).")
    if len(set(found)) < len(found):
        raise ValueError(f"seeds is {found}: a seed twice is the same run twice.")
    return tuple(found)


def _drawn(random: Space, samples: int, sampling_seed: int) -> list[Parameters]:
    """``samples`` draws of all parameters in ``random``; the first k are the same however many are asked for."""
    if not random:
        return [{}]
    samples, sampling_seed = (
        positive_integer("samples", samples),
        positive_integer("sampling_seed", sampling_seed, least=0),
    )
    spaces = {name: space(name, given) for name, given in random.items()}
    # Keyed by name and number: another parameter, or more samples, change no draw. (And no torch is imported.)
    return [
        {
            name: _draw(np.random.default_rng([sampling_seed, zlib.crc32(name.encode()), i]), distribution)
            for name, distribution in spaces.items()
        }
        for i in range(samples)
    ]


def space(name: str, given: object) -> Distribution:
    """A distribution, read: a list of choices, or {"uniform": [low, high]}, "log_uniform", "integers" or "choice"."""
    example = "a list of choices, or a dictionary such as {'uniform': [0.05, 0.3]}"
    if isinstance(given, list | tuple):
        kind, among = "choice", given
    elif isinstance(given, Mapping) and len(given) == 1:
        ((kind, among),) = given.items()
        if kind not in DRAWS:
            raise unknown_name(f"distribution of {name}", kind, DRAWS)
        if not isinstance(among, list | tuple):
            raise ValueError(f"{kind} of {name} is {among!r}; expected a list, such as [0.05, 0.3].")
    else:
        raise ValueError(f"the distribution of {name} is {given!r}; expected {example}.")
    if kind == "choice":
        if not among:
            raise ValueError(f"the choices of {name} are none; expected {example}.")
        return kind, list(among)
    numbers = [value for value in among if isinstance(value, int | float | np.number) and not isinstance(value, bool)]
    ordered = len(among) == len(numbers) == 2 and numbers[0] < numbers[1]
    if not ordered or (kind == "log_uniform" and numbers[0] <= 0):
        positive = "0 < low" if kind == "log_uniform" else "low"
        raise ValueError(f"{kind} of {name} is {list(among)!r}; expected [low, high] with {positive} < high.")
    if kind == "integers" and not all(float(value).is_integer() for value in numbers):
        raise ValueError(f"integers of {name} is {list(among)!r}; expected whole numbers, the last included.")
    return kind, numbers


def _draw(rng: np.random.Generator, distribution: Distribution) -> object:
    kind, given = distribution
    if kind == "choice":
        return given[int(rng.integers(len(given)))]
    low, high = given
    if kind == "integers":
        return int(rng.integers(int(low), int(high), endpoint=True))
    if kind == "log_uniform":
        return math.exp(rng.uniform(math.log(low), math.log(high)))
    return float(rng.uniform(low, high))
