"""The player in JupyterLab, in a real browser: what is recorded is seen, and moved by mouse and keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mujoco
import nbconvert
import numpy as np
import pytest
from lab import SECONDS, Notebook, Server, browser_page
from playwright.sync_api import Browser, Locator, Page, expect

import workbench as wb
from workbench.jupyter import look

SETUP = """
import numpy as np
import workbench as wb
from IPython import get_ipython
from IPython.display import display
from ipywidgets.widgets.widget import _instances

def counts():
    return [len(_instances), len(get_ipython().kernel.comm_manager.comms)]

env = wb.envs.mujoco("Ant", "4x2", n_envs=2, terminate_when_unhealthy=False)
trainer = wb.happo(env, seed=0, n_steps=10, hidden_sizes=(8,))
trainer.run(iterations=2, progress=False)
fork = trainer.fork()
fork.run(iterations=1, progress=False)
"""
SHOW = """
replay = trainer.replay(2, past=True, ghost={"the fork": fork}, max_steps=40, deterministic=False)
replay
"""


class Playing:
    """A player on a page."""

    def __init__(self, page: Page, notebook: Notebook | None = None, number: int = 0) -> None:
        self.page, self.notebook = page, notebook
        self.first_bytes, self.received = 0, list[int]()
        self.root = page.locator(".wb-replay").nth(number)

    def button(self, label: str) -> Locator:
        return self.root.get_by_role("button", name=label, exact=True)

    def choice(self, label: str) -> Locator:
        return self.root.get_by_label(label, exact=True)

    @property
    def stage(self) -> Locator:
        return self.root.locator(".wb-stage")

    @property
    def clock(self) -> Locator:
        return self.root.locator(".wb-clock").first

    def js(self, expression: str, argument: Any = None) -> Any:
        """The value of an expression of ``p``, the player, and ``a``, the argument."""
        return self.root.evaluate(f"(root, a) => {{ const p = root.player; return {expression}; }}", argument)

    def until(self, condition: str, seconds: float = 30) -> None:
        self.page.wait_for_function(
            f"root => {{ const p = root.player; return {condition}; }}",
            arg=self.root.element_handle(),
            timeout=seconds * SECONDS,
        )

    def opened(self) -> Playing:
        self.root.wait_for()
        self.stage.scroll_into_view_if_needed()
        self.until("root.dataset.opened && p.stage.alive", 60)
        return self

    def seek(self, frame: int, **where: int) -> None:
        self.js("p.seek(a.frame, a)", {"frame": frame, **where})

    def camera(self) -> list[float]:
        return self.js("[...p.stage.camera()]")

    def ask(self, expression: str) -> Any:
        assert self.notebook is not None
        return self.notebook.ask(expression)


LONG = "wb.replay(lambda seen: {a: np.zeros((1, 2), np.float32) for a in env.agents}, env, max_steps=1000)"
MANY = "several = [trainer.replay(max_steps=5, seed=seed) for seed in range(10)]"
SHOW_MANY = """
for each in several:
    display(each)
"""
SHOWN, LONG_SHOWN, MANY_SHOWN = 1, 2, 4  # cells


@pytest.fixture(scope="module")
def opened(server: Server, browser: Browser) -> Iterator[Playing]:
    """A notebook with a player; its page asks for nothing from elsewhere, and is counted what the kernel sends."""
    server.write("replay.ipynb", [SETUP, SHOW, LONG, MANY, SHOW_MANY])
    with browser_page(browser) as page:
        addresses: list[str] = []
        received: list[int] = []
        page.on("request", lambda request: addresses.append(request.url))
        page.on("websocket", lambda it: it.on("framereceived", lambda frame: received.append(len(frame))))
        playing = Playing(page, Notebook(page, server, "replay.ipynb").open())
        assert playing.notebook is not None
        playing.notebook.run(0)
        before = sum(received)
        playing.notebook.run(SHOWN)
        playing.opened()
        playing.first_bytes, playing.received = sum(received) - before, received
        yield playing
        own = (f"http://127.0.0.1:{server.port}/", "blob:", "data:")
        assert [address for address in addresses if not address.startswith(own)] == []


@pytest.fixture
def player(opened: Playing) -> Iterator[Playing]:
    """The player as it was at first; afterwards the page has complained of nothing."""
    opened.opened()
    opened.js("p.setLoop(false) ?? p.setSpeed(1) ?? p.setGhost(true) ?? p.pause()")
    opened.js("p.setCamera('follow') ?? p.seek(0, {take: 2, episode: 0}) ?? p.stage.resetCamera()")
    yield opened
    opened.js("p.pause()")
    assert opened.page.errors == []  # type: ignore[attr-defined]


def test_every_geom_is_where_mujoco_has_it_in_every_frame_and_in_its_agents_colour(player: Playing) -> None:
    sights = np.array(player.ask("[[e.sights.tolist() for e in take.episodes] for take in replay.takes]"))
    env = wb.envs.mujoco("Ant", "4x2", n_envs=1, terminate_when_unhealthy=False)
    scene, model, data = env.scene(), env.model, mujoco.MjData(env.model)
    for take, episode in ((0, 1), (2, 0)):
        # Column by column, as matrices of three.js are.
        drawn = player.js(
            "Array.from({length: p.last + 1}, (_, f) => (p.seek(f, a), p.stage.matrices().map(([, m]) => m)))",
            {"take": take, "episode": episode},
        )
        assert len(drawn) == 41
        for sight, frame in zip(sights[take, episode], drawn, strict=True):
            data.qpos[:] = sight
            mujoco.mj_forward(model, data)
            for geom, matrix in zip(scene.geoms, np.array(frame).reshape(-1, 4, 4), strict=True):
                np.testing.assert_allclose(matrix[3, :3], data.geom_xpos[geom], atol=1e-4)
                np.testing.assert_allclose(matrix[:3, :3].T.ravel(), data.geom_xmat[geom], atol=1e-4)
    colors = player.js("p.stage.solids.map(mesh => '#' + mesh.material.color.getHexString())")
    for color, solid in zip(colors, scene.solids, strict=True):
        if solid.owners:
            assert color.upper() == look.agent_color(env.agents, solid.owners[0]).upper()
        else:
            assert color == "#b4bac4"


def test_it_plays_pauses_and_stops_at_the_end(player: Playing) -> None:
    before = player.js("p.drawn")
    player.choice("Speed").select_option("0.1×")
    player.button("Play").click()
    player.until(f"p.at.frame % 1 > 0 && p.drawn > {before} + 3")  # between two frames, as time goes
    player.button("Pause").click()
    frame = player.js("p.at.frame")
    assert frame == int(frame)
    expect(player.clock).to_contain_text(f"{frame} / 40 · {frame * 0.05:.2f} s")
    player.choice("Speed").select_option("8×")
    player.button("Play").click()
    player.until("!p.playing && p.at.frame === p.last")
    player.button("Loop").click()
    player.button("Play").click()
    player.until("p.playing && p.at.frame < p.last")
    seen = player.js("p.drawn")
    player.until(f"p.drawn > {seen} + 60 || p.drawn > {seen} && p.at.frame < 5", 60)
    assert player.js("p.playing") is True


def test_scrubbing_by_mouse_and_keyboard(player: Playing) -> None:
    scrubber = player.choice("Frame")
    scrubber.click()  # in its middle, once it stands still
    box = scrubber.bounding_box()
    assert box is not None
    assert abs(player.js("p.at.frame") - 20) <= 1
    player.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    player.page.mouse.down()
    player.page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2, steps=5)
    player.page.mouse.up()
    assert player.js("p.at.frame") == 40
    player.stage.focus()
    keys = {"Home": 0, "ArrowRight": 1, "Shift+ArrowRight": 11, "ArrowLeft": 10, "End": 40, "Shift+ArrowLeft": 30}
    for key, frame in keys.items():
        player.page.keyboard.press(key)
        assert player.js("p.at.frame") == frame
    scrubber.focus()
    player.page.keyboard.press("ArrowLeft")  # the slider's own
    assert player.js("p.at.frame") == 29
    player.choice("Speed").select_option("0.1×")
    scrubber.focus()
    player.page.keyboard.press("Space")
    player.until("p.playing && p.at.frame > 29")
    player.page.keyboard.press("Space")
    assert player.js("p.playing") is False
    player.button("First frame").click()
    player.button("One frame on").click()
    player.button("One frame on").click()
    player.button("One frame back").click()
    assert player.js("p.at.frame") == 1


def test_the_numbers_are_those_of_the_step_that_led_to_the_frame(player: Playing) -> None:
    player.seek(0)
    expect(player.root.locator(".wb-rewards")).to_contain_text("reward–")
    player.seek(7)
    reward, forward, total = player.ask(
        "[replay.episodes[0].rewards[6], replay.episodes[0].terms['reward_forward'][6], "
        "float(replay.episodes[0].rewards[:7].sum())]"
    )
    text = player.root.locator(".wb-rewards").inner_text().replace("\n", "").replace("−", "-")
    for name, value in (("reward", reward), ("forward", forward), ("return so far", total)):
        assert f"{name}{value:.3f}" in text
    values = player.root.locator(".wb-action .wb-value").all_inner_texts()
    actions = player.ask("[replay.episodes[0].actions[a][6].tolist() for a in env.agents]")
    shown = [float(value.replace("−", "-")) for value in values]
    np.testing.assert_allclose(shown, np.ravel(actions), atol=0.006)
    labels = player.root.locator(".wb-action .wb-label").all_inner_texts()
    assert labels[:4] == ["hip_1", "ankle_1", "hip_2", "ankle_2"]


def test_cameras_by_mouse_and_keyboard(player: Playing) -> None:
    middle = player.js("[0, 40].map(f => { p.seek(f); return p.stage.middle(p.stage.solids); })")
    moved = np.array(middle[1][:2]) - np.array(middle[0][:2])
    player.seek(0)
    near = np.array(player.camera())
    player.seek(40)
    far = np.array(player.camera())
    np.testing.assert_allclose(far[:2] - near[:2], moved, atol=1e-5)  # it follows
    np.testing.assert_allclose(far[3:5] - near[3:5], moved, atol=1e-5)

    player.choice("Camera").select_option("camera stays")
    stays = player.camera()
    player.seek(10)
    np.testing.assert_allclose(player.camera(), stays, atol=1e-6)

    box = player.stage.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    player.page.mouse.move(x, y)
    player.page.mouse.down()
    player.page.mouse.move(x + 120, y + 10, steps=6)
    player.page.mouse.up()
    dragged = np.array(player.camera())
    assert np.abs(dragged[:3] - np.array(stays)[:3]).max() > 0.3
    np.testing.assert_allclose(dragged[3:6], stays[3:6], atol=1e-6)  # round the same point
    player.page.mouse.wheel(0, -200)
    player.until(f"Math.abs(p.stage.camera()[0] - {dragged[0]}) > 1e-3")

    before = np.array(player.camera())
    for key in ("d", "d", "w", "e"):
        player.page.keyboard.press(key)
    after = np.array(player.camera())
    offsets = [camera[:3] - camera[3:6] for camera in (before, after)]
    assert np.linalg.norm(offsets[1]) == pytest.approx(0.92 * np.linalg.norm(offsets[0]), rel=1e-4)
    np.testing.assert_allclose(after[3:6], before[3:6], atol=1e-6)
    assert offsets[1][2] / np.linalg.norm(offsets[1]) > offsets[0][2] / np.linalg.norm(offsets[0])

    player.page.keyboard.press("c")
    assert player.choice("Camera").input_value() == "free"
    before = np.array(player.camera())
    player.page.keyboard.press("w")
    after = np.array(player.camera())
    np.testing.assert_allclose(after[:3] - before[:3], after[3:6] - before[3:6], atol=1e-5)
    assert np.linalg.norm(after[:3] - before[:3]) > 0.05
    player.page.keyboard.press("c")
    assert player.choice("Camera").input_value() == "follow"
    player.page.keyboard.press("r")
    np.testing.assert_allclose(np.array(player.camera())[3:5], player.js("p.stage.middleBefore")[:2], atol=1e-5)


def test_the_wheel_is_the_notebooks_until_the_stage_is_chosen(player: Playing) -> None:
    player.button("Loop").focus()
    before = player.camera()
    player.stage.hover()
    player.page.mouse.wheel(0, -100)
    player.page.evaluate("() => new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    np.testing.assert_allclose(player.camera(), before, atol=1e-9)  # its controls turn it to and fro by an ulp


def test_the_ghost_by_mouse_and_keyboard(player: Playing) -> None:
    player.seek(12)
    assert player.js("p.stage.ghosts.every(mesh => mesh.visible && mesh.material.opacity < 0.5)") is True
    sight = player.ask("replay.ghost.episodes[0].sights[12].tolist()")
    env = wb.envs.mujoco("Ant", "4x2", n_envs=1, terminate_when_unhealthy=False)
    place = env.scene().poses(np.array([sight]))[0, 0, :3]
    np.testing.assert_allclose(player.js("p.stage.ghosts[0].position.toArray()"), place, atol=1e-5)
    expect(player.root.locator(".wb-rewards")).to_contain_text("ghost's return")
    player.button("Ghost: the fork").click()
    assert player.js("p.stage.ghosts.some(mesh => mesh.visible)") is False
    expect(player.root.get_by_text("ghost's return")).to_be_hidden()
    player.stage.focus()
    player.page.keyboard.press("g")
    assert player.js("p.stage.ghosts.every(mesh => mesh.visible)") is True


def test_the_scrubber_over_training_by_mouse_and_keyboard(player: Playing) -> None:
    player.seek(15)
    now = player.js("p.stage.matrices()")
    moment = player.root.locator(".wb-clock").nth(1)
    expect(moment).to_contain_text("iteration 2 · 40 env steps · return")
    training = player.choice("Moment in training")
    box = training.bounding_box()
    assert box is not None
    player.page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
    expect(moment).to_contain_text("iteration 0 · 0 env steps")
    assert player.js("p.at") == {"take": 0, "episode": 0, "frame": 15}
    assert not np.allclose(player.js("p.stage.matrices()[0][1]"), now[0][1], atol=1e-3)
    player.page.keyboard.press("ArrowRight")  # the slider has the focus
    expect(moment).to_contain_text("iteration 1")
    player.stage.focus()
    player.page.keyboard.press("ArrowUp")
    expect(moment).to_contain_text("iteration 2")
    assert player.js("p.stage.matrices()") == now
    player.page.keyboard.press("ArrowDown")
    assert player.js("p.at.take") == 1
    player.choice("Episode").select_option("episode 2")
    assert player.js("p.at") == {"take": 1, "episode": 1, "frame": 15}


def test_page_and_kernel_know_what_is_shown(player: Playing) -> None:
    player.ask("setattr(replay, 'frame', 33)")
    player.until("p.at.frame === 33")
    player.ask("setattr(replay, 'take', 0)")
    player.until("p.at.take === 0")
    player.seek(21, take=2, episode=1)
    player.until("p.model.get('shown').frame === 21")
    player.page.wait_for_timeout(0)
    assert [player.ask(f"replay.{name}") for name in ("take", "episode", "frame")] == [2, 1, 21]


def test_start_here_puts_a_fork_at_the_frame_shown(player: Playing) -> None:
    forks = player.ask("len(replay.forks)")
    player.seek(17, take=1, episode=1)
    player.button("Start here: a fork whose environments stand at this frame").click()
    expect(player.root.get_by_role("status")).to_have_text(f"A fork stands at frame 17: it is replay.forks[{forks}].")
    assert player.ask(f"replay.forks[{forks}].iteration") == 1
    sight = player.ask("replay.takes[1].episodes[1].sights[17].tolist()")
    player.ask(f"[env.restore(replay.forks[{forks}]._state.env)]")
    assert player.ask("env.positions.tolist()") == [sight, sight]


def test_it_follows_the_theme(player: Playing) -> None:
    assert player.notebook is not None
    floor = "p.stage.plain.material.color.getHexString()"
    text = "getComputedStyle(p.numbers.root).color"
    player.notebook.theme("JupyterLab Light")
    light = player.js(f"[{floor}, {text}]")
    player.notebook.theme("JupyterLab Dark")
    player.until(f"{floor} !== '{light[0]}'")
    assert player.js(text) != light[1]
    player.notebook.theme("JupyterLab Light")
    player.until(f"{floor} === '{light[0]}'")


def test_controls_have_names_and_the_keys_are_listed(player: Playing) -> None:
    for control in player.root.locator("button, select, input").all():
        name = control.evaluate("node => node.getAttribute('aria-label') || node.textContent")
        assert name.strip()
    player.root.locator("summary").click()
    expect(player.root.locator(".wb-keys dl")).to_contain_text("later, earlier in training")
    player.root.locator("summary").click()


def test_a_page_gives_up_stages_that_are_out_of_sight_and_builds_them_anew(player: Playing) -> None:
    player.seek(9)
    matrices = player.js("p.stage.matrices()")
    player.js("p.stage.dispose()")
    player.root.evaluate("root => { root.style.display = 'none'; }")
    player.until("!p.onScreen")
    player.root.evaluate("root => { root.style.display = ''; }")
    player.until("p.stage.alive && p.onScreen")
    assert player.js("p.stage.matrices()") == matrices


def test_the_players_script_is_sent_once_to_a_page_and_a_thousand_frames_are_little(opened: Playing) -> None:
    notebook = opened.notebook
    assert notebook is not None
    script = opened.ask("len(__import__('workbench.jupyter.assets').jupyter.assets.packed('k3d'))")
    assert script < opened.first_bytes < script + 1_000_000
    before = sum(opened.received)
    notebook.run(LONG_SHOWN)
    player = Playing(opened.page, notebook, 1).opened()
    assert player.js("p.last") == 1000
    assert sum(opened.received) - before < 1_000_000


def test_ten_players_leave_nothing_behind_when_their_cell_runs_again(opened: Playing) -> None:
    page, notebook = opened.page, opened.notebook
    assert notebook is not None
    notebook.run(MANY_SHOWN - 1)
    page.evaluate("() => { globalThis.stages = []; }")
    browser = page.context.new_cdp_session(page)
    found = []
    for _ in range(3):
        notebook.run(MANY_SHOWN)
        shown = page.locator(".jp-Cell").nth(MANY_SHOWN).locator(".wb-replay")
        expect(shown).to_have_count(10)
        for number in (0, 4, 9):
            player = Playing(page, notebook)
            player.root = shown.nth(number)
            player.opened().js("globalThis.stages.push(new WeakRef(p.stage))")
        browser.send("HeapProfiler.collectGarbage")
        kept = page.evaluate("() => globalThis.stages.filter(stage => stage.deref()).length")
        found.append([kept, *opened.ask("counts()")])
    assert found == [found[0]] * 3
    assert found[0][0] == 3
    for each in range(10):
        opened.ask(f"several[{each}].close()")
    assert page.errors == []  # type: ignore[attr-defined]


def test_without_a_kernel_and_in_an_exported_page_the_picture_is_there(opened: Playing) -> None:
    page, notebook = opened.page, opened.notebook
    assert notebook is not None
    picture = page.locator(".jp-Cell").nth(SHOWN).locator(".jp-OutputArea-child:has(.wb-replay) + .jp-OutputArea-child")
    expect(picture).to_be_hidden()
    notebook.command("notebook:shutdown-kernel")
    saved = notebook.save()
    notebook.open(wait_for_kernel=False)
    expect(page.locator(".jp-Cell").nth(SHOWN).locator(".jp-RenderedImage img")).to_be_visible(timeout=60 * SECONDS)
    expect(page.locator(".wb-replay")).to_have_count(0)
    html, _ = nbconvert.HTMLExporter().from_notebook_node(saved)
    assert 'src="data:image/png;base64,' in html
    assert "Replay of Ant 4x2: 2 episodes, 3 moments in training, ghost: the fork" in str(saved.cells[SHOWN].outputs)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Replays as files of their own."""
    folder = tmp_path_factory.mktemp("pages")
    env = wb.envs.mujoco("Humanoid", "17x1", n_envs=1)
    zeros = {agent: np.zeros((1, 1), np.float32) for agent in env.agents}
    wb.replay(lambda seen: zeros, env, max_steps=20).to_html(folder / "humanoid.html")
    rng = np.random.default_rng(0)
    shape = (4, 2, 2)
    game = wb.theory.TabularGame(rng.uniform(size=shape), rng.dirichlet(np.ones(4), size=shape), np.ones(4) / 4, 0.8)
    wb.happo(wb.envs.tabular(game, n_envs=2), n_steps=4, hidden_sizes=(8,)).replay().to_html(folder / "game.html")
    from test_replay_data import drawn_trainer

    drawn_trainer().replay().to_html(folder / "pictures.html")
    return folder


@pytest.mark.parametrize("name", ["humanoid", "game", "pictures"])
def test_a_page_of_its_own_plays_from_disk_without_a_network(pages: Path, browser: Browser, name: str) -> None:
    with browser_page(browser, 900, 1000, offline=True) as page:
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        page.goto((pages / f"{name}.html").as_uri())
        playing = Playing(page).opened()
        assert [address for address in addresses if not address.startswith(("file:", "data:", "blob:"))] == []
        expect(playing.root.get_by_role("button", name="Start here")).to_have_count(0)
        playing.choice("Speed").select_option("0.1×" if name == "humanoid" else "1×")
        playing.button("Play").click()
        playing.until("p.at.frame > 0")
        playing.button("Pause").click()
        frame = playing.js("p.at.frame")
        if name == "humanoid":
            colors = playing.js("p.stage.solids.map(mesh => '#' + mesh.material.color.getHexString().toUpperCase())")
            assert set(look.PALETTE[:17]) <= set(colors)  # bodies of several agents have several bands
        elif name == "game":
            playing.until(f"p.stage.canvas.dataset.shown === String(p.episode.states[{frame}])")
        else:
            playing.until(f"p.stage.canvas.dataset.shown === String(p.episode.pictures[{frame}])")
        assert page.errors == []  # type: ignore[attr-defined]
