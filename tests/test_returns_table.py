"""The script that makes the table of final returns: what it tells, and one run of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import returns_table
from returns_table import TASKS, differences, interval, longest, report, returns, settings_for
from scipy import stats

from workbench.running.methods import METHODS

ROOT = Path(__file__).parent.parent


def rows():
    """Three seeds of two methods on one task; the first seed of HAPPO twice, at two budgets."""
    ends = {"ippo": [1.0, 2.0, 3.0], "happo": [10.0, 12.0, 17.0]}
    whole = [
        {
            "task": "simple_spread",
            "method": method,
            "seed": seed,
            "env_steps": 4000,
            "untrained": -5.0 - seed,
            "return": end,
            "training": end - 1,
            "effective": 0.9 + seed / 100,
        }
        for method, values in ends.items()
        for seed, end in enumerate(values)
    ]
    return pd.DataFrame([*whole, {**whole[3], "env_steps": 2000, "return": 99.0}])


def test_intervals_by_hand():
    # t with 2 degrees of freedom leaves 2.5 % beyond 4.303; s = 1, n = 3.
    assert interval(pd.Series([1.0, 2.0, 3.0])) == "2.0 ± 2.5"
    assert interval(pd.Series([7.0])) == "7.0 ± nan"
    shown = differences(longest(rows()))
    welch = stats.ttest_ind([10, 12, 17], [1, 2, 3], equal_var=False).confidence_interval()
    assert shown.loc["happo − ippo", "simple_spread"] == f"11.0 ± {(welch.high - welch.low) / 2:.1f}"
    assert shown.loc["happo − untrained", "simple_spread"].startswith("19.0 ± ")


def test_the_tables_stand_in_one_report_with_the_command():
    shown = longest(rows())
    assert shown["method"].tolist() == ["happo"] * 3 + ["ippo"] * 3
    assert 99.0 not in shown["return"].tolist()
    assert returns(shown).index.tolist() == ["untrained", "happo", "ippo"]
    text = report(shown, "python tests/returns_table.py DIRECTORY --jobs 2")
    assert "| happo | 13.0 ± " in text
    assert "| untrained | -6.0 ± 2.5 |" in text
    assert "over 3 seeds" in text
    assert "over the last 10 iterations:\n\n| method | simple_spread |\n| --- | ---: |\n| happo | 12.0 ± " in text
    assert "| ippo | 91.0 % |" in text
    assert "simple_spread 4,000." in text
    assert "```sh\npython tests/returns_table.py DIRECTORY --jobs 2\n```" in text


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", TASKS)
def test_every_method_takes_the_settings_it_is_given(method, task):
    given = settings_for(method, TASKS[task])
    settings = METHODS[method].settings.make(method, given)
    assert given["gamma"] == settings.gamma
    assert ("clip_epsilon" in settings.names()) == (method not in ("hatrpo", "haa2c"))


def test_one_run_is_taken_up_where_it_was_left(tmp_path, monkeypatch):
    monkeypatch.setattr(returns_table, "EPISODES", 2)
    half = returns_table.run("happo", "simple_spread", 0, tmp_path, 2000)
    whole = returns_table.run("happo", "simple_spread", 0, tmp_path, 4000)
    assert (half["env_steps"], whole["env_steps"]) == (2000, 4000)
    assert half["untrained"] == whole["untrained"]
    history = pd.read_csv(tmp_path / "simple_spread" / "happo" / "seed-0" / "history.csv")
    assert history["env_steps"].tolist() == [2000, 4000]
    assert whole["training"] == pytest.approx(history["return"].mean())
    assert returns_table.budget("simple_spread", 2001) == 4000


def test_the_page_shows_the_tables_of_the_committed_runs():
    committed = pd.read_csv(ROOT / "data" / "returns" / "returns.csv")
    page = (ROOT / "docs" / "returns.md").read_text(encoding="utf-8")
    assert report(longest(committed), "python tests/returns_table.py DIRECTORY --jobs 2") in page
    assert sorted(committed.groupby(["task", "method"])["seed"].apply(list).map(sorted).map(tuple).unique()) == [
        (0, 1, 2)
    ]
    assert set(committed["method"]) == set(METHODS)


def test_without_runs_there_is_no_table(tmp_path, capsys):
    with pytest.raises(SystemExit):
        returns_table.main([str(tmp_path), "--only-tables"])
    assert "nothing has been run yet" in capsys.readouterr().err
    rows().to_csv(tmp_path / "returns.csv", index=False)
    assert returns_table.main([str(tmp_path), "--only-tables", "--jobs", "2"]) == 0
    assert (tmp_path / "returns.md").read_text() in capsys.readouterr().out[1:]
