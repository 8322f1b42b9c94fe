"""The scenarios: a robot's rules, its model, its graph and what agents observe of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mujoco

import workbench.envs.multi_agent_mujoco.joint_graphs as graphs
import workbench.envs.multi_agent_mujoco.models as models
import workbench.envs.multi_agent_mujoco.robots as robots
from workbench.envs.multi_agent_mujoco.physics import CONTACT_FORCES
from workbench.errors import unknown_name

LocalCategories = tuple[tuple[str, ...], ...]
_JOINTS: LocalCategories = (("qpos", "qvel"), ("qpos",))
_ANT: LocalCategories = (("qpos", "qvel", CONTACT_FORCES), ("qpos",))
_HUMANOID: LocalCategories = (("qpos", "qvel", "cinert", "cvel", "qfrc_actuator", CONTACT_FORCES), ("qpos",))


@dataclass(frozen=True)
class Scenario:
    """A robot.

    name              as Gymnasium and gymnasium-robotics have it
    robot             its rules
    graph             makes the graph of its joints from its model
    local_categories  what an agent observes of its own joints, then of those further away
    chain             makes the model of a given number of segments, or None where the model is a file
    """

    name: str
    robot: type[robots.Robot]
    graph: Callable[[mujoco.MjModel], graphs.Graph]
    local_categories: LocalCategories = _JOINTS
    chain: Callable[[int], mujoco.MjModel] | None = None


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("Ant", robots.Ant, graphs.ant_graph, _ANT),
        Scenario("HalfCheetah", robots.HalfCheetah, graphs.half_cheetah_graph),
        Scenario("Hopper", robots.Hopper, graphs.hopper_graph),
        Scenario("Humanoid", robots.Humanoid, graphs.humanoid_graph, _HUMANOID),
        Scenario("HumanoidStandup", robots.HumanoidStandup, graphs.humanoid_graph, _HUMANOID),
        Scenario("ManySegmentAnt", robots.Ant, graphs.ant_chain_graph, _ANT, models.ant_chain),
        Scenario("ManySegmentSwimmer", robots.Swimmer, graphs.swimmer_chain_graph, chain=models.swimmer_chain),
        Scenario("Swimmer", robots.Swimmer, graphs.swimmer_graph),
        Scenario("Walker2d", robots.Walker2d, graphs.walker2d_graph),
    )
}
# What the papers call them.
ALIASES = {"ManyAgentAnt": "ManySegmentAnt", "ManyAgentSwimmer": "ManySegmentSwimmer"}


def scenario_named(name: str) -> Scenario:
    """The scenario of that name, or of that name in the papers; unknown names are refused."""
    name = ALIASES.get(name, name)
    if name not in SCENARIOS:
        raise unknown_name("scenario", name, [*SCENARIOS, *ALIASES])
    return SCENARIOS[name]
