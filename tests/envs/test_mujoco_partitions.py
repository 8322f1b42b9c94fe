"""Who moves and who sees what: against ``mamujoco_v1`` where it has the partition, by hand where it has not."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from mujoco_references import quiet, robotics_env, robotics_factorization

from workbench.envs.multi_agent_mujoco import MujocoTeamEnv, models
from workbench.envs.multi_agent_mujoco.partitions import PARTITIONS
from workbench.errors import UnknownNameError

# Every partition that gymnasium-robotics names, and chains of several lengths.
ITS_PARTITIONS = [
    *(("Ant", conf) for conf in ("2x4", "2x4d", "4x2")),
    *(("HalfCheetah", conf) for conf in ("2x3", "6x1")),
    ("Hopper", "3x1"),
    ("Humanoid", "9|8"),
    ("HumanoidStandup", "9|8"),
    ("Swimmer", "2x1"),
    ("Walker2d", "2x3"),
    *(("ManySegmentSwimmer", conf) for conf in ("2x1", "10x2", "6x2")),
    *(("ManySegmentAnt", conf) for conf in ("2x1", "2x3", "5x1")),
]


LIMIT = 5


def agree(env: MujocoTeamEnv, reference: Any, steps: int = 12) -> None:
    """Spaces, actions and every agent's observations, the last ones of episodes too, are equal to the last bit."""
    shown, (expected, _) = env.reset(seed=5), reference.reset(seed=5)
    rng = np.random.default_rng(1)
    assert env.agents == tuple(reference.possible_agents)
    for agent in env.agents:
        assert env.action_spaces[agent] == reference.action_space(agent)
        assert env.observation_spaces[agent] == reference.observation_space(agent)
    for _ in range(steps):
        for agent in env.agents:
            assert np.array_equal(shown.observations[agent][0], expected[agent]), agent
        actions = {agent: rng.uniform(-0.4, 0.4, (1, *env.action_spaces[agent].shape)) for agent in env.agents}
        shown = env.step(actions)
        first = {agent: action[0] for agent, action in actions.items()}
        applied = reference.map_local_actions_to_global_action(first)
        assert np.array_equal(env.engine.ctrl[0], applied if shown.final is None else np.zeros_like(applied))
        expected, rewards, terminations, truncations, _ = reference.step(first)
        assert shown.reward[0] == rewards["agent_0"]
        assert shown.terminated[0] == terminations["agent_0"]
        assert shown.done[0] == (terminations["agent_0"] or truncations["agent_0"])
        if shown.final is not None:
            for agent in env.agents:
                assert np.array_equal(shown.final.observations[agent][0], expected[agent]), agent
            expected, _ = reference.reset()


@pytest.mark.parametrize(("scenario", "conf", "k"), [(*case, k) for case in ITS_PARTITIONS for k in (0, 1, 2)])
def test_observations_and_actions_are_those_of_mamujoco(scenario: str, conf: str, k: int) -> None:
    env = MujocoTeamEnv(scenario, conf, n_envs=1, agent_obsk=k, max_episode_steps=LIMIT)
    agree(env, robotics_env(scenario, conf, agent_obsk=k, max_episode_steps=LIMIT))


@pytest.mark.parametrize(("scenario", "conf"), [case for case in ITS_PARTITIONS if case[1] != "10x2"])
def test_a_factorization_written_for_gymnasium_robotics_works_here(scenario: str, conf: str) -> None:
    factorization = robotics_factorization(scenario, conf)
    factorization["partition"].reverse()
    options: dict[str, Any] = {
        "agent_obsk": 2,
        "agent_factorization": factorization,
        "max_episode_steps": LIMIT,
    }
    agree(MujocoTeamEnv(scenario, conf, n_envs=1, **options), robotics_env(scenario, conf, **options))


@pytest.mark.parametrize(("scenario", "conf"), [("Humanoid", "9|8"), ("ManySegmentAnt", "3x1"), ("Swimmer", "2x1")])
def test_each_actuator_alone_observes_what_its_node_does_in_mamujoco(scenario: str, conf: str) -> None:
    factorization = robotics_factorization(scenario, conf)
    nodes = [node for part in factorization["partition"] for node in part]
    factorization["partition"] = [(node,) for node in nodes]
    options: dict[str, Any] = {"agent_obsk": 1, "max_episode_steps": LIMIT}
    own = MujocoTeamEnv(scenario, conf, n_envs=1, agent_factorization=[[node.act_ids] for node in nodes], **options)
    agree(own, robotics_env(scenario, conf, agent_factorization=factorization, **options))


def missing_in_mamujoco() -> list[tuple[str, str]]:
    named = [(scenario, conf) for scenario, confs in PARTITIONS.items() for conf in confs]
    return [case for case in named if case not in ITS_PARTITIONS]


@pytest.mark.parametrize(("scenario", "conf"), missing_in_mamujoco())
def test_partitions_it_lacks_agree_with_it_as_factorizations(scenario: str, conf: str) -> None:
    """The same joints, handed to mamujoco in its own form."""
    known = next(conf for name, conf in ITS_PARTITIONS if name == scenario)
    factorization = robotics_factorization(scenario, known)
    env = MujocoTeamEnv(scenario, conf, n_envs=1, agent_obsk=1, max_episode_steps=LIMIT)
    node = {node.act_ids: node for part in factorization["partition"] for node in part}
    factorization["partition"] = [tuple(node[owned.actuator] for owned in part) for part in env.partition.values()]
    options: dict[str, Any] = {"agent_obsk": 1, "max_episode_steps": LIMIT}
    agree(env, robotics_env(scenario, known, agent_factorization=factorization, **options))


PAPERS = {
    "Ant": ("2x4", "2x4d", "4x2", "8x1"),
    "Walker2d": ("2x3", "3x2", "6x1"),
    "HalfCheetah": ("2x3", "3x2", "6x1"),
    "Hopper": ("3x1",),
    "Humanoid": ("9|8", "17x1"),
    "HumanoidStandup": ("9|8", "17x1"),
    "Swimmer": ("2x1",),
    "ManyAgentSwimmer": ("10x2",),
    "ManyAgentAnt": ("2x3",),
}


@pytest.mark.parametrize(("scenario", "conf"), [(name, conf) for name, confs in PAPERS.items() for conf in confs])
def test_every_joint_has_exactly_one_agent_and_partitions_are_what_they_are_called(scenario: str, conf: str) -> None:
    env = MujocoTeamEnv(scenario, conf, n_envs=1)
    owned = [actuator for part in env.partition.values() for actuator in part]
    assert sorted(actuator.actuator for actuator in owned) == list(range(env.model.nu))
    for actuator in owned:
        joint = env.model.joint(actuator.joint)
        assert env.model.actuator_trnid[actuator.actuator, 0] == joint.id
        assert env.model.jnt_bodyid[joint.id] == actuator.body
    sizes = [len(part) for part in env.partition.values()]
    if "|" in conf:
        assert sizes == [int(size) for size in conf.split("|")]
    else:
        n_agents, n_each = map(int, conf.rstrip("d").split("x"))
        per_segment = {"ManyAgentAnt": 4}.get(scenario, 1)
        assert sizes == [n_each * per_segment] * n_agents


def test_actions_go_to_the_joints_that_are_declared() -> None:
    """Ant's actuators begin with leg 4, its partitions with leg 1."""
    env = MujocoTeamEnv("Ant", "4x2", n_envs=2)
    env.reset(seed=0)
    env.step({f"agent_{i}": np.full((2, 2), [0.1 * (i + 1), -0.1 * (i + 1)]) for i in range(4)})
    by_joint = {env.model.joint(env.model.actuator_trnid[i, 0]).name: env.engine.ctrl[1, i] for i in range(8)}
    expected = {"hip": 0.1, "ankle": -0.1}
    assert by_joint == {f"{part}_{leg}": leg * share for leg in (1, 2, 3, 4) for part, share in expected.items()}


# ---- a user's own factorisation ----

LEGS = {"front": ["hip_1", "ankle_1", "hip_4", "ankle_4"], "back": ["hip_2", "ankle_2", "hip_3", "ankle_3"]}


def test_a_mapping_names_the_agents_and_a_sequence_numbers_them() -> None:
    env = MujocoTeamEnv("Ant", n_envs=1, agent_factorization=LEGS)
    assert env.agents == ("front", "back")
    assert {agent: [owned.joint for owned in part] for agent, part in env.partition.items()} == LEGS
    numbers = [[owned.actuator for owned in part] for part in env.partition.values()]
    numbered = MujocoTeamEnv("Ant", n_envs=1, agent_factorization=numbers)
    assert numbered.agents == ("agent_0", "agent_1")
    assert list(numbered.partition.values()) == list(env.partition.values())


def test_ones_own_partition_observes_nearby_joints_too() -> None:
    own = MujocoTeamEnv("Ant", n_envs=2, agent_factorization=list(LEGS.values()), agent_obsk=1).reset(seed=0)
    named = MujocoTeamEnv("Ant", "2x4d", n_envs=2, agent_obsk=1).reset(seed=0)
    assert all(np.array_equal(own.observations[agent], named.observations[agent]) for agent in named.observations)


@pytest.mark.parametrize(
    ("factorization", "message"),
    [
        ([["hip_1", "ankel_1"]], "unknown actuator or joint 'ankel_1'; did you mean 'ankle_1'"),
        ([["hip_1"], ["hip_1"]], "'hip_1' belongs to 'agent_0' and to 'agent_1'"),
        ([["hip_1", "ankle_1"]], "nobody moves hip_4, ankle_4, hip_2, ankle_2, hip_3, ankle_3"),
        ({"a": [], "b": list(range(8))}, "agent 'a' has no actuator"),
        ([[0, 1, 2, 3], [4, 5, 6, 8]], "unknown actuator or joint 8"),
    ],
)
def test_factorizations_that_are_none_are_refused(factorization: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MujocoTeamEnv("Ant", agent_factorization=factorization)


def test_a_partition_is_a_factorization_and_a_nested_list_is_none() -> None:
    env = MujocoTeamEnv("Ant", "4x2", n_envs=1)
    assert MujocoTeamEnv("Ant", n_envs=1, agent_factorization=env.partition).partition == env.partition
    with pytest.raises(TypeError, match=r"agent 'agent_0' is given \['hip_1', 'ankle_1'\]: expected names of joints"):
        MujocoTeamEnv("Ant", agent_factorization=[[["hip_1", "ankle_1"]]])


def test_one_number_is_an_agents_whole_part_and_other_things_are_none() -> None:
    alone = [np.int64(0), *range(1, 8)]
    assert len(MujocoTeamEnv("Ant", n_envs=1, agent_factorization=alone).agents) == 8
    for wrong, message in [
        ([3.5], "agent 'agent_0' is given 3.5: expected one or more names of joints"),
        (7, "agent_factorization is 7; expected {agent: joints}"),
        ("hip_1", "agent_factorization is 'hip_1'; expected {agent: joints}"),
    ]:
        with pytest.raises(TypeError, match=message):
            MujocoTeamEnv("Ant", agent_factorization=wrong)


def test_what_a_batch_cannot_observe_is_refused() -> None:
    with quiet():
        from gymnasium_robotics.envs.multiagent_mujoco.obsk import Node

    for function in (lambda data: np.sin(data.qpos[:2]), lambda data: data.body("torso").xpos):
        nodes = [Node("hip", -1, -1, i, extra_obs={"qpos": function}) for i in range(8)]
        factorization = {"partition": [tuple(nodes)], "edges": [], "globals": []}
        with pytest.raises(ValueError, match="'qpos' of 'hip' is not made of"):
            MujocoTeamEnv("Ant", agent_factorization=factorization, agent_obsk=0)
        assert MujocoTeamEnv("Ant", n_envs=1, agent_factorization=factorization).agents == ("agent_0",)


# ---- categories ----


def test_categories_choose_what_is_observed() -> None:
    env = MujocoTeamEnv(
        "Ant", "4x2", n_envs=2, agent_obsk=1, local_categories=[["qvel"], ["qpos"]], global_categories=["qvel"]
    )
    shown = env.reset(seed=3)
    qpos, qvel = env.engine.qpos, env.engine.qvel
    # Its own ankle and hip (in the order of their names), the other hips, the torso.
    expected = np.column_stack([qvel[:, 7], qvel[:, 6], qpos[:, 9], qpos[:, 11], qpos[:, 13], qvel[:, :6]])
    assert np.array_equal(shown.observations["agent_0"], expected)
    reference = robotics_env(
        "Ant", "4x2", agent_obsk=1, local_categories=[["qvel"], ["qpos"]], global_categories=("qvel",)
    )
    observations, _ = reference.reset(seed=3)
    assert all(np.array_equal(shown.observations[agent][0], observations[agent]) for agent in env.agents)


def test_what_keywords_leave_out_is_not_observed() -> None:
    with_forces = MujocoTeamEnv("Ant", "4x2", n_envs=1, agent_obsk=0)
    without = MujocoTeamEnv("Ant", "4x2", n_envs=1, agent_obsk=0, include_cfrc_ext_in_observation=False)
    sizes = [env.observation_spaces["agent_0"].shape[0] for env in (with_forces, without)]
    assert sizes == [2 + 2 + 4 * 6 + 5 + 6, 2 + 2 + 5 + 6]


@pytest.mark.parametrize("option", ["local_categories", "global_categories"])
def test_categories_without_agent_obsk_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match="agent_obsk=None everyone observes everything"):
        MujocoTeamEnv("Ant", "4x2", **{option: [["qpos"]]})


@pytest.mark.parametrize("value", [[], "qpos"])
def test_local_categories_are_lists_by_distance(value: Any) -> None:
    with pytest.raises(ValueError, match=r"local_categories: expected a list .* such as \[\['qpos'\]\]"):
        MujocoTeamEnv("Ant", "4x2", agent_obsk=1, local_categories=value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"bthigh"',
            '"thigh"',
            "agent_obsk=1 needs the joints of HalfCheetah, .* lacks: .*bthigh.* agent_obsk=None",
        ),
        (
            "</actuator>",
            '<motor name="extra" joint="rooty" gear="1"/></actuator>',
            r"actuators \[6\] are not in the graph of HalfCheetah: use agent_obsk=None",
        ),
    ],
)
def test_a_model_unlike_the_robot_has_no_nearby_joints(old: str, new: str, message: str, tmp_path: Path) -> None:
    original = (models._ASSETS / "half_cheetah.xml").read_text()
    assert old in original
    path = tmp_path / "cheetah.xml"
    path.write_text(original.replace(old, new))
    with pytest.raises(ValueError, match=message):
        MujocoTeamEnv("HalfCheetah", xml_file=str(path), agent_obsk=1)
    MujocoTeamEnv("HalfCheetah", xml_file=str(path), n_envs=1)


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [("local_categories", [["qposs"]], "qpos"), ("global_categories", ["cvel"], "qvel")],
)
def test_unknown_categories_are_refused(option: str, value: Any, known: str) -> None:
    with pytest.raises(UnknownNameError, match=known):
        MujocoTeamEnv("Ant", "4x2", agent_obsk=1, **{option: value})


# ---- chains ----


@pytest.mark.parametrize(
    ("kind", "n_segments"), [*itertools.product(["ant"], [1, 2, 5]), *itertools.product(["swimmer"], [2, 3, 12])]
)
def test_chains_are_those_of_gymnasium_robotics(kind: str, n_segments: int, tmp_path: Path) -> None:
    """Every number of the compiled models is equal; only bodies and geoms have other names."""
    with quiet():
        from gymnasium_robotics.envs.multiagent_mujoco import many_segment_ant, many_segment_swimmer

        generator = {"ant": many_segment_ant, "swimmer": many_segment_swimmer}[kind]
        generator.gen_asset(n_segments, str(tmp_path / "chain.xml"))
        expected = mujoco.MjModel.from_xml_path(str(tmp_path / "chain.xml"))
    ours = {"ant": models.ant_chain, "swimmer": models.swimmer_chain}[kind](n_segments)
    names = {"nnames", "nbuffer", "narena"}
    compared = 0
    for owner, other in ((ours, expected), (ours.opt, expected.opt), (ours.stat, expected.stat)):
        for name in dir(owner):
            value = getattr(owner, name)
            if name.startswith(("_", "name")) or name in names or not isinstance(value, int | float | np.ndarray):
                continue
            compared += 1
            assert np.array_equal(value, getattr(other, name)), name
    assert compared > 300
    joints = [ours.joint(i).name for i in range(ours.njnt)]
    assert joints == [expected.joint(i).name for i in range(expected.njnt)]
