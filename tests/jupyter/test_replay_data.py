"""What a replay hands to pages, files and notebooks: small, whole, the same every time, and nothing from outside."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image
from seen_team import SMALL, SeenTeam, game_trainer, hoppers

import workbench as wb
from workbench.envs.workers import WorkerError
from workbench.episodes import rendering
from workbench.errors import UnknownNameError, WorkbenchError
from workbench.jupyter import look
from workbench.jupyter.cells import ClosedOnRerun
from workbench.jupyter.replay.film import film
from workbench.jupyter.replay.filmstrip import filmstrip
from workbench.jupyter.replay.viewer import Replay


def unpacked(value: Any, block: bytes) -> Any:
    """A spec with its arrays back in their places, as the page has them."""
    if isinstance(value, list):
        return [unpacked(item, block) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" in value:
        offset, length = value["$"]
        return np.frombuffer(block, np.float32, length, 4 * offset)
    return {key: unpacked(item, block) for key, item in value.items()}


class Drawn:
    """A PettingZoo parallel environment of two agents on a strip, which draws where they are; ends after some steps."""

    def __init__(self, render_mode: str | None = "rgb_array", length: int = 4) -> None:
        self.metadata: dict[str, Any] = {}
        self.possible_agents = ["left", "right"]
        self.render_mode, self.length = render_mode, length
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Box(-10, 10, (2,), np.float32)

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Discrete(2)

    def _seen(self) -> dict[str, Any]:
        return {agent: np.array([self.at, self.t], np.float32) for agent in self.agents}

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents, self.at, self.t = list(self.possible_agents), 2, 0
        return self._seen(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[dict[str, Any], ...]:
        self.t += 1
        self.at += 1 if sum(map(int, actions.values())) else -1
        over = self.t >= self.length
        there = self.agents
        seen = self._seen()
        self.agents = [] if over else there
        rewards = dict.fromkeys(there, float(self.at))
        return seen, rewards, dict.fromkeys(there, False), dict.fromkeys(there, over), {agent: {} for agent in there}

    def get_state(self) -> dict[str, Any]:
        return {"agents": list(self.agents), "at": self.at, "t": self.t}

    def set_state(self, state: dict[str, Any]) -> None:
        self.agents, self.at, self.t = list(state["agents"]), state["at"], state["t"]

    def render(self) -> Any:
        picture = np.zeros((10, 20, 3), np.uint8)
        picture[:, np.clip(self.at, 0, 19)] = 50 + 10 * self.t
        return picture


# ---- the page ----


def test_a_thousand_frames_of_an_ant_are_less_than_a_megabyte() -> None:
    env = wb.envs.mujoco("Ant", "8x1", n_envs=1)
    replay = wb.replay(lambda seen: {agent: np.zeros((1, 1), np.float32) for agent in env.agents}, env, max_steps=1000)
    assert len(replay.episodes[0]) == 1000
    spec, block, pictures = replay.data()
    poses = spec["takes"][0]["episodes"][0]["poses"]["$"][1]
    assert poses * 4 == 1001 * 13 * 28  # 28 bytes a geom and frame
    assert len(block) + len(str(spec)) + len(pictures) < 700_000
    player = replay.widget()
    assert len(player._esm) + len(player._css) < 60_000  # comes on top, once a player
    replay.close()


def test_what_the_page_has_is_what_was_recorded() -> None:
    trainer = hoppers(max_episode_steps=6)
    replay = trainer.replay(2, past=True)
    spec, block, _ = replay.data()
    page = unpacked(spec, block)
    scene = replay.scene.geometry
    assert (page["kind"], page["title"], page["seconds"]) == ("poses", "Hopper 3x1", pytest.approx(0.008))
    assert [agent["color"] for agent in page["agents"]] == list(look.PALETTE[:3])
    assert [agent["components"][0]["name"] for agent in page["agents"]] == ["thigh_joint", "leg_joint", "foot_joint"]
    for take, shown in zip(replay.takes, page["takes"], strict=True):
        for episode, there in zip(take.episodes, shown["episodes"], strict=True):
            assert there["frames"] == len(episode) + 1
            np.testing.assert_array_equal(there["poses"].reshape(len(episode) + 1, -1, 7), scene.poses(episode.sights))
            np.testing.assert_allclose(there["rewards"], episode.rewards, rtol=1e-6)
            assert [name for name, _ in there["terms"]][:3] == ["forward", "ctrl", "survive"]
            for k, agent in enumerate(trainer.env.agents):
                np.testing.assert_array_equal(there["actions"][k], episode.actions[agent].ravel())


def test_a_page_of_its_own_holds_everything_and_names_no_other(tmp_path: Path) -> None:
    path = hoppers(max_episode_steps=4).replay().to_html(tmp_path / "hopper.html")
    text = path.read_text(encoding="utf-8")
    # All but k3d's own script, which is packed, and whose addresses belong to what the player does not use.
    readable = re.sub(r'<script type="text/plain" id="(k3d|block|pictures)">[^<]*', "", text)
    assert not re.search(r"https?:|src=|@import|url\(", readable)
    assert len(text) < 2_000_000


def test_setting_what_is_shown() -> None:
    replay = game_trainer().replay(2, past=True)
    player = replay.widget()
    replay.frame = 3
    replay.episode = -1
    assert player.at == {"take": 0, "episode": 1, "frame": 3}
    player.shown = {"take": 0, "episode": 0, "frame": 5}  # as the page says
    assert (replay.take, replay.episode, replay.frame) == (0, 0, 5)
    with pytest.raises(ValueError, match="frame is 99"):
        replay.frame = 99
    replay.close()
    assert replay.frame == 5
    for takes in ([], [dataclasses.replace(replay.takes[0], episodes=())]):
        with pytest.raises(ValueError, match="there is no episode to show"):
            Replay(replay.scene, takes)


def test_a_start_that_fails_is_said_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = hoppers(max_episode_steps=5).replay()
    player = replay.widget()
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(player, "send", lambda message, buffers=None: said.append(message))
    player._hear(player, {"type": "start", "take": 0, "episode": 0, "frame": 2}, [])
    player._hear(player, {"type": "start", "take": 0, "episode": 0, "frame": 5}, [])
    assert [message["error"] for message in said] == [False, True]
    assert said[0]["text"] == "A fork stands at frame 2: it is replay.forks[0]."
    assert "nothing follows it" in said[1]["text"]
    replay.close()


# ---- pictures ----


def drawn_trainer(**options: Any) -> Any:
    env = wb.envs.pettingzoo(lambda: Drawn(**options), n_envs=2, reward="mean")
    return wb.happo(env, seed=0, n_steps=6, hidden_sizes=(8,))


def test_an_environment_that_draws_itself_is_shown_by_its_pictures_the_last_one_too() -> None:
    trainer = drawn_trainer()
    replay = trainer.replay(2)
    spec, _, pictures = replay.data()
    assert spec["kind"] == "pictures"
    for episode, shown in zip(replay.episodes, spec["takes"][0]["episodes"], strict=True):
        places = [2]
        for left, right in zip(episode.actions["left"], episode.actions["right"], strict=True):
            places.append(places[-1] + (1 if left + right else -1))
        for frame, (offset, length) in enumerate(shown["pictures"]):
            image = np.asarray(Image.open(io.BytesIO(pictures[offset : offset + length])))
            assert np.array_equal(image, episode.sights[frame])
            assert (image[:, places[frame]] == 50 + 10 * frame).all()
        assert len(shown["pictures"]) == 5
    assert len({tuple(place) for shown in spec["takes"][0]["episodes"] for place in shown["pictures"]}) <= 10
    fork = replay.start_here(3)
    fork.step()
    assert fork._state.rollout.done[0].all()  # one step was left of four


def test_pictures_come_from_worker_processes_too() -> None:
    env = wb.envs.pettingzoo(Drawn, n_envs=2, reward="mean", workers=1)
    try:
        env.reset(seed=0)
        assert env.render_state().shape == (2, 10, 20, 3)
        for _ in range(4):
            step = env.step({agent: np.ones(2, int) for agent in env.agents})
        assert step.done.all()
        assert (env.render_state()[:, :, 6] == 90).all()
        env.step({agent: np.ones(2, int) for agent in env.agents})
        assert (env.render_state()[:, :, 3] == 60).all()
    finally:
        env.close()


def test_an_environment_with_another_render_mode_shows_nothing() -> None:
    with pytest.raises(ValueError, match='render_mode="rgb_array"'):
        drawn_trainer(render_mode="human").replay()


def test_a_game_is_shown_by_its_states() -> None:
    replay = game_trainer().replay()
    spec, block, _ = replay.data()
    assert (spec["kind"], spec["states"]) == ("game", 4)
    states = unpacked(spec, block)["takes"][0]["episodes"][0]["states"]
    np.testing.assert_array_equal(states, replay.episodes[0].sights)
    pictures = film(replay, stop=3, fps=5)
    assert pictures.shape == (4, 320, 560, 3)
    assert not np.array_equal(pictures[0], pictures[1])


# ---- what a notebook keeps ----


def test_the_record_is_a_picture_in_the_agents_colours_and_a_text_that_never_changes() -> None:
    trainer = hoppers(max_episode_steps=30)
    replay = trainer.replay(past=True)
    record = replay.record()
    assert record["text/plain"] == "Replay of Hopper 3x1: 1 episode"
    png = base64.b64decode(record["image/png"])
    assert png == filmstrip(trainer.replay())
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    assert image.shape == (250, 860, 3)
    for color in look.PALETTE[:3]:
        wanted = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)])
        # As bright as what faces the light, or as the swatch beside the name.
        assert (np.abs(image - wanted).max(-1) < 12).sum() > 20
    for other in (game_trainer().replay(), drawn_trainer().replay(), wb.happo(SeenTeam(), seed=0, **SMALL).replay()):
        assert len(filmstrip(other)) > 3000


def test_a_cell_that_runs_again_closes_what_it_showed() -> None:
    shown, closed = ClosedOnRerun(), []

    class Kernel:
        cell = "a"

        def get_parent(self) -> dict[str, Any]:
            return {"metadata": {"cellId": self.cell}}

    class Events:
        def register(self, name: str, call: Any) -> None:
            self.begin = call

    class Shell:
        kernel, events = Kernel(), Events()

    class Info:
        def __init__(self, cell_id: str | None) -> None:
            self.cell_id = cell_id

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.core.getipython.get_ipython", Shell)
        shown.add(lambda: closed.append("a1"))
        shown.add(lambda: closed.append("a2"))
        Kernel.cell = "b"
        shown.add(lambda: closed.append("b"))
        for cell in (None, "c", "a", "a"):
            Shell.events.begin(Info(cell))
        assert closed == ["a1", "a2"]
        Shell.events.begin(Info("b"))
        assert closed == ["a1", "a2", "b"]


def test_closing_a_replay_closes_its_widgets() -> None:
    from ipywidgets.widgets.widget import _instances

    before = set(_instances)
    replay = game_trainer().replay()
    replay.widget(), replay.widget()
    assert len(set(_instances) - before) >= 2
    replay.close()
    assert set(_instances) == before


def test_replaying_loads_no_widgets_before_it_is_asked_for() -> None:
    code = (
        "import sys, workbench.running.trainer, workbench.episodes.rendering; "
        "print([name for name in ('anywidget', 'matplotlib', 'mujoco', 'PIL') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ---- films ----


@pytest.fixture(scope="module")
def hopping() -> Any:
    trainer = hoppers(max_episode_steps=25)
    return trainer.replay(ghost=trainer)


def test_a_film_shows_the_solids_in_the_agents_colours(hopping: Any, tmp_path: Path) -> None:
    try:
        path = hopping.to_gif(tmp_path / "hopper.gif", fps=25, speed=0.25, width=160, height=120, ghost=False)
    except rendering.RenderingError as error:
        pytest.skip(str(error))
    with Image.open(path) as image:
        assert image.size == (160, 120)
        # 25 steps of 8 ms in quarter time, 40 ms a picture.
        assert (image.n_frames, image.info["duration"]) == (1 + round(25 * 0.008 * 4 / 0.04), 40)
        image.seek(0)
        pixels = np.asarray(image.convert("RGB")).astype(float)
    for color in look.PALETTE[:3]:
        wanted = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)], float)
        hue = pixels / np.maximum(pixels.sum(-1, keepdims=True), 1) - wanted / wanted.sum()
        assert (np.abs(hue).max(-1) < 0.07).sum() > 10, color
    with pytest.raises(UnknownNameError, match="theme"):
        film(hopping, theme="blue")
    with pytest.raises(ValueError, match="stop=99"):
        film(hopping, stop=99)
    with pytest.raises(ValueError, match="speed is 0"):
        film(hopping, speed=0)


def test_without_a_graphics_system_it_says_what_was_tried_and_what_helps(
    hopping: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "no such system")
    with pytest.raises(rendering.RenderingError, match=r"no such system.*libegl1.*to_html\(\) needs none"):
        film(hopping)
    assert issubclass(rendering.RenderingError, WorkbenchError)
    assert not issubclass(rendering.RenderingError, WorkerError)


def test_an_mp4_goes_through_ffmpeg_and_says_so_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = game_trainer().replay()
    monkeypatch.setattr("shutil.which", lambda program: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WorkbenchError, match="needs ffmpeg"):
        replay.to_mp4(tmp_path / "game.mp4")
    # A stand-in that keeps what it is given: the pictures, one after the other, and where they should go.
    program = tmp_path / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\n"
        "pathlib.Path(sys.argv[-1]).write_bytes(sys.stdin.buffer.read())\n"
        "sys.exit(sys.argv[1:4] != ['-y', '-loglevel', 'error'])\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(program))
    path = replay.to_mp4(tmp_path / "game.mp4", stop=2, fps=5)
    assert path.read_bytes() == film(replay, stop=2, fps=5).tobytes()
    program.write_text("#!/bin/sh\ncat > /dev/null; echo no encoder >&2; exit 1\n")
    with pytest.raises(WorkbenchError, match="ffmpeg failed: no encoder"):
        replay.to_mp4(tmp_path / "other.mp4", stop=1)
