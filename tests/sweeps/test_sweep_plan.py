"""What a sweep refuses, and what it plans, before anything runs."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import PurePosixPath

import numpy as np
import pytest
from tiny_notebook import PARAMETERS, write_notebook

import workbench as wb
from workbench.commands.run_sweep import read_spec
from workbench.sweeps import values
from workbench.sweeps.notebook import read_notebook, read_parameters


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "tiny.ipynb")


@pytest.fixture
def plan(notebook, tmp_path):
    def make(**given):
        return wb.Sweep(notebook, directory=tmp_path / "sweep", **given).plan

    return make


# ---- combinations ----


def test_a_grid_is_every_combination_with_the_first_seed_before_the_next(plan):
    made = plan(grid={"order": ["random", "fixed"], "rate": [0.1, 0.2, 0.3]}, seeds=range(2))
    assert [(r.parameters["seed"], r.parameters["order"], r.parameters["rate"]) for r in made.runs] == [
        (seed, order, rate) for seed in (0, 1) for order in ("random", "fixed") for rate in (0.1, 0.2, 0.3)
    ]
    assert made.swept == ("order", "rate")
    assert made.count() == "12 runs = 2 order × 3 rate × 2 seeds"
    assert len({run.name for run in made.runs}) == 12


def test_zip_goes_together_and_multiplies_with_the_rest(plan):
    made = plan(zip={"order": ["random", "fixed"], "rate": [0.1, 0.2]}, grid={"fails": [False, True]}, seeds=[3])
    assert [(r.parameters["fails"], r.parameters["order"], r.parameters["rate"]) for r in made.runs] == [
        (False, "random", 0.1),
        (False, "fixed", 0.2),
        (True, "random", 0.1),
        (True, "fixed", 0.2),
    ]


def test_random_draws_stay_when_more_are_asked_for(plan):
    space = {"rate": {"log_uniform": [0.01, 1.0]}, "env_steps": {"integers": [5, 7]}, "order": ["random", "fixed"]}
    few, many = plan(random=space, samples=4), plan(random=space, samples=40)
    assert {run.name for run in few.runs} < {run.name for run in many.runs}
    rates = [run.parameters["rate"] for run in many.runs]
    assert 0.01 <= min(rates) < 0.05
    assert 0.3 < max(rates) <= 1.0
    assert {run.parameters["env_steps"] for run in many.runs} == {5, 6, 7}
    other = plan(random=space, samples=4, sampling_seed=1)
    assert not {run.name for run in few.runs} & {run.name for run in other.runs}


def test_without_anything_it_is_one_run_of_the_defaults(plan):
    (run,) = plan().runs
    assert run.parameters == {
        "seed": 0,
        "order": "random",
        "rate": 0.1,
        "sizes": (4, 4),
        "env_steps": 20,
        "pause": 0.0,
        "fails": False,
    }


def test_a_run_is_named_by_all_its_values_however_they_were_given(plan):
    (default,) = plan().runs
    same = [
        plan(grid={"rate": [0.1]}, seeds=[0]),
        plan(fixed={"sizes": [4, 4], "env_steps": 20.0}),
        plan(zip={"seed": np.array([0]), "sizes": [np.array([4, 4])]}),
        plan(grid={"rate": [np.float64(0.1)], "fails": [np.bool_(False)]}),
    ]
    assert {made.runs[0].name for made in same} == {default.name}
    assert plan(fixed={"rate": 0.1 + 1e-12}).runs[0].name != default.name


def test_paths_reach_the_notebook_as_text():
    assert values.plain({"data": [PurePosixPath("runs/ant")]}) == {"data": ["runs/ant"]}


def test_numpy_and_tuples_reach_the_notebook_as_pythons_own(plan):
    made = plan(grid={"sizes": [np.array([8, 8]), (np.int64(2),)]}, seeds=np.arange(2), fixed={"rate": np.float32(0.5)})
    parameters = made.runs[0].parameters
    assert parameters == {**parameters, "sizes": (8, 8), "seed": 0, "rate": 0.5}
    assert {type(value) for run in made.runs for value in run.parameters.values()} == {tuple, int, float, str, bool}
    assert {type(width) for run in made.runs for width in run.parameters["sizes"]} == {int}


# ---- refusals: each names what is wrong, what was expected, and is told before anything is written ----

REFUSED = [
    ({"grid": {"ordr": ["fixed"]}}, "unknown parameter of tiny.ipynb 'ordr'; did you mean 'order'"),
    ({"zip": {"Rate": [0.1]}}, "did you mean 'rate'"),
    ({"random": {"rte": [0.1]}}, "did you mean 'rate'"),
    ({"fixed": {"pase": 1}}, "did you mean 'pause'"),
    ({"grid": {"directory": ["x"]}}, "unknown parameter of tiny.ipynb 'directory'"),
    ({"grid": {"rate; import os": [0.1]}}, "unknown parameter"),
    ({"grid": {"order": "fixed"}}, "expected a list of values"),
    ({"grid": {"rate": 0.1}}, r"fixed=\{'rate': 0.1\}"),
    ({"grid": {"rate": []}}, "is empty"),
    ({"grid": {"rate": [0.1, 0.1]}}, "has 0.1 twice"),
    ({"grid": ["rate"]}, "expected a dictionary"),
    ({"grid": {"rate": ["fast"]}}, r"rate is 'fast'; the notebook declares rate: float .* and expects a number"),
    ({"grid": {"rate": ["1e-3"]}}, "in YAML, write 1.0e-3"),
    ({"grid": {"rate": [0.0]}}, r"rate is 0.0; .* expects a number in \(0, 1\]"),
    ({"grid": {"rate": [True]}}, "rate is True"),
    ({"grid": {"rate": [float("nan")]}}, "NaN equals nothing"),
    ({"grid": {"order": ["fixd"]}}, "unknown order 'fixd'; did you mean 'fixed'"),
    ({"grid": {"env_steps": [10.5]}}, "expects an integer"),
    ({"grid": {"env_steps": [0]}}, "expects a number ≥ 1"),
    ({"grid": {"fails": [1]}}, "expects True or False"),
    ({"grid": {"sizes": [8]}}, "expects a tuple, such as"),
    ({"grid": {"sizes": [("a", 2)]}}, "expects a tuple of: an integer"),
    ({"grid": {"rate": [object()]}}, "expects None, True or False, a number, text, or a list"),
    ({"zip": {"rate": [0.1, 0.2], "order": ["fixed"]}}, "rate has 2, order has 1"),
    ({"grid": {"rate": [0.1]}, "fixed": {"rate": 0.2}}, "given by grid and by fixed"),
    ({"grid": {"seed": [1]}, "seeds": [2]}, "given by seeds and by grid"),
    ({"seeds": 5}, r"expected a sequence of integers, such as range\(5\)"),
    ({"seeds": []}, "seeds is empty"),
    ({"seeds": [1, 1]}, "a seed twice"),
    ({"seeds": ["one"]}, "seed is 'one'"),
    ({"seeds": [-1]}, "expects a number ≥ 0"),
    ({"random": {"rate": {"uniform": [0.3, 0.1]}}}, r"expected \[low, high\]"),
    ({"random": {"rate": {"log_uniform": [0, 1]}}}, "0 < low < high"),
    ({"random": {"rate": {"normal": [0, 1]}}}, "unknown distribution of rate 'normal'"),
    ({"random": {"rate": {"uniform": 0.3}}}, r"uniform of rate is 0.3; expected a list, such as \[0.05, 0.3\]"),
    ({"random": {"rate": []}}, "the choices of rate are none; expected a list of choices"),
    ({"random": {"env_steps": {"integers": [1, 2.5]}}}, r"integers of env_steps is \[1, 2.5\]; expected whole numbers"),
    ({"random": {"rate": [0.1]}, "sampling_seed": -1}, "sampling_seed is -1; expected an integer ≥ 0"),
    ({"fixed": {"sizes": {1: 2}}}, r"sizes is \{1: 2\}; .* expects a dictionary whose keys are text"),
    ({"random": {"rate": 0.1}}, "the distribution of rate is 0.1"),
    ({"random": {"rate": {"uniform": [0.5, 2.0]}}, "samples": 50}, r"expects a number in \(0, 1\]"),
    ({"random": {"rate": [0.1]}, "samples": 0}, "samples is 0"),
    ({"threads": 0}, "threads is 0"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=lambda value: re.sub(r" at 0x\w+", "", str(value))[:50])
def test_what_cannot_be_run_is_refused_before_anything_is(given, message, notebook, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        wb.Sweep(notebook, directory=tmp_path / "sweep", **given)
    assert not (tmp_path / "sweep").exists()


def test_workers_are_checked_too(notebook, tmp_path):
    sweep = wb.Sweep(notebook, directory=tmp_path / "sweep")
    for where, message in (({"workers": 0}, "workers is 0"), ({"workers": 1, "scheduler": "tcp://h:1"}, "give one of")):
        with pytest.raises(ValueError, match=message):
            sweep.run(**where)
    assert not (tmp_path / "sweep").exists()


def test_notebooks_that_cannot_be_swept_say_what_they_lack(tmp_path):
    def refused(message, *sources, **given):
        with pytest.raises(ValueError, match=message):
            read_notebook(write_notebook(tmp_path / "bad.ipynb", *sources, **given))

    refused("has 0 code cells tagged 'parameters'", "x = 1", parameters=None)
    refused("no parameter 'directory'", parameters="seed: int = 0")
    refused(r"the default of seed .* is computed \(int\('3'\)\)", parameters="seed = int('3')\ndirectory = None")
    refused("is no Python", parameters="seed: int =\ndirectory = None")
    refused("rate is 2; .* Put its default right", parameters="rate: float = 2  # in (0, 1)\ndirectory = None")
    foreign = write_notebook(tmp_path / "bad.ipynb")
    foreign.write_text(foreign.read_text().replace('"language": "python"', '"language": "julia"'))
    with pytest.raises(ValueError, match=r"bad\.ipynb' is a notebook in julia; a sweep runs notebooks in Python"):
        read_notebook(foreign)
    seedless = write_notebook(tmp_path / "bad.ipynb", parameters="rate: float = 0.1\ndirectory = None")
    with pytest.raises(ValueError, match=r"bad\.ipynb has no parameter 'seed'; add `seed: int = 0`"):
        wb.Sweep(seedless, seeds=[0], directory=tmp_path / "sweep")
    (tmp_path / "text.ipynb").write_text("not JSON")
    with pytest.raises(ValueError, match="no Jupyter notebook"):
        read_notebook(tmp_path / "text.ipynb")
    with pytest.raises(FileNotFoundError, match=r"Beside it: bad.ipynb, text.ipynb"):
        read_notebook(tmp_path / "bda.ipynb")


# ---- reading parameters ----


def test_parameters_are_read_and_nothing_is_executed(tmp_path):
    witness = tmp_path / "witness"
    found = read_parameters(PARAMETERS + f"open({str(witness)!r}, 'w')\nfrom typing import Optional\n")
    assert not witness.exists()
    assert list(found) == ["seed", "order", "rate", "sizes", "env_steps", "pause", "fails", "directory"]
    assert found["sizes"].annotation == "tuple[int, ...]"
    assert found["sizes"].default == (4, 4)
    assert found["rate"].comment == "in (0, 1]: how steep"
    # Several assignments that papermill's own reading leaves out: unions, quotes, an equals sign in a comment.
    odd = read_parameters("a: int | None = None  # x = 1\nb: 'float' = 1\nc = 'x=y'\nd = 3  # type: float  third")
    assert {name: (p.annotation, p.default) for name, p in odd.items()} == {
        "a": ("int | None", None),
        "b": ("'float'", 1.0),
        "c": ("str", "x=y"),
        "d": ("float", 3.0),
    }
    assert odd["d"].comment == "third"


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("float", 1, 1.0),
        ("int", 1e6, 1_000_000),
        ("int | float", 1, 1),
        ("int | float", 1.0, 1.0),
        ("float | None", None, None),
        ("Optional[float]", 2, 2.0),
        ("typing.Optional[int]", None, None),
        ("Union[str, list[int]]", [1, 2], [1, 2]),
        ("Literal['a', 3]", 3, 3),
        ("tuple[int, float]", [1, 2], (1, 2.0)),
        ("list[str]", ("a", "b"), ["a", "b"]),
        ("dict[str, Any]", {"a": (1,)}, {"a": (1,)}),
        ("'float'", 1, 1.0),
        ("np.ndarray", [1], [1]),
        ("Any", "x", "x"),
    ],
)
def test_values_are_taken_as_declared(kind, value, expected):
    found = values.fit(value, values.annotation(kind))
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("float", "1"),
        ("int", True),
        ("int", 1.5),
        ("bool", 0),
        ("str", 1),
        ("float | None", "x"),
        ("Literal[1]", True),
        ("tuple[int, float]", (1, 2, 3)),
        ("list[int]", "ab"),
        ("list[int]", [1, None]),
        ("dict", []),
        ("None", 0),
    ],
)
def test_values_of_another_kind_are_not(kind, value):
    with pytest.raises(values.ParameterError):
        values.fit(value, values.annotation(kind))


def test_the_range_in_a_comment_holds():
    for comment, good, bad in (
        ("in (0, 1): open", (0.5, 1e-9), (0, 1, 2)),
        ("in [0, ∞): half open", (0, 1e300), (-1,)),
        ("≥ 1", (1, 2), (0,)),
        (">= 1 things", (1,), (0,)),
        ("< 3", (2.9,), (3,)),
    ):
        assert [values.expected_by(comment, value) for value in good] == [None] * len(good), comment
        assert all(values.expected_by(comment, value) for value in bad), comment
    assert values.choices("one of 'fixed' (the paper's), random: who is next") == ["fixed", "random"]
    assert values.choices("one of them is slow") == values.choices("one of the method's, or of another") == []
    assert values.expected_by("in which order", -1) is None
    assert values.expected_by("the learning rate, > 0", -1) is None


# ---- files ----


def spec_file(tmp_path, text, suffix=".yaml"):
    write_notebook(tmp_path / "tiny.ipynb")
    path = tmp_path / f"spec{suffix}"
    path.write_text(text)
    return path


def test_yaml_and_toml_say_the_same(tmp_path):
    yaml = spec_file(
        tmp_path,
        "notebook: tiny.ipynb\ndirectory: out\ngrid:\n  order: [fixed, random]\n  rate: [1.0e-1, 0.2]\n"
        "seeds: [0, 1]\nworkers: 3\n",
    )
    toml = spec_file(
        tmp_path,
        'notebook = "tiny.ipynb"\ndirectory = "out"\nseeds = [0, 1]\nworkers = 3\n'
        '[grid]\norder = ["fixed", "random"]\nrate = [0.1, 0.2]\n',
        ".toml",
    )
    (first, where), (second, same) = read_spec(yaml), read_spec(toml)
    assert where == same == {"workers": 3}
    assert [run.name for run in first.plan.runs] == [run.name for run in second.plan.runs]
    assert len(first.plan.runs) == 8
    assert first.directory == tmp_path / "out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("notebook: tiny.ipynb\ndirectory: out\ngird: {}\n", "unknown key of spec.yaml 'gird'; did you mean 'grid'"),
        ("notebook: tiny.ipynb\n", "has no directory"),
        ("- notebook\n", "holds no keys"),
        ("notebook: [\n", "cannot be read"),
        ("notebook: tiny.ipynb\nnotebook: tiny.ipynb\ndirectory: out\n", "the key 'notebook' stands there twice"),
        (
            "notebook: tiny.ipynb\ndirectory: out\ngrid: {rate: [0.1], rate: [0.2]}\n",
            "the key 'rate' stands there twice",
        ),
        ("notebook: tiny.ipynb\ndirectory: out\ngrid: {rate: [1e-3]}\n", "in YAML, write 1.0e-3"),
        ("notebook: !!python/object/apply:os.getcwd []\ndirectory: out\n", "cannot be read"),
    ],
)
def test_a_bad_file_is_told_in_one_sentence(text, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_spec(spec_file(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_spec_that_is_missing_or_of_another_kind_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file '.*spec\.yaml' to read a sweep from"):
        read_spec(tmp_path / "spec.yaml")
    with pytest.raises(ValueError, match=r"spec\.json is neither \.yaml nor \.toml"):
        read_spec(spec_file(tmp_path, "{}", ".json"))


def test_what_is_written_into_a_notebook_is_a_literal_and_nothing_else():
    """Whatever the value, the injected line is one assignment of a literal that is the value again."""
    importlib.import_module("workbench.sweeps.run_one")  # registers the translator
    from papermill.translators import papermill_translators

    translator = papermill_translators.find_translator("python3", "python")
    hostile = ['"', "'", "\\", '"""', "'''", "\n", "\r", "\x00", "\u2028", "#", "{x}", '"\nimport os #', "\\'", "é😀"]
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(hostile, 6)) for _ in range(200)]
    given = {"text": texts, "pair": ((1, -2.5), ()), "one": (True,), "table": {texts[0]: [None, float("inf")]}}
    source = translator.codify(given)
    body = ast.parse(source).body
    assert [type(node) for node in body] == [ast.Assign] * len(given)
    names: dict = {}
    exec(source, {"__builtins__": {"float": float}}, names)
    assert names == given
    assert json.dumps(names["text"]) == json.dumps(texts)
