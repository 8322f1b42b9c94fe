"""Nothing finished is lost: kills, damage, full disks and foreign files."""

from __future__ import annotations

import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from point_team import PointTeam
from training_process import train

import workbench as wb
import workbench.running.trainer as trainer_module
from workbench.errors import CheckpointError
from workbench.running import checkpoint
from workbench.running.interrupt import PhaseBoundaryInterrupt
from workbench.running.resume import CheckpointDirectory

SMALL = {"n_steps": 8, "hidden_sizes": (16,)}
PROCESS = Path(__file__).parent / "training_process.py"


def fresh(**settings):
    return wb.happo(PointTeam(), seed=0, **{**SMALL, **settings})


def start(directory, iterations, run="points"):
    process = subprocess.Popen(
        [sys.executable, str(PROCESS), str(directory), str(iterations), run], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().strip() == "started"
    return process


def killed_and_resumed(directory, iterations, kills, rng, run):
    """Kill a training process at ``kills`` random moments, then let it end; its fingerprint, and kills that met it."""
    met = 0
    for _ in range(kills):
        process = start(directory, iterations, run)
        time.sleep(rng.uniform(0, 0.5))  # anywhere: between phases, in one, in the middle of a write
        met += process.poll() is None
        process.kill()
        process.communicate()
    process = start(directory, iterations, run)
    output, _ = process.communicate()
    return output.strip(), met


def timeless(table):
    return table.drop(columns=["seconds", "env_steps_per_second"], errors="ignore")


def check_kills(tmp_path, iterations, kills, seed, run="points"):
    whole = train(tmp_path / "whole", iterations, run)
    fingerprint, met = killed_and_resumed(tmp_path / "killed", iterations, kills, random.Random(seed), run)
    assert fingerprint == whole.fingerprint()
    resumed = train(tmp_path / "killed", iterations, run)
    for table in ("history", "agent_history", "evaluations"):
        assert timeless(getattr(resumed, table)).equals(timeless(getattr(whole, table)))
    assert len(resumed.history) == iterations
    assert len(list((tmp_path / "killed").glob("checkpoint-*"))) == 2
    return met


def test_a_run_killed_at_random_moments_ends_as_if_it_never_was(tmp_path):
    assert check_kills(tmp_path, iterations=60, kills=3, seed=0) >= 1


@pytest.mark.stress
def test_a_run_killed_two_hundred_times(tmp_path):
    runs = [("points", 800)] * 4 + [("game", 500)] * 3 + [("ant", 250)] * 3
    met = sum(check_kills(tmp_path / str(i), n, 20, i, run) for i, (run, n) in enumerate(runs))
    print(f"{met} of 200 kills met a run under way")
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


def test_an_interrupt_closes_the_bar_and_leaves_a_trainer_that_goes_on(tmp_path, monkeypatch, capsys):
    closed = []

    class Bar(trainer_module.tqdm):
        def close(self):
            closed.append(self.n)
            super().close()

    monkeypatch.setattr(trainer_module, "tqdm", Bar)
    trainer = fresh()
    stop = trainer.subscribe(lambda event: os.kill(os.getpid(), signal.SIGINT) if event.env_steps == 96 else None)
    # A shell's background job is started deaf to interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(
            KeyboardInterrupt, match=r"^stopped in iteration 3, before estimate; run\(\) goes on from there$"
        ):
            trainer.run(iterations=50, directory=tmp_path, save_every=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert closed[0] == 96
    assert "HAPPO" in capsys.readouterr().err
    stop()
    trainer.run(iterations=0, progress=False)
    assert trainer.fingerprint() == fresh().run(iterations=3, progress=False).fingerprint()


def test_a_second_interrupt_does_not_wait():
    with PhaseBoundaryInterrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match=r"^stopped after iteration 3; "):
            interrupt.raise_if_asked("after iteration 3")
    with PhaseBoundaryInterrupt(terminate=True) as interrupt:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit, match="143"):
            interrupt.raise_if_asked("here")


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


def test_what_is_no_file_but_called_like_the_newest_is_passed_over(tmp_path):
    fresh().run(iterations=2, directory=tmp_path, progress=False)
    (tmp_path / "checkpoint-00000090-0000.safetensors").mkdir()
    (tmp_path / "checkpoint-00000091-0000.safetensors").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "checkpoint-00000092-0000.safetensors")
    with pytest.warns(UserWarning, match="is no file that can be read. The one before it is used") as warned:
        again = fresh().run(iterations=4, directory=tmp_path, save_every=1, progress=False)
    assert len(warned) == 3
    assert again.fingerprint() == fresh().run(iterations=4, progress=False).fingerprint()
    assert [file.name[:19] for file in CheckpointDirectory(tmp_path).files()] == [
        "checkpoint-00000003",
        "checkpoint-00000004",
    ]


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


def test_a_disk_that_takes_half_a_file_is_reported_and_what_was_there_stays(tmp_path):
    """The system itself refuses to write on: no file of this process may grow beyond so many bytes."""
    fresh().run(iterations=2, directory=tmp_path, progress=False)
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(map(len, kept.values())) // 2, hard))
    try:
        with pytest.warns(UserWarning, match="no checkpoint could be written .*; training goes on"):
            trainer = fresh().run(iterations=5, directory=tmp_path, save_every=1, progress=False)
        with pytest.raises(OSError, match="too large"):
            trainer.save(tmp_path / "by hand")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert trainer.fingerprint() == fresh().run(iterations=5, progress=False).fingerprint()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == kept
    assert fresh().run(iterations=5, directory=tmp_path, progress=False).fingerprint() == trainer.fingerprint()


def test_a_directory_that_goes_away_does_not_end_the_training(tmp_path):
    directory = tmp_path / "kept"
    trainer = fresh()

    def take_away(event):
        if event.iteration == 1 and event.phase == "collect":
            shutil.rmtree(directory)
            directory.write_text("in the way")

    trainer.subscribe(take_away)
    with pytest.warns(UserWarning, match="training goes on, there is no checkpoint yet"):
        trainer.run(iterations=3, directory=directory, save_every=1, progress=False)
    assert trainer.iteration == 3


def test_a_directory_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(OSError, match="no checkpoints can be kept in"):
        fresh().run(iterations=1, directory=tmp_path / "kept", progress=False)
    with pytest.raises(PermissionError):
        fresh().save(tmp_path / "by hand")
    with pytest.warns(UserWarning, match="training goes on, there is no checkpoint yet"):
        assert fresh().run(iterations=2, directory=tmp_path, progress=False).iteration == 2
    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o700)


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


def test_a_file_of_something_else_is_refused(tmp_path):
    safetensors.numpy.save_file({"weights": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors' is a safetensors file, but no checkpoint"):
        wb.load(tmp_path / "other.safetensors", env=PointTeam())


def test_a_team_of_another_size_is_refused(tmp_path):
    path = fresh().save(tmp_path / "run.safetensors")
    with pytest.raises(CheckpointError, match=r"it is of 4 environments, this environment is 5; pass one like it"):
        wb.load(path, env=PointTeam(5))


class Hostile:
    """A pickle of it runs a command when it is read."""

    def __init__(self, witness):
        self.command = f"touch {witness}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["pickle", "torch", "torch in the old form", "numpy"])
def test_loading_executes_nothing(form, tmp_path):
    witness, path = tmp_path / "witness", tmp_path / "run.safetensors"
    hostile = Hostile(witness)
    with open(path, "wb") as file:
        if form == "pickle":
            pickle.dump(hostile, file)
        elif form == "numpy":
            np.save(file, np.array([hostile], object), allow_pickle=True)
        else:
            torch.save(hostile, file, _use_new_zipfile_serialization=form == "torch")
    for read in (lambda: wb.load(path), lambda: wb.load(path, env=PointTeam())):
        with pytest.raises(CheckpointError, match="truncated, damaged"):
            read()
    # In a directory of checkpoints it is passed over.
    path.rename(tmp_path / "checkpoint-99999999-0000.safetensors")
    with pytest.warns(UserWarning, match="The one before it is used"):
        fresh().run(iterations=1, directory=tmp_path, progress=False)
    (tmp_path / "policies.json").write_text("{}")
    (tmp_path / "checkpoint-99999999-0000.safetensors").rename(tmp_path / "policies.safetensors")
    with pytest.raises(CheckpointError):
        wb.load_policies(tmp_path)
    assert not witness.exists()
    pickle.loads(pickle.dumps(hostile))
    assert witness.exists()  # it would have


def robot(scenario="HalfCheetah", **options):
    return wb.envs.mujoco(scenario, "2x3", n_envs=2, **options)


def test_another_environments_file_is_refused_where_the_sizes_agree(tmp_path):
    path = wb.happo(robot(), seed=0, **SMALL).save(tmp_path / "run")
    for other, told in (
        (robot("Walker2d"), r"scenario: 'HalfCheetah' there, 'Walker2d' here"),
        (robot(max_episode_steps=9), "max_episode_steps: none there, 9 here"),
    ):
        with pytest.raises(CheckpointError, match=f"is of another environment .{told}.; pass one like it"):
            wb.load(path, env=other)
    assert wb.load(path, env=robot(n_threads=1)).method == "HAPPO"  # how it is computed is the machine's affair
    games = [wb.envs.tabular(wb.theory.random_game(seed=seed), n_envs=2) for seed in range(2)]
    path = wb.happo(games[0], seed=0, **SMALL).save(tmp_path / "game")
    with pytest.raises(CheckpointError, match=r"of another environment .game: another there, another here"):
        wb.load(path, env=games[1])
    wb.happo(robot(), seed=0, **SMALL).run(iterations=1, directory=tmp_path / "kept", progress=False)
    with pytest.raises(CheckpointError, match=r"is of another run \(scenario: 'HalfCheetah' there, 'Walker2d' here\)"):
        wb.happo(robot("Walker2d"), seed=0, **SMALL).run(iterations=2, directory=tmp_path / "kept", progress=False)


def test_another_devices_file_names_the_device_and_the_remedy(tmp_path):
    trainer = fresh().run(iterations=1, progress=False)
    arrays, held = checkpoint.read(trainer.save(tmp_path / "run"))
    held["state"]["settings"]["device"] = "cuda:77"
    path = checkpoint.write(tmp_path / "elsewhere", arrays, held)
    with pytest.raises(CheckpointError, match=r"on the device 'cuda:77'.*wb\.load\(path, device='cpu'\)"):
        wb.load(path, env=PointTeam())
    moved = wb.load(path, env=PointTeam(), device="cpu")
    assert moved.iterate()[-1] == trainer.iterate()[-1]
    with pytest.raises(CheckpointError, match="on the device 'gpu'; expected a device that torch has"):
        wb.load(path, env=PointTeam(), device="gpu")


def test_a_directory_stands_for_its_newest_checkpoint(tmp_path):
    trainer = fresh().run(iterations=3, directory=tmp_path, save_every=1, progress=False)
    unfinished = tmp_path / ".checkpoint-00000004-0000.safetensors.x.partial"
    unfinished.write_text("another process is writing it")
    assert wb.load(tmp_path, env=PointTeam()).fingerprint() == trainer.fingerprint()
    assert unfinished.exists()
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        wb.load(tmp_path.parent)
    with pytest.raises(IsADirectoryError, match=r"is a directory; name a file in it, such as .*run\.safetensors"):
        trainer.save(tmp_path)


def test_a_game_that_fills_megabytes_is_kept_too(tmp_path, monkeypatch):
    env = wb.envs.tabular(wb.theory.random_game(n_states=20, n_actions=(3, 2), seed=0), n_envs=2)
    trainer = wb.happo(env, seed=0, **SMALL)
    trainer.iterate()
    small = trainer.save(tmp_path / "in the header").read_bytes()
    monkeypatch.setattr(checkpoint, "LONG", 10_000)
    path = trainer.save(tmp_path / "beside the arrays")
    assert len(small) < 100_000_000  # what a header may be
    assert path.read_bytes() != small
    assert wb.load(path).fingerprint() == trainer.fingerprint()
    content = bytearray(path.read_bytes())
    content[content.index(b'"transition": [[[[0.') + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="does not match"):
        wb.load(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": 2.5}, r"iterations is 2\.5; expected an integer ≥ 0"),
        ({"iterations": "3"}, "iterations is '3'; expected an integer"),
        ({"env_steps": -1}, "env_steps is -1; expected an integer ≥ 0"),
        ({"iterations": 1, "save_every": 0}, "save_every is 0; expected an integer ≥ 1"),
        ({"iterations": 1, "evaluate_every": 0}, "evaluate_every is 0; expected an integer ≥ 1"),
        ({"iterations": 1, "evaluate_episodes": None}, "evaluate_episodes is None; expected an integer ≥ 1"),
        ({}, "either iterations= or env_steps="),
    ],
)
def test_what_run_cannot_do_is_refused_before_it_begins(arguments, message, tmp_path):
    trainer = fresh()
    with pytest.raises(ValueError, match=message):
        trainer.run(**arguments, directory=tmp_path / "kept", progress=False)
    assert trainer.phase == "collect"
    assert not (tmp_path / "kept").exists()
    assert trainer.run(env_steps=1e2, progress=False).env_steps == 128


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


def test_a_fork_with_numpys_values_or_a_function_for_its_order_can_be_saved(tmp_path):
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    for number, changes in enumerate(
        [{"clip_epsilon": np.float32(0.1)}, {"order": np.array([2, 0, 1])}, {"order": sorted_by_name}]
    ):
        fork = trainer.fork(**changes)
        path = fork.save(tmp_path / f"{number}.safetensors")
        given = {"order": sorted_by_name} if callable(fork.order) else {}
        assert wb.load(path, env=PointTeam(), **given).fingerprint() == fork.fingerprint()


def sorted_by_name(context):
    return sorted(context.remaining)


def test_the_order_of_agents_that_a_user_named_is_kept_in_the_file(tmp_path):
    parts = {"front": ["thigh_joint"], "back": ["leg_joint", "foot_joint"]}
    env = wb.envs.mujoco("Hopper", agent_factorization=parts, n_envs=2, n_threads=1)
    trainer = wb.happo(env, seed=0, **SMALL)
    assert wb.load(trainer.save(tmp_path / "run.safetensors")).env.agents == ("front", "back")
