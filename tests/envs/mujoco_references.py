"""Gymnasium's and gymnasium-robotics' own environments, and a way to step them side by side with ours."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from workbench.envs.base import Final, TimeStep
from workbench.envs.multi_agent_mujoco import MujocoTeamEnv

WITHOUT_CONTACTS = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings about old versions and old models, which MuJoCo also writes into the working directory."""
    mujoco.set_mju_user_warning(lambda message: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    mujoco.set_mju_user_warning(None)


def gymnasium_env(name: str, **keywords: Any) -> gymnasium.Env[Any, Any]:
    with quiet():
        return gymnasium.make(name, **keywords)


def robotics_env(scenario: str, agent_conf: str, **keywords: Any) -> Any:
    with quiet():
        from gymnasium_robotics import mamujoco_v1

        return mamujoco_v1.parallel_env(scenario, agent_conf, **keywords)


def robotics_factorization(scenario: str, agent_conf: str) -> dict[str, Any]:
    """One of its named partitions in the form of its ``agent_factorization``."""
    with quiet():
        from gymnasium_robotics.envs.multiagent_mujoco.mamujoco_v1 import get_parts_and_edges

        parts, edges, shared = get_parts_and_edges(scenario, agent_conf)
    return {"partition": parts, "edges": edges, "globals": shared}


def single(scenario: str, **options: Any) -> MujocoTeamEnv:
    """Ours, one agent moving everything, raw: what Gymnasium has."""
    return MujocoTeamEnv(scenario, standardize=False, **options)


def in_lockstep(
    env: MujocoTeamEnv, references: list[gymnasium.Env[Any, Any]], steps: int, seed: int, dtype: type = np.float32
) -> Counter[str]:
    """Step both under the same random actions, some beyond the limits; every bit must be equal. Counts the endings."""
    rng = np.random.default_rng(seed)
    shown = env.reset(seed)
    first = [reference.reset(seed=seed + i)[0] for i, reference in enumerate(references)]
    assert np.array_equal(shown.info["observation"], first)
    assert np.array_equal(shown.state, first)
    space = references[0].action_space
    endings: Counter[str] = Counter()
    for _ in range(steps):
        actions = rng.uniform(1.2 * space.low, 1.2 * space.high, (env.n_envs, *space.shape)).astype(dtype)
        shown = env.step({"agent_0": actions})
        for i, reference in enumerate(references):
            endings[_same_step(shown, i, reference, actions[i])] += 1
    return endings


def _same_step(shown: TimeStep, i: int, reference: gymnasium.Env[Any, Any], action: npt.NDArray[Any]) -> str:
    observation, reward, terminated, truncated, info = reference.step(action)
    assert np.array_equal(shown.info["observation"][i], observation)
    assert shown.reward[i] == reward
    assert shown.terminated[i] == terminated
    assert shown.truncated[i] == (truncated and not terminated)
    version = reference.spec.id[-2:]
    for name in shown.info.keys() & info.keys() if version == "v5" else ():
        assert shown.info[name][i] == info[name], name
    if not (terminated or truncated):
        assert np.array_equal(shown.state[i], observation)
        return "none"
    assert np.array_equal(final_row(shown.final, i), observation)
    assert np.array_equal(shown.state[i], reference.reset()[0])
    return "terminated" if terminated else "truncated"


def final_row(final: Final | None, env: int) -> npt.NDArray[Any]:
    """The final state of one of the environments that ended."""
    assert final is not None
    (row,) = np.flatnonzero(final.envs == env)
    return final.state[row]
