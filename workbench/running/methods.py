"""The methods: each a composition of update rule × predecessors' ratio × sharing × critic.

Every recipe takes an environment, a seed, and the method's settings as keywords; ``options("happo")`` lists them. What
is not among them is refused.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable
from typing import Any, TypeVar

from workbench import envs
from workbench.envs.base import TeamEnv
from workbench.errors import CheckpointError, unknown_name
from workbench.learning.critic import ValueNormalizer
from workbench.learning.policy_inputs import FeatureStatistics
from workbench.learning.rollout import CollectorState, RolloutEnv, refuse_unfit_rollout
from workbench.learning.settings import (
    ClippedSettings,
    Haa2cSettings,
    HappoSettings,
    Settings,
    SharedSettings,
    TrustRegionSettings,
)
from workbench.learning.state import CENTRAL, Method, Setup, State
from workbench.learning.team import Team
from workbench.learning.updates import clipped_update, plain_update, trust_region_update
from workbench.networks.gradients import plain_torch
from workbench.networks.gru import Gru
from workbench.networks.mlp import Mlp, ParameterVector
from workbench.randomness import Streams
from workbench.running import resume
from workbench.running.trainer import Trainer

METHODS = {
    "happo": Method("HAPPO", HappoSettings, clipped_update),
    "hatrpo": Method("HATRPO", TrustRegionSettings, trust_region_update),
    "haa2c": Method("HAA2C", Haa2cSettings, plain_update),
    "mappo": Method("MAPPO", ClippedSettings, clipped_update),
    "ippo": Method("IPPO", ClippedSettings, clipped_update, critic="observation"),
    "shared_ppo": Method("shared PPO", SharedSettings, clipped_update),
}

F = TypeVar("F", bound=Callable[..., Trainer])


def listing(recipe: F) -> F:
    """Show a method's settings in its recipe's signature, so that help, tooltips and completion know them."""
    shown = inspect.signature(recipe)
    settings = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
        for f in dataclasses.fields(METHODS[recipe.__name__].settings)
    ]
    own = [each for each in shown.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    recipe.__signature__ = shown.replace(parameters=[*own, *settings])  # type: ignore[attr-defined]  # what inspect reads
    return recipe


@listing
def happo(env: TeamEnv, seed: int = 0, **settings: Any) -> Trainer:
    """HAPPO: one agent after another ascends E[min(r·M, clip(r, 1 ± ε)·M)], M = Π_{j<m}(π_new/π_old) · A.

    A trainer on ``env``; ``seed`` determines the whole run. Settings (``wb.options("happo")``): ``clip_epsilon=0.2``,
    ``epochs=10``, ``team_target_kl=0.03``, ``lr=3e-4``, ``order="random"``, … An unknown one is refused. By default the
    preceding ratio in M is held to (⅔, 1.5), against the few heavy weights of rare states; ``ratio_clamp=None`` is the
    paper's. Source: Kuba et al., ICLR 2022 (arXiv 2109.11251), algorithm 4.
    """
    return make_trainer("happo", env, seed, settings)


@listing
def hatrpo(env: TeamEnv, seed: int = 0, **settings: Any) -> Trainer:
    """HATRPO: one agent after another maximises E[r·M] subject to E[KL(old ‖ new)] ≤ δ, M = Π_{j<m}(π_new/π_old) · A.

    A trainer on ``env``; ``seed`` determines the whole run. Settings (``wb.options("hatrpo")``): ``team_max_kl=0.02``,
    the δ of all agents together, or ``max_kl=``, that of each, as in the paper; ``damping=0.1``, ``cg_iterations=10``,
    ``order="random"``, … An unknown one is refused. The policies have no learning rate: δ sets the length of their
    steps. ``ratio_clamp`` as for ``happo``. Source: Kuba et al., ICLR 2022 (arXiv 2109.11251), algorithm 3.
    """
    return make_trainer("hatrpo", env, seed, settings)


@listing
def haa2c(env: TeamEnv, seed: int = 0, **settings: Any) -> Trainer:
    """HAA2C: one agent after another ascends E[r·M] with no clip, M = Π_{j<m}(π_new/π_old) · A.

    HAPPO's settings but for ``clip_epsilon`` and the KL targets; the learning rate and ``epochs=10`` alone bound how
    far r goes. Source: Zhong et al., Heterogeneous-Agent Reinforcement Learning, JMLR 25 (2024), arXiv 2304.09870.
    """
    return make_trainer("haa2c", env, seed, settings)


@listing
def mappo(env: TeamEnv, seed: int = 0, **settings: Any) -> Trainer:
    """MAPPO: every agent ascends E[min(r·A, clip(r, 1 ± ε)·A)] as if the others stood still; one critic sees the state.

    Most of ``happo``'s settings; the order changes nothing but who comes first. ``sharing="shared"`` gives all agents
    one policy, which sees their number; groups of agents, such as ``sharing=[["agent_0", "agent_1"], ["agent_2"]]``,
    share one each. Source: Yu et al., The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games,
    NeurIPS 2022 (arXiv 2103.01955).
    """
    return make_trainer("mappo", env, seed, settings)


@listing
def ippo(env: TeamEnv, seed: int = 0, **settings: Any) -> Trainer:
    """IPPO: MAPPO in which each agent has a critic of its own, V(oⁱ), on what it alone observes.

    The same settings as ``mappo``. Source: de Witt et al., Is Independent Learning All You Need in the StarCraft
    Multi-Agent Challenge?, 2020 (arXiv 2011.09533).
    """
    return make_trainer("ippo", env, seed, settings)


@listing
def shared_ppo(env: TeamEnv, seed: int = 0, **settings: Any) -> Trainer:
    """Shared PPO: one policy π(a|o, i) for all agents ascends the clipped surrogate on all of their samples.

    The agent's number i is a one-hot vector after its observation; ``agent_id=False`` leaves it out, and the agents are
    then truly alike. Agents whose spaces differ are refused with what differs; ``sharing`` may name groups of agents
    that each share a policy. On ``theory.sharing_game(n)`` agents truly alike reach no more than 2/2ⁿ of the optimum.
    """
    return make_trainer("shared_ppo", env, seed, settings)


def options(method: str) -> dict[str, str]:
    """{name: meaning} of every setting that a method has.

    >>> options("happo")["clip_epsilon"]
    "clip ε of the agent's own ratio"
    """
    return find_method(method).settings.describe()


def find_method(name: str) -> Method:
    """The method of that name."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]


def make_trainer(name: str, env: TeamEnv, seed: int, settings: dict[str, object]) -> Trainer:
    """A trainer at its beginning: parameters drawn, environments reset, nothing collected."""
    if not isinstance(env, TeamEnv):
        raise TypeError(
            f"env is {env!r}; expected a TeamEnv, such as wb.envs.mujoco('Ant', '4x2'). For another library's "
            "environment see wb.envs.pettingzoo."
        )
    method = find_method(name)
    chosen = method.settings.make(method.name, settings)
    with plain_torch():
        setup = make_setup(name, env, seed, chosen)
        running = setup.rollout_env.begin(setup.streams.integer("environment"))
        return Trainer(setup, first_state(setup, chosen, running))


def make_setup(name: str, env: TeamEnv, seed: int, settings: Settings) -> Setup:
    """What stays the same for a whole run."""
    method = find_method(name)
    team = Team(
        env,
        sharing=settings.sharing,
        hidden_sizes=settings.hidden_sizes,
        activation=settings.activation,
        layer_norm=settings.layer_norm,
        std=settings.std,
        initial_log_std=settings.initial_log_std,
        agent_id=settings.agent_id,
        recurrent=settings.recurrent,
    )
    refuse_unfit_rollout(env, team, settings)
    if method.critic == CENTRAL:
        sizes = {CENTRAL: env.state_space.shape[0]}
    else:
        sizes = {agent: team.input_size(env, agent) for agent in team.agents}
    network = Gru if settings.recurrent else Mlp
    kind = {"activation": settings.activation, "layer_norm": settings.layer_norm}
    critics = {name: network(size, 1, settings.hidden_sizes, output_gain=1.0, **kind) for name, size in sizes.items()}
    return Setup(
        method=method,
        method_name=name,
        env=env,
        rollout_env=RolloutEnv(env),
        team=team,
        critics=critics,
        streams=Streams(seed),
    )


def first_state(setup: Setup, settings: Settings, running: CollectorState) -> State:
    """The state before the first collect."""
    policies = {
        unit: ParameterVector.of(vector.values.to(settings.device))
        for unit, vector in setup.team.initial(setup.streams, settings.torch_dtype).items()
    }
    critics = {
        name: ParameterVector.of(
            network.initial(setup.streams.torch("critic", index=index), settings.torch_dtype).to(settings.device)
        )
        for index, (name, network) in enumerate(setup.critics.items())
    }
    normalized = settings.normalize_observations
    return State(
        settings=settings,
        policies=policies,
        critics=critics,
        normalizers={name: ValueNormalizer(enabled=settings.normalize_values) for name in critics},
        observation_statistics={
            unit: FeatureStatistics.none(policy.network.n_inputs)
            for unit, policy in setup.team.policies.items()
            if normalized
        },
        state_statistics=FeatureStatistics.none(setup.env.state_space.shape[0]) if normalized else None,
        running=running,
        env=setup.env.snapshot() if setup.env.can_snapshot else None,
    )


def load(
    path: str | os.PathLike[str], env: TeamEnv | None = None, *, order: object = None, device: str | None = None
) -> Trainer:
    """A trainer as ``trainer.save(path)`` left it; it goes on bit for bit, on the same machine and library versions.

    ``path`` may be a directory in which ``trainer.run(directory=…)`` keeps checkpoints: the newest is loaded. ``env``
    is needed where the environment cannot be rebuilt from its description, ``order`` where the order was a function,
    and ``device`` to go on on another one. Executes nothing from the file. Raises ``CheckpointError`` for one that is
    damaged, foreign, or of another environment.
    """
    path, arrays, held = resume.read(path)
    with resume.refusing(path):
        resume.check_document(arrays, held)
    if env is None:
        if held["env"] is None:
            raise CheckpointError(
                f"the environment of {str(path)!r} cannot be rebuilt from its description; pass one like it: "
                "wb.load(path, env=env)."
            )
        with resume.refusing(path):
            env = envs.make(**held["env"])
    resume.refuse_another_env(path, held, env)
    with resume.refusing(path):
        method = find_method(held["method"])
        settings = method.settings.make(method.name, resume.settings_of(path, held, order, device))
    with plain_torch():
        with resume.refusing(path):
            setup = make_setup(held["method"], env, held["seed"], settings)
        state = resume.state_of(path, arrays, held, setup, settings)
    with resume.refusing(path):
        return Trainer(setup, state, record=resume.record_of(held))
