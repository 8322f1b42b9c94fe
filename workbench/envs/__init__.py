"""Environments: the ``TeamEnv`` contract, its check, and the ways to make one.

>>> import workbench as wb
>>> env = wb.envs.mujoco("HalfCheetah", "2x3", n_envs=2)
>>> env.agents
('agent_0', 'agent_1')
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.envs.base import Actions, Final, Snapshot, TeamEnv, TimeStep
from workbench.envs.registry import make

if TYPE_CHECKING:
    from workbench.envs.multi_agent_mujoco import MujocoTeamEnv
    from workbench.envs.parallel import PettingZooTeamEnv
    from workbench.envs.sampled_game import SampledGame
    from workbench.theory import TabularGame

__all__ = [
    "Actions",
    "Final",
    "Snapshot",
    "TeamEnv",
    "TimeStep",
    "check",
    "gymnasium",
    "harl",
    "make",
    "mujoco",
    "pettingzoo",
    "tabular",
]

# Implementations are imported where they are used: MuJoCo costs a third of a second that a tabular user does not owe.


def mujoco(scenario: str, agent_conf: str | None = None, **options: Any) -> MujocoTeamEnv:
    """A batch of one robot's simulations, its joints shared out among agents: ``MujocoTeamEnv`` has the options."""
    from workbench.envs.multi_agent_mujoco import MujocoTeamEnv

    return MujocoTeamEnv(scenario, agent_conf, **options)


def pettingzoo(make_parallel_env: Callable[[], object], n_envs: int = 8, **options: Any) -> PettingZooTeamEnv:
    """A batch of any PettingZoo parallel environments: ``PettingZooTeamEnv`` has the options."""
    from workbench.envs.parallel import PettingZooTeamEnv

    return PettingZooTeamEnv(make_parallel_env, n_envs=n_envs, **options)


def gymnasium(make: str | Callable[[], Any], n_envs: int = 8, **options: Any) -> PettingZooTeamEnv:
    """A batch of Gymnasium environments, by a name such as "CartPole-v1" or a function that makes one.

    Those of one agent, and those whose action and observation spaces are a ``Tuple`` with a part for each agent, as in
    level-based foraging and RWARE. ``PettingZooTeamEnv`` has the options, ``reward="sum"`` among them.
    """
    from workbench.envs.parallel import PettingZooTeamEnv
    from workbench.envs.parallel.adapters import from_gymnasium

    return PettingZooTeamEnv(from_gymnasium(make), n_envs=n_envs, **options)


def harl(make: Callable[[], object], n_envs: int = 8, **options: Any) -> PettingZooTeamEnv:
    """A batch of environments as HARL's and MAPPO's code have them: ``obs, share_obs, available_actions = reset()``.

    ``PettingZooTeamEnv`` has the options.
    """
    from workbench.envs.parallel import PettingZooTeamEnv
    from workbench.envs.parallel.adapters import from_harl

    return PettingZooTeamEnv(from_harl(make), n_envs=n_envs, **options)


def tabular(game: TabularGame, n_envs: int = 64, **options: Any) -> SampledGame:
    """A ``theory.TabularGame``, sampled: ``SampledGame`` has the options."""
    from workbench.envs.sampled_game import SampledGame

    return SampledGame(game, n_envs=n_envs, **options)


def check(env: TeamEnv, *, steps: int = 50, seed: int = 0) -> None:
    """Hold an environment against the ``TeamEnv`` contract; raises ``ContractError`` naming what it breaks."""
    from workbench.envs.contract import check as check_contract

    check_contract(env, steps=steps, seed=seed)
