"""The search: chooses, ends what falls behind, goes on after a kill, and tells what it found."""

from __future__ import annotations

import sys

import pytest
from tiny_notebook import value_of, write_notebook

import workbench as wb
from workbench.sweeps import files, layout

optuna = pytest.importorskip("optuna")


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "tiny.ipynb")


class Everything(optuna.pruners.BasePruner):
    """Gives up every trial after its first step."""

    def prune(self, study, trial):
        return True


def test_a_search_finds_the_best_of_what_it_tried(notebook, tmp_path, client):
    given = {"seeds": [0, 1], "pruner": None, "directory": tmp_path / "search"}
    space = {"rate": {"log_uniform": [0.01, 1.0]}, "order": ["random", "fixed"], "sizes": [(2,), (3, 3)]}
    search = wb.Search(notebook, space, trials=3, **given)
    search.run(client=client, progress=False)
    table = search.trials()
    assert table["state"].tolist() == ["complete"] * 3
    for row in search.trials().to_dict("records"):
        sizes = {"(2,)": (2,), "(3, 3)": (3, 3)}[row["sizes"]]
        finals = [value_of(seed, 20, row["order"], row["rate"], sizes) for seed in (0, 1)]
        assert row["return"] == pytest.approx(sum(finals) / 2)
    best = table.loc[table["return"].idxmax()]
    assert search.best == {"rate": best["rate"], "order": best["order"], "sizes": search.best["sizes"]}
    assert isinstance(search.best["sizes"], tuple)
    assert search.finished
    assert len(search.table("runs")) == 6

    # More trials go on from those; the study says what was tried.
    more = wb.Search(notebook, space, trials=4, **given).run(client=client, progress=False)
    assert more.trials().iloc[:3].equals(table)
    assert len(more.study.trials) == 4
    assert more.trials()["rate"].nunique() == 4
    with pytest.raises(ValueError, match="is to maximize, this one to minimize"):
        wb.Search(notebook, space, direction="minimize", **given).study  # noqa: B018 - asking is what raises


def test_what_falls_behind_is_ended(notebook, tmp_path, client):
    search = wb.Search(
        notebook,
        {"rate": {"uniform": [0.1, 0.2]}},
        trials=2,
        fixed={"pause": 0.3},
        pruner=Everything(),
        directory=tmp_path / "search",
    )
    search.run(client=client, progress=False)
    assert search.trials()["state"].tolist() == ["pruned", "pruned"]
    assert {run.status for run in search.runs} == {"pruned"}
    assert all(len(run.rows("iterations")) < 20 for run in search.runs)
    assert search.failures == {}
    with pytest.raises(ValueError, match="No trials are completed"):
        search.best  # noqa: B018 - asking is what raises


def test_a_failing_run_fails_its_trial_alone(notebook, tmp_path, client):
    search = wb.Search(notebook, {"fails": [True, False]}, trials=4, pruner=None, directory=tmp_path / "search")
    search.run(client=client, progress=False)
    states = search.trials().groupby("fails")["state"].agg(set).to_dict()
    assert states.get(True, {"fail"}) == {"fail"}
    assert states.get(False, {"complete"}) == {"complete"}
    # The same parameters twice are the same run, done once.
    assert len({run.name for run in search.runs}) == len(search.runs) <= 2
    for run in search.runs:
        assert len(files.read_lines(run.directory / layout.ATTEMPTS)) == 2


def test_a_search_that_was_stopped_goes_on_with_its_trials(notebook, tmp_path, client):
    given = {"trials": 2, "fixed": {"pause": 0.1}, "pruner": None, "directory": tmp_path / "search"}
    search = wb.Search(notebook, {"rate": {"uniform": [0.1, 0.2]}}, **given)
    search.start(client=client, progress=False)
    while not any(len(run.rows("iterations")) > 3 for run in search.runs):
        assert search.running
    search.cancel()
    search.wait()
    begun = search.trials()
    assert "running" in begun["state"].tolist()
    again = wb.Search(notebook, {"rate": {"uniform": [0.1, 0.2]}}, **given).run(client=client, progress=False)
    assert again.trials()["state"].tolist() == ["complete"] * 2
    assert again.trials()["rate"].tolist()[: len(begun)] == begun["rate"].tolist()
    assert max(run.summary["begun_at"] for run in again.runs) > 1


def test_without_optuna_it_says_what_to_install(notebook, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna.storages.journal", None)
    with pytest.raises(ImportError, match=r"a search needs Optuna: pip install optuna\."):
        wb.Search(notebook, {"rate": [0.1]}, directory=tmp_path / "search").study  # noqa: B018 - asking is what raises


@pytest.mark.parametrize(
    ("space", "given", "message"),
    [
        ({}, {}, "space is empty"),
        ({"rte": [0.1]}, {}, "did you mean 'rate'"),
        ({"rate": {"uniform": [0.5, 2.0]}}, {}, "expects a number in"),
        ({"rate": [0.1, 0.1]}, {}, "no two that are the same"),
        ({"rate": [0.1]}, {"fixed": {"rate": 0.2}}, "given by space and by fixed"),
        ({"rate": [0.1]}, {"trials": 0}, "trials is 0"),
        ({"rate": [0.1]}, {"direction": "up"}, "unknown direction 'up'"),
    ],
)
def test_what_cannot_be_searched_is_refused(space, given, message, notebook, tmp_path):
    with pytest.raises(ValueError, match=message):
        wb.Search(notebook, space, directory=tmp_path / "search", **given)
    assert not (tmp_path / "search").exists()
