"""Settings that were tuned for Multi-Agent MuJoCo by the methods' own authors.

Source: the tuned configurations of the HARL reference implementation (Zhong et al., Heterogeneous-Agent Reinforcement
Learning, JMLR 25 (2024), arXiv 2304.09870): 20 environments × 200 steps an iteration, 10⁷ steps in all. Every
observation is standardized by itself, over its features, before it reaches a policy: that is the environment's doing.

    env = wb.envs.mujoco("Ant", "4x2", **wb.reference_environment())
    trainer = wb.happo(env, **wb.reference_settings("happo", "Ant 4x2"))
"""

from __future__ import annotations

from typing import Any

from workbench.errors import unknown_name

N_ENVS = 20
ENVIRONMENT: dict[str, Any] = {"n_envs": N_ENVS, "standardize": True}
COMMON: dict[str, Any] = {
    "n_steps": 200,
    "normalize_observations": False,
    "activation": "relu",
    "layer_norm": "all",
    "std": "sigmoid",
    "initial_log_std": 1.0,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "hidden_sizes": (128, 128, 128),
    "critic_lr": 5e-4,
    "max_grad_norm": 10.0,
    "huber_delta": 10.0,
    "value_clip_epsilon": 0.2,
    "critic_minibatches": 1,
    "lr_decay_steps": None,
    "final_lr_fraction": 0.0,
}
SEQUENTIAL: dict[str, Any] = {"ratio_clamp": None}
DECAY_STEPS = 10_000_000


def _happo(
    lr: float, epochs: int, n_minibatches: int, clip_epsilon: float, entropy_coef: float, decay: bool
) -> dict[str, Any]:
    return {
        **COMMON,
        "lr": lr,
        "critic_lr": lr,
        "epochs": epochs,
        "critic_epochs": epochs,
        "n_minibatches": n_minibatches,
        "critic_minibatches": n_minibatches,
        "team_target_kl": None,
        "clip_epsilon": clip_epsilon,
        "value_clip_epsilon": clip_epsilon,
        "entropy_coef": entropy_coef,
        "lr_decay_steps": DECAY_STEPS if decay else None,
    }


def _haa2c(lr: float, epochs: int) -> dict[str, Any]:
    return {
        **COMMON,
        **SEQUENTIAL,
        "lr": lr,
        "critic_lr": lr,
        "epochs": epochs,
        "n_minibatches": 1,
        "critic_epochs": epochs,
        "value_clip_epsilon": 0.1,
        "lr_decay_steps": DECAY_STEPS,
    }


_CLIPPED = {
    "Ant 4x2": _happo(5e-4, 5, 1, 0.1, 0.0, decay=False),
    "HalfCheetah 2x3": _happo(5e-4, 15, 1, 0.05, 0.01, decay=False),
    "Hopper 3x1": _happo(5e-4, 10, 1, 0.05, 0.0, decay=True),
    "Humanoid 17x1": _happo(5e-4, 5, 1, 0.1, 0.0, decay=True),
    "Walker2d 2x3": _happo(1e-3, 5, 2, 0.05, 0.0, decay=True),
    "Walker2d 6x1": _happo(5e-4, 5, 1, 0.1, 0.01, decay=False),
}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "happo": {task: {**chosen, **SEQUENTIAL} for task, chosen in _CLIPPED.items()},
    "mappo": _CLIPPED,  # theirs has one policy for all agents: here that is shared_ppo
    "haa2c": {
        "Ant 4x2": _haa2c(5e-4, 5),
        "HalfCheetah 2x3": _haa2c(5e-4, 5),
        "Hopper 3x1": _haa2c(1e-4, 3),
        "Walker2d 2x3": _haa2c(1e-4, 5),
        "Walker2d 6x1": _haa2c(1e-4, 5),
    },
    "hatrpo": {
        task: {**COMMON, **SEQUENTIAL, "max_kl": max_kl, "accept_ratio": 0.5, "critic_epochs": 5}
        for task, max_kl in {
            "Ant 4x2": 0.005,
            "HalfCheetah 2x3": 0.01,
            "Hopper 3x1": 0.001,
            "Walker2d 2x3": 0.01,
            "Walker2d 6x1": 0.005,
        }.items()
    },
}


def reference_settings(method: str, task: str) -> dict[str, Any]:
    """The tuned settings of a method on a task, as keywords for its recipe.

    >>> reference_settings("happo", "HalfCheetah 2x3")["clip_epsilon"]
    0.05

    Tasks are named by scenario and partition, such as "Ant 4x2". Raises ``ValueError`` where nothing was tuned.
    """
    if method not in SETTINGS:
        raise unknown_name("method with reference settings", method, SETTINGS)
    if task not in SETTINGS[method]:
        raise unknown_name(f"task with reference settings for {method}", task, SETTINGS[method])
    return dict(SETTINGS[method][task])


def reference_environment() -> dict[str, Any]:
    """What the environments were made with that ``reference_settings`` were tuned on, as keywords for ``envs.mujoco``.

    >>> reference_environment()
    {'n_envs': 20, 'standardize': True}
    """
    return dict(ENVIRONMENT)
