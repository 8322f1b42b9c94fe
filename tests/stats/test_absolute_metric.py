"""The best policy of a run is kept, survives kills, and is judged on episodes that it was not chosen by."""

from __future__ import annotations

import pytest
from point_team import PointTeam

import workbench as wb
from workbench.running.resume import BEST, CheckpointDirectory

SMALL = {"n_steps": 12, "hidden_sizes": (16,), "lr": 0.02}
EVALUATED = {"evaluate_every": 2, "evaluate_episodes": 4, "save_every": 3, "progress": False}


def trainer():
    return wb.happo(PointTeam(), seed=9, **SMALL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was left alone, and its directory."""
    directory = tmp_path_factory.mktemp("whole")
    return trainer().run(iterations=12, directory=directory, **EVALUATED), directory


def test_the_best_evaluation_is_the_one_kept(whole):
    run, directory = whole
    best = wb.load(directory / BEST, env=PointTeam())
    rows = run.evaluations
    assert 0 < rows["return"].idxmax() < len(rows) - 1, "neither the first nor the last, or this shows nothing"
    assert best.env_steps == rows["env_steps"][rows["return"].idxmax()]
    assert best.evaluate(4).mean() == rows["return"].max()


class Killed(BaseException):
    """The end of a process, as far as one can have it within another."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_as_it_keeps_its_best_ends_with_the_same_best(whole, when, tmp_path, monkeypatch):
    goal = wb.load(whole[1] / BEST, env=PointTeam()).iteration
    write_best = CheckpointDirectory.write_best

    def die(self, arrays, held):
        if when == "after" or held["state"]["iteration"] < goal:
            write_best(self, arrays, held)
        if held["state"]["iteration"] == goal:
            raise Killed

    monkeypatch.setattr(CheckpointDirectory, "write_best", die)
    with pytest.raises(Killed):
        trainer().run(iterations=12, directory=tmp_path, **EVALUATED)
    monkeypatch.undo()
    assert CheckpointDirectory(tmp_path).newest()[2]["state"]["iteration"] < goal
    trainer().run(env_steps=whole[0].env_steps, directory=tmp_path, **EVALUATED)
    again, once = (wb.load(path / BEST, env=PointTeam()) for path in (tmp_path, whole[1]))
    assert again.fingerprint() == once.fingerprint()


def test_the_absolute_metric_is_of_the_best_policy_over_fresh_episodes(whole):
    _, directory = whole
    found = wb.statistics.absolute_metric(directory, env=PointTeam(), episodes=40)
    best = wb.load(directory / BEST, env=PointTeam())
    assert found == {
        "absolute_return": best.evaluate(40, seed=1).mean(),
        "absolute_episodes": 40,
        "absolute_env_steps": best.env_steps,
    }
    assert found["absolute_return"] != best.evaluate(40, seed=0).mean()


def test_evaluations_on_other_numbers_of_episodes_do_not_compete(tmp_path):
    run = trainer()
    run.run(iterations=2, directory=tmp_path, **EVALUATED)
    before = (tmp_path / BEST).stat().st_mtime_ns
    run.evaluate(1)
    run.run(iterations=2, directory=tmp_path, **EVALUATED)
    rows = run.evaluations
    better = rows["return"].iloc[-1] > rows["return"].iloc[0]
    assert ((tmp_path / BEST).stat().st_mtime_ns != before) == better


def test_without_a_best_policy_the_remedy_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no best policy.*evaluate_every=5"):
        wb.statistics.absolute_metric(tmp_path)


def test_a_disk_that_refuses_ends_no_training(tmp_path, monkeypatch):
    from workbench.running import checkpoint

    def refuse(path, arrays, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", refuse)
    with pytest.warns(UserWarning, match="No space left"):
        run = trainer().run(iterations=2, directory=tmp_path, **EVALUATED)
    assert run.iteration == 2
