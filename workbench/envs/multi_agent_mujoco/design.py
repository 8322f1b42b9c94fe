"""From the arguments of ``MujocoTeamEnv`` to its parts, every argument checked at the door."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import mujoco

import workbench.envs.multi_agent_mujoco.models as models
import workbench.envs.multi_agent_mujoco.partitions as partitions
import workbench.envs.multi_agent_mujoco.robotics as robotics
from workbench.envs.arguments import positive_integer
from workbench.envs.multi_agent_mujoco.joint_graphs import BODY_FIELDS, Features, Graph
from workbench.envs.multi_agent_mujoco.keywords import Keywords, validated
from workbench.envs.multi_agent_mujoco.native import NativeEngine, native_forces_work
from workbench.envs.multi_agent_mujoco.observations import derived_fields
from workbench.envs.multi_agent_mujoco.physics import (
    CONTACT_FORCES,
    BatchEngine,
    PhysicsEngine,
    ThreadedEngine,
    without_idle_features,
)
from workbench.envs.multi_agent_mujoco.robots import Robot
from workbench.envs.multi_agent_mujoco.scenarios import LocalCategories, Scenario, scenario_named
from workbench.envs.multi_agent_mujoco.starts import Starts
from workbench.envs.workers import usable_cpus
from workbench.errors import unknown_name

Factorization = Mapping[str, Any] | Sequence[Any]
CONTACT_FORCE_WAYS = ("auto", "portable", "native")
_CATEGORIES = ("qpos", "qvel", "qfrc_actuator", *BODY_FIELDS)


@dataclass(frozen=True, kw_only=True)
class Design:
    """The arguments of ``MujocoTeamEnv``, whose docstring describes them, and the parts made from them."""

    scenario: str
    agent_conf: str | None = None
    n_envs: int = 16
    agent_obsk: int | None = None
    standardize: bool = False
    agent_factorization: Factorization | None = None
    local_categories: Sequence[Sequence[str]] | None = None
    global_categories: Sequence[str] | None = None
    max_episode_steps: int | None = 1000
    version: str = "v5"
    n_threads: int | None = None
    contact_forces: str = "auto"
    keywords: Keywords = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("n_envs", "max_episode_steps", "n_threads"):
            if getattr(self, name) is not None or name == "n_envs":
                object.__setattr__(self, name, positive_integer(name, getattr(self, name)))
        if self.agent_obsk is not None and (not isinstance(self.agent_obsk, int) or self.agent_obsk < 0):
            raise ValueError(f"agent_obsk is {self.agent_obsk!r}; expected None or an integer ≥ 0.")
        if self.contact_forces not in CONTACT_FORCE_WAYS:
            raise unknown_name("way of computing contact_forces", self.contact_forces, CONTACT_FORCE_WAYS)
        if self.standardize not in (True, False):
            raise ValueError(f"standardize={self.standardize!r}: expected True or False.")
        if self.agent_obsk is None and (self.local_categories, self.global_categories) != (None, None):
            raise ValueError(
                "local_categories and global_categories choose what is observed with agent_obsk=0, 1 …; with "
                "agent_obsk=None everyone observes everything. Pass agent_obsk, or leave them out."
            )
        self.options  # noqa: B018 - unknown keywords are refused before anything is made

    @property
    def rules(self) -> Scenario:
        return scenario_named(self.scenario)

    @property
    def options(self) -> Keywords:
        """The keywords of Gymnasium's environment, all of them."""
        own = [each.name for each in fields(self) if each.name not in ("scenario", "keywords")]
        return validated(self.rules.robot.__name__, self.version, self.keywords, own)

    @property
    def standardized(self) -> bool:
        return bool(self.standardize)

    @property
    def arguments(self) -> dict[str, Any]:
        """What ``MujocoTeamEnv`` was given, without what it would have taken anyway."""
        always = {"scenario": self.scenario, "agent_conf": self.agent_conf, "n_envs": self.n_envs}
        others = [each for each in fields(self) if each.name not in (*always, "keywords")]
        values = {each.name: (getattr(self, each.name), each.default) for each in others}
        changed = {
            name: value for name, (value, default) in values.items() if not (value is default or value == default)
        }
        return {**always, **changed, **self.keywords}

    @property
    def description(self) -> dict[str, Any] | None:
        """``arguments`` as JSON has them, or None where they are no plain values."""
        try:
            plain: dict[str, Any] = json.loads(json.dumps({"kind": "mujoco", **self.arguments}))
        except TypeError:
            return None
        return plain

    def robot(self) -> Robot:
        return self.rules.robot(self.version, self.options)

    def model(self) -> mujoco.MjModel:
        if self.rules.chain is not None:
            if "xml_file" in self.keywords:
                raise ValueError(f"xml_file: {self.rules.name} makes its own model, as long as agent_conf says.")
            n_agents, n_segments = partitions.chain_lengths(self.rules.name, self.agent_conf)
            return without_idle_features(self.rules.chain(n_agents * n_segments))
        xml_file = self.options["xml_file"]
        model = models.gymnasium_model(xml_file)
        # Of a user's own model nobody knows that it does not need them.
        return model if models.is_own_path(xml_file) else without_idle_features(model)

    def shares(self, model: mujoco.MjModel) -> partitions.Shares:
        """{agent: the actuators it moves}."""
        if robotics.is_robotics_form(self.agent_factorization):
            return partitions.shares(model, robotics.actuators(self.agent_factorization))
        if self.agent_factorization is not None:
            return partitions.shares(model, self.agent_factorization)
        if self.agent_conf is None:
            return partitions.shares(model, [range(model.nu)])
        return partitions.shares(model, partitions.named_parts(self.rules.name, self.agent_conf))

    def features(self, model: mujoco.MjModel, robot: Robot, shares: partitions.Shares) -> dict[str, Features] | None:
        """{agent: what it observes}, or None where everyone observes everything."""
        if self.agent_obsk is None:
            return None
        graph = self._graph(model)
        nodes = {node.actuator: node for node in graph.nodes}
        local = self._local_categories(robot, graph)
        given = ("qpos", "qvel") if self.global_categories is None else self.global_categories
        shared = self._known("global_categories", given, ("qpos", "qvel", *graph.shared))
        if missing := [actuator for actuators in shares.values() for actuator in actuators if actuator not in nodes]:
            raise ValueError(f"actuators {missing} are not in the graph of {self.rules.name}: use agent_obsk=None.")
        owned = {agent: [nodes[actuator] for actuator in actuators] for agent, actuators in shares.items()}
        return {
            agent: graph.observed(graph.by_distance(joints, self.agent_obsk), local, shared)
            for agent, joints in owned.items()
        }

    def _graph(self, model: mujoco.MjModel) -> Graph:
        if robotics.is_robotics_form(self.agent_factorization):
            return robotics.graph(self.agent_factorization, model)
        try:
            return self.rules.graph(model)
        except KeyError as missing:
            raise ValueError(
                f"agent_obsk={self.agent_obsk} needs the joints of {self.rules.name}, which this model lacks: "
                f"{missing.args[0]} Use agent_obsk=None for a model with other joints."
            ) from missing

    def _local_categories(self, robot: Robot, graph: Graph) -> LocalCategories:
        if self.local_categories is None:
            observed = {name for name, _, _ in robot.observed} | {"qpos", "qvel"}
            return tuple(tuple(c for c in ring if c in observed) for ring in self.rules.local_categories)
        known = dict.fromkeys((*_CATEGORIES, *(category for node in graph.nodes for category in node.features)))
        if not self.local_categories or isinstance(self.local_categories, str):
            raise ValueError("local_categories: expected a list of categories for each distance, such as [['qpos']].")
        return tuple(self._known("local_categories", ring, known) for ring in self.local_categories)

    def _known(self, what: str, given: Sequence[str], known: Any) -> tuple[str, ...]:
        for category in given:
            if category not in known:
                raise unknown_name(f"category in {what}", category, dict.fromkeys(known))
        return tuple(given)

    def starts(self, model: mujoco.MjModel, engine: PhysicsEngine) -> Starts:
        """The first states of episodes; they need no forces of contacts, which a reset leaves at 0."""
        fields = sorted(engine.fields)
        return Starts(self.robot(), BatchEngine(model, self.n_envs, engine.n_threads, engine.frame_skip, fields))

    def engine(self, model: mujoco.MjModel, robot: Robot, features: Mapping[str, Features] | None) -> PhysicsEngine:
        needed = sorted(robot.needed_fields | (derived_fields(features) if features else set()))
        kind: type[BatchEngine | ThreadedEngine | NativeEngine] = BatchEngine
        if CONTACT_FORCES in needed:
            native = self.contact_forces != "portable" and native_forces_work()
            if self.contact_forces == "native" and not native:
                raise ValueError(
                    "contact_forces='native' fails its test on this machine: use 'portable', "
                    "which gives the same numbers."
                )
            kind = NativeEngine if native else ThreadedEngine
        return kind(model, self.n_envs, self.n_threads or usable_cpus(), self.options["frame_skip"], needed)
