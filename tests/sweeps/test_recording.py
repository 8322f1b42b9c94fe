"""``wb.record``: what it writes down, when it evaluates, and that a kill changes none of it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from point_team import PointTeam
from recording_process import EVERY, STEPS, record_points

import workbench as wb
from workbench.sweeps import files, layout
from workbench.sweeps.report_page import page

PROCESS = Path(__file__).parent / "recording_process.py"
TIMELESS = ("iteration", "env_steps", "return", "reward", "kl", "value_loss", "order", "returns", "agent", "m_variance")


def rows(directory, name):
    return [{k: v for k, v in row.items() if k in TIMELESS} for row in files.read_lines(directory / name)]


def everything(directory):
    return {name: rows(directory, name) for name in (layout.METRICS, layout.AGENTS, layout.EVALUATIONS)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed: its directory and its summary."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, record_points(directory)


def test_everything_is_written_down(whole):
    directory, summary = whole
    metrics = files.read_lines(directory / layout.METRICS)
    evaluations = files.read_lines(directory / layout.EVALUATIONS)
    assert [row["env_steps"] for row in metrics] == list(range(32, STEPS + 1, 32))
    # The untrained team, every EVERY rounded up to iterations of 32 steps, and the end.
    assert [row["env_steps"] for row in evaluations] == [0, *range(128, STEPS, 128), STEPS]
    for row in evaluations:
        assert row["return"] == pytest.approx(np.mean(row["returns"]))
        assert len(row["returns"]) == row["episodes"] == 8
    assert len(files.read_lines(directory / layout.AGENTS)) == 3 * len(metrics)
    assert summary == files.read_json(directory / layout.SUMMARY)
    assert summary["return"] == evaluations[-1]["return"]
    assert summary["env_steps"] == STEPS
    assert summary["env_steps_per_second"] > 0
    assert not summary["steered"]
    best = max(evaluations, key=lambda row: row["return"])
    assert summary["absolute_env_steps"] == best["env_steps"]
    assert summary["absolute_episodes"] == 20
    loaded = wb.load(directory / layout.CHECKPOINTS / "best.safetensors", env=PointTeam())
    assert loaded.evaluate(20, seed=1).mean() == summary["absolute_return"]


def test_a_run_killed_at_random_moments_leaves_the_same_lines(whole, tmp_path):
    undisturbed, summary = whole
    rng, met = random.Random(0), 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, str(PROCESS), str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline().strip() == "started"
        time.sleep(rng.uniform(0, 0.4))  # anywhere: in an evaluation, in the middle of a line
        met += process.poll() is None
        process.kill()
        process.communicate()
    assert met
    again = record_points(tmp_path)
    assert again["fingerprint"] == summary["fingerprint"]
    assert again["absolute_return"] == summary["absolute_return"]
    assert everything(tmp_path) == everything(undisturbed)
    # And once more, when there is nothing left to do.
    assert record_points(tmp_path)["fingerprint"] == summary["fingerprint"]
    assert everything(tmp_path) == everything(undisturbed)


def test_evaluating_and_recording_change_nothing(whole, tmp_path):
    _, summary = whole
    plain = record_points(None, evaluate_every=None, absolute_episodes=0)
    assert plain["fingerprint"] == summary["fingerprint"]
    assert "absolute_return" not in plain
    assert not list(tmp_path.iterdir())


def test_lines_are_there_while_it_trains(tmp_path):
    seen = []

    class Looking(PointTeam):
        def step(self, actions):
            seen.append(len(files.read_lines(tmp_path / layout.METRICS)))
            return super().step(actions)

    trainer = wb.happo(Looking(), seed=0, n_steps=8, hidden_sizes=(16,))
    wb.record(trainer, tmp_path, env_steps=128, progress=False)
    assert seen[::8] == [0, 1, 2, 3]
    assert len(files.read_lines(tmp_path / layout.METRICS)) == 4


def test_bad_intervals_are_refused():
    trainer = wb.happo(PointTeam(), seed=0, n_steps=8, hidden_sizes=(16,))
    with pytest.raises(ValueError, match="evaluate_every is 0; expected None or env steps ≥ 1"):
        wb.record(trainer, env_steps=64, evaluate_every=0)
    assert EVERY < 128


def test_a_report_shows_its_figures_without_kernel_or_network(root):
    content = (root / "notebooks" / "experiment.ipynb").read_text(encoding="utf-8")
    html = page(content, "experiment")
    assert len(html.encode()) < 1_000_000
    assert html.count('src="data:image/png;base64,') == 3
    assert "http://" not in html.replace("http://www.w3.org/", "")
    assert 'src="http' not in html
