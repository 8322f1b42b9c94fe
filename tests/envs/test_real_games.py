"""Real games of others: the check, and two iterations. Those whose packages are not installed are skipped."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import gymnasium
import pytest

import workbench as wb

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def parallel(module: str, **options: Any) -> Callable[[], Any]:
    return lambda: importlib.import_module(module).parallel_env(**options)


def of_turns(module: str) -> Callable[[], Any]:
    return lambda: importlib.import_module(module).env()


def small_pictures(make: Callable[[], Any]) -> Callable[[], Any]:
    supersuit = importlib.import_module("supersuit")
    return lambda: supersuit.flatten_v0(supersuit.resize_v1(supersuit.color_reduction_v0(make(), "B"), 12, 12))


def wrapped(make: Callable[[], Any]) -> Callable[[], Any]:
    """Nine of SuperSuit's wrappers."""
    supersuit = importlib.import_module("supersuit")

    def made() -> Any:
        env = supersuit.clip_actions_v0(make())
        env = supersuit.flatten_v0(supersuit.dtype_v0(supersuit.frame_stack_v1(env, 2), "float32"))
        env = supersuit.pad_action_space_v0(supersuit.pad_observations_v0(env))
        env = supersuit.reward_lambda_v0(supersuit.agent_indicator_v0(env), lambda reward: 2 * reward)
        return supersuit.black_death_v3(env)

    return made


def registered(package: str, name: str) -> Callable[[], Any]:
    importlib.import_module(package)
    return lambda: gymnasium.make(name)


def team(make: Callable[[], Any], **options: Any) -> wb.envs.TeamEnv:
    return wb.envs.pettingzoo(make, n_envs=2, **{"reward": "sum", "state": "observations", **options})


# {name: (packages that it needs, what makes its team)}
GAMES: dict[str, tuple[tuple[str, ...], Callable[[], wb.envs.TeamEnv]]] = {
    "simple_spread": (("mpe2",), lambda: team(parallel("mpe2.simple_spread_v3", max_cycles=15))),
    "simple_tag": (("mpe2",), lambda: team(parallel("mpe2.simple_tag_v3", max_cycles=15))),
    "simple_speaker_listener": (
        ("mpe2",),
        lambda: team(parallel("mpe2.simple_speaker_listener_v4", max_cycles=15), reward=None),
    ),
    "tictactoe": ((), lambda: team(of_turns("pettingzoo.classic.tictactoe_v3"))),
    "connect_four": ((), lambda: team(of_turns("pettingzoo.classic.connect_four_v3"))),
    "chess": (("chess",), lambda: team(of_turns("pettingzoo.classic.chess_v6"), max_episode_steps=12)),
    "knights_archers_zombies": (
        ("pygame",),
        lambda: team(parallel("pettingzoo.butterfly.knights_archers_zombies_v11", max_cycles=25)),
    ),
    "pistonball": (
        ("pymunk", "supersuit"),
        lambda: team(small_pictures(parallel("pettingzoo.butterfly.pistonball_v6", n_pistons=4, max_cycles=12))),
    ),
    "cooperative_pong": (
        ("pygame", "supersuit"),
        lambda: team(small_pictures(parallel("pettingzoo.butterfly.cooperative_pong_v6", max_cycles=12))),
    ),
    "pursuit": (
        ("pygame", "scipy"),
        lambda: team(parallel("pettingzoo.sisl.pursuit_v5", max_cycles=12, n_pursuers=3)),
    ),
    "multiwalker": (("Box2D", "pygame"), lambda: team(parallel("pettingzoo.sisl.multiwalker_v9", max_cycles=15))),
    "lbforaging": (
        ("lbforaging",),
        lambda: wb.envs.gymnasium(registered("lbforaging", "Foraging-5x5-2p-1f-coop-v3"), 2, reward="sum"),
    ),
    "rware": (
        ("rware",),
        lambda: wb.envs.gymnasium(registered("rware", "rware-tiny-2ag-v2"), 2, reward="sum", max_episode_steps=12),
    ),
    "nine wrappers": (
        ("mpe2", "supersuit"),
        lambda: team(wrapped(parallel("mpe2.simple_spread_v3", max_cycles=15, continuous_actions=True))),
    ),
}


SLOW = ("knights_archers_zombies", "pursuit")


@pytest.mark.parametrize(
    "game", [pytest.param(name, marks=[pytest.mark.stress] if name in SLOW else []) for name in GAMES]
)
@pytest.mark.filterwarnings("ignore")
def test_a_real_game_is_checked_and_trained_on(game: str) -> None:
    packages, make = GAMES[game]
    for package in packages:
        pytest.importorskip(package)
    env = make()
    wb.envs.check(env, steps=18)
    trainer = wb.happo(env, seed=0, n_steps=16, hidden_sizes=(8,), epochs=1, critic_epochs=1)
    trainer.run(iterations=2, progress=False)
    assert (trainer.env_steps, len(trainer.agent_history)) == (64, 2 * len(env.agents))
