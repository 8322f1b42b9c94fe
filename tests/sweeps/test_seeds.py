"""Seeds side by side: the bits of each alone, going on, and what takes them."""

from __future__ import annotations

import pytest

import workbench as wb

SETTINGS = {"n_steps": 8, "hidden_sizes": (8,)}


def test_each_seed_has_the_bits_of_its_run_alone_and_every_view_takes_them(tmp_path):
    env = wb.envs.mujoco("Hopper", "3x1", n_envs=2)
    options = {"directory": tmp_path / "runs", "progress": False, "workers": 1, **SETTINGS}
    seeds = wb.run_seeds(wb.hatrpo, env, seeds=2, env_steps=64, **options)
    assert seeds.finished
    for seed, trainer in enumerate(seeds.trainers):
        alone = wb.hatrpo(env, seed=seed, threads=1, **SETTINGS).run(env_steps=64, progress=False)
        assert trainer.fingerprint() == alone.fingerprint()
    ends = [(run.directory / "finished.json").stat().st_mtime_ns for run in seeds.runs]
    again = wb.run_seeds("hatrpo", env, seeds=[0, 1], env_steps=64, **options)
    assert [(run.directory / "finished.json").stat().st_mtime_ns for run in again.runs] == ends
    assert wb.statistics.compare(again, resamples=50).groups == ("hatrpo",)
    assert wb.views.learning_curves({"HATRPO": again}, resamples=50).text.endswith("HATRPO")
    assert wb.views.returns(again).text.endswith("HATRPO 1, HATRPO 2")


def test_what_cannot_be_run_is_told_before_anything_is_written(tmp_path):
    env = wb.envs.mujoco("Hopper", "3x1", n_envs=2)
    where = {"env_steps": 64, "directory": tmp_path / "runs"}
    with pytest.raises(ValueError, match="did you mean 'hatrpo'"):
        wb.run_seeds("hatrop", env, **where)
    with pytest.raises(ValueError, match="did you mean 'max_kl'"):
        wb.run_seeds(wb.hatrpo, env, maxkl=0.1, **where)
    with pytest.raises(ValueError, match="cannot be told to other processes"):
        wb.run_seeds(wb.hatrpo, env, order=lambda context: context.units, **where)
    with pytest.raises(ValueError, match="Train one seed after another"):
        wb.run_seeds(wb.hatrpo, 3, **where)
    assert not (tmp_path / "runs").exists()
