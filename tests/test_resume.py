"""Nothing finished is lost: kills, damage, full disks and foreign files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from point_team import PointTeam
from training_process import train

import workbench as wb
from workbench import checkpoint
from workbench.errors import CheckpointError
from workbench.resume import CheckpointDirectory

SMALL = {"n_steps": 8, "hidden_sizes": (16,)}
PROCESS = Path(__file__).parent / "training_process.py"


def fresh(**settings):
    return wb.happo(PointTeam(), seed=0, **{**SMALL, **settings})


def start(directory, iterations):
    process = subprocess.Popen(
        [sys.executable, str(PROCESS), str(directory), str(iterations)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().strip() == "started"
    return process


def killed_and_resumed(directory, iterations, kills, rng):
    """Kill a training process at ``kills`` random moments, then let it end; its fingerprint, and kills that met it."""
    met = 0
    for _ in range(kills):
        process = start(directory, iterations)
        time.sleep(rng.uniform(0, 0.5))  # anywhere: between phases, in one, in the middle of a write
        met += process.poll() is None
        process.kill()
        process.communicate()
    process = start(directory, iterations)
    output, _ = process.communicate()
    return output.strip(), met


def check_kills(tmp_path, iterations, kills, seed):
    whole = train(tmp_path / "whole", iterations)
    fingerprint, met = killed_and_resumed(tmp_path / "killed", iterations, kills, random.Random(seed))
    assert fingerprint == whole.fingerprint()
    resumed = train(tmp_path / "killed", iterations)
    assert resumed.history["return"].equals(whole.history["return"])
    timeless = ["iteration", "agent", "position", "kl", "surrogate_gain", "m_variance"]
    assert resumed.agent_history[timeless].equals(whole.agent_history[timeless])
    assert len(list((tmp_path / "killed").iterdir())) == 2
    return met


def test_a_run_killed_at_random_moments_ends_as_if_it_never_was(tmp_path):
    assert check_kills(tmp_path, iterations=60, kills=3, seed=0) >= 1


@pytest.mark.stress
def test_a_run_killed_two_hundred_times(tmp_path):
    met = sum(check_kills(tmp_path / str(i), iterations=1500, kills=20, seed=i) for i in range(10))
    assert met >= 150


def test_a_termination_signal_saves_first(tmp_path):
    process = start(tmp_path, 100_000)
    while not list(tmp_path.glob("checkpoint-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    newest = CheckpointDirectory(tmp_path).newest()
    assert newest is not None
    loaded = wb.load(newest[0], env=PointTeam())
    reached = loaded.iteration
    twin = fresh(threads=1)
    while (twin.iteration, twin.phase, twin.remaining) != (reached, loaded.phase, loaded.remaining):
        twin.step()
    assert twin.fingerprint() == loaded.fingerprint()


def test_run_takes_up_what_the_directory_holds(tmp_path):
    whole = fresh().run(iterations=7, progress=False)
    fresh().run(iterations=4, directory=tmp_path, save_every=2, progress=False)
    again = fresh()
    again.run(iterations=7, directory=tmp_path, progress=False)
    assert again.fingerprint() == whole.fingerprint()
    assert again.history["return"].equals(whole.history["return"])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_steered_run_is_taken_up_steered(tmp_path):
    trainer = fresh()
    trainer.run(iterations=2, progress=False)
    trainer.clip_epsilon = 0.1
    trainer.run(iterations=2, directory=tmp_path, progress=False)
    again = fresh().run(iterations=5, directory=tmp_path, progress=False)
    assert again.steered
    assert again.clip_epsilon == 0.1
    assert again.fingerprint() == trainer.run(iterations=1, progress=False).fingerprint()


def test_another_run_does_not_go_on_from_it(tmp_path):
    fresh().run(iterations=2, directory=tmp_path, progress=False)
    for other, what in (
        (fresh(clip_epsilon=0.1), "clip_epsilon: 0.2 there, 0.1 here"),
        (wb.happo(PointTeam(), seed=1, **SMALL), "seed: 0 there, 1 here"),
        (wb.mappo(PointTeam(), seed=0, **SMALL), "method: 'happo' there, 'mappo' here"),
    ):
        with pytest.raises(CheckpointError, match=what):
            other.run(iterations=3, directory=tmp_path, progress=False)
    ahead = fresh().run(iterations=3, progress=False)
    with pytest.raises(CheckpointError, match="is behind this trainer"):
        ahead.run(iterations=1, directory=tmp_path, progress=False)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path):
    fresh().run(iterations=4, directory=tmp_path, save_every=1, progress=False)
    newest = CheckpointDirectory(tmp_path).files()[-1]
    newest.write_bytes(newest.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="The one before it is used"):
        again = fresh().run(iterations=6, directory=tmp_path, progress=False)
    assert again.fingerprint() == fresh().run(iterations=6, progress=False).fingerprint()


def test_a_full_disk_is_reported_and_training_goes_on(tmp_path, monkeypatch):
    fresh().run(iterations=2, directory=tmp_path, progress=False)
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match=r"No space left on device; training goes on, the last checkpoint is"):
        trainer = fresh().run(iterations=3, directory=tmp_path, progress=False)
    assert trainer.iteration == 3
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == kept


def test_a_directory_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    trainer = fresh()
    with pytest.raises(OSError, match="no checkpoints can be kept in"):
        trainer.run(iterations=1, directory=tmp_path / "file", progress=False)
    assert trainer.iteration == 0


def damaged(whole, rng):
    """Bytes with one bit flipped, or cut anywhere, or a stretch overwritten."""
    content = bytearray(whole)
    kind = rng.integers(3)
    if kind == 0:
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del content[rng.integers(len(content)) :]
    else:
        at = rng.integers(len(content))
        stretch = rng.bytes(int(rng.integers(1, 64)))
        content[at : at + len(stretch)] = stretch
    return bytes(content)


def check_damage(tmp_path, n):
    path = fresh().save(tmp_path / "run.safetensors")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(n):
        content = damaged(whole, rng)
        if content == whole:
            continue
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(CheckpointError, match=r"\.$") as caught:
                wb.load(path, env=PointTeam())
        assert "\n" not in str(caught.value)


def test_damaged_files_get_one_clear_sentence(tmp_path):
    check_damage(tmp_path, 150)


@pytest.mark.stress
def test_a_thousand_damaged_files(tmp_path):
    check_damage(tmp_path, 1000)


def test_a_file_of_another_format_names_the_version_that_reads_it(tmp_path):
    path = fresh().save(tmp_path / "run.safetensors")
    arrays, held = checkpoint.read(path)
    checkpoint.write(path, arrays, {**held, "format": 99, "workbench": "7.0"})
    with pytest.raises(CheckpointError, match=r"format 99.*Load it with workbench 7\.0"):
        wb.load(path, env=PointTeam())


def test_loading_executes_nothing(tmp_path):
    witness = tmp_path / "witness"
    hostile = f"cos\nsystem\n(S'touch {witness}'\ntR.".encode()
    path = tmp_path / "run.safetensors"
    path.write_bytes(hostile)
    with pytest.raises(CheckpointError, match="truncated, damaged"):
        wb.load(path)
    assert not witness.exists()


def test_an_order_that_was_a_function_must_be_given_again(tmp_path):
    def last_first(context):
        return context.remaining[::-1]

    trainer = fresh(order=last_first)
    trainer.iterate()
    path = trainer.save(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"last_first.*pass it"):
        wb.load(path, env=PointTeam())
    loaded = wb.load(path, env=PointTeam(), order=last_first)
    loaded.iterate(), trainer.iterate()
    assert loaded.fingerprint() == trainer.fingerprint()
