"""The environment around the robots: what agents see, snapshots, descriptions, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mujoco_references import WITHOUT_CONTACTS, single

import workbench as wb
from workbench.envs.base import TimeStep
from workbench.envs.multi_agent_mujoco import MujocoTeamEnv, native
from workbench.envs.multi_agent_mujoco.native import NativeEngine, native_forces_work
from workbench.envs.multi_agent_mujoco.physics import BatchEngine, ThreadedEngine
from workbench.errors import UnknownNameError

Actions = dict[str, npt.NDArray[Any]]


def random_actions(env: MujocoTeamEnv, rng: np.random.Generator) -> Actions:
    return {
        agent: rng.uniform(-1, 1, (env.n_envs, *space.shape)).astype(np.float32)
        for agent, space in env.action_spaces.items()
    }


def arrays(step: TimeStep) -> dict[str, npt.NDArray[Any]]:
    """Every array that a step shows."""
    found = {"state": step.state, "reward": step.reward, "terminated": step.terminated, "truncated": step.truncated}
    found |= {f"observation of {agent}": observation for agent, observation in step.observations.items()}
    found |= dict(step.info)
    if step.final is not None:
        found |= {"ended": step.final.envs, "final state": step.final.state}
        found |= {f"final observation of {agent}": seen for agent, seen in step.final.observations.items()}
    return found


def assert_equal(one: TimeStep, other: TimeStep) -> None:
    ours, theirs = arrays(one), arrays(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert np.array_equal(array, theirs[name]), name


def ahead(env: MujocoTeamEnv, steps: int, seed: int = 0) -> list[TimeStep]:
    rng = np.random.default_rng(seed)
    return [env.step(random_actions(env, rng)) for _ in range(steps)]


# ---- observations ----


def naive(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return (vector - np.mean(vector)) / np.std(vector)


@pytest.mark.parametrize(("scenario", "conf"), [("Ant", "4x2"), ("Walker2d", "6x1"), ("Hopper", None)])
def test_the_papers_observations_are_the_whole_state_and_ones_number_standardized(scenario: str, conf: str) -> None:
    env = wb.envs.mujoco(scenario, conf, n_envs=3, max_episode_steps=9, standardize=True)
    env.reset(seed=0)
    for step in ahead(env, 20):
        for i, whole in enumerate(step.info["observation"]):
            # info has the true last observation of an episode that ended, and so has final.
            ended = step.final is not None and i in step.final.envs
            shown, row = (step.final, list(step.final.envs).index(i)) if ended else (step, i)
            assert np.allclose(shown.state[row], naive(whole), rtol=1e-6, atol=1e-7)
            for number, agent in enumerate(env.agents):
                expected = naive(np.concatenate([whole, np.eye(len(env.agents))[number]]))
                assert np.allclose(shown.observations[agent][row], expected, rtol=1e-6, atol=1e-7)
    assert {space.dtype for space in (*env.observation_spaces.values(), env.state_space)} == {np.dtype(np.float32)}


def test_observations_of_the_whole_state_are_views_of_one_array() -> None:
    env = wb.envs.mujoco("Ant", "4x2", n_envs=3)
    observations = env.reset(seed=0).observations
    (stacked,) = {id(observation.base): observation.base for observation in observations.values()}.values()
    assert stacked.shape == (4, 3, 109)
    assert stacked.flags.c_contiguous


def test_a_vector_without_spread_becomes_zeros() -> None:
    from workbench.envs.multi_agent_mujoco.observations import standardize

    assert np.array_equal(standardize(np.array([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]]))[0], np.zeros(3))


def test_raw_observations_on_request_and_standardized_ones_of_nearby_joints() -> None:
    raw = wb.envs.mujoco("HalfCheetah", "2x3", n_envs=2, standardize=False).reset(seed=0)
    assert np.array_equal(raw.observations["agent_1"], np.column_stack([raw.state, [[0, 1]] * 2]))
    near = wb.envs.mujoco("HalfCheetah", "2x3", n_envs=2, agent_obsk=1).reset(seed=0)
    scaled = wb.envs.mujoco("HalfCheetah", "2x3", n_envs=2, agent_obsk=1, standardize=True).reset(seed=0)
    for agent, observation in near.observations.items():
        assert np.allclose(scaled.observations[agent], [naive(row) for row in observation], rtol=1e-6)
        assert scaled.observations[agent].dtype == np.float32
        assert observation.dtype == np.float64


def test_the_terms_add_up_to_the_reward() -> None:
    env = wb.envs.mujoco("Ant", "4x2", n_envs=4)
    env.reset(seed=0)
    for step in ahead(env, 30):
        terms = [step.info[f"reward_{name}"] for name in ("forward", "ctrl", "contact", "survive")]
        assert np.allclose(np.sum(terms, axis=0), step.reward, atol=1e-12)
        assert np.array_equal(step.info["x_velocity"], step.info["reward_forward"])


@pytest.mark.parametrize("limit", [7, None])
def test_episodes_are_as_long_as_asked(limit: int | None) -> None:
    env = wb.envs.mujoco("Swimmer", "2x1", n_envs=2, max_episode_steps=limit)
    env.reset(seed=0)
    ends = [t for t, step in enumerate(ahead(env, 1010), start=1) if step.truncated.any()]
    assert ends == ([] if limit is None else list(range(7, 1011, 7)))


def test_a_fall_in_the_last_step_is_no_truncation() -> None:
    env = wb.envs.mujoco("Walker2d", "2x3", n_envs=1)
    env.reset(seed=0)
    falls = 1 + next(t for t, step in enumerate(ahead(env, 100)) if step.terminated[0])
    for limit, endings in ((falls, (True, False)), (falls - 1, (False, True))):
        env = wb.envs.mujoco("Walker2d", "2x3", n_envs=1, max_episode_steps=limit)
        env.reset(seed=0)
        last = ahead(env, limit)[-1]
        assert (last.terminated[0], last.truncated[0]) == endings


# ---- chance ----


def test_environment_i_is_seeded_with_seed_plus_i_and_alone_like_among_others() -> None:
    many, one = single("Ant", n_envs=3, max_episode_steps=15), single("Ant", n_envs=1, max_episode_steps=15)
    shown, alone = many.reset(seed=40), one.reset(seed=42)
    rng = np.random.default_rng(0)
    for _ in range(40):
        assert np.array_equal(shown.state[2], alone.state[0])
        actions = rng.uniform(-1, 1, (3, 8))
        shown, alone = many.step({"agent_0": actions}), one.step({"agent_0": actions[2:]})
        assert shown.reward[2] == alone.reward[0]


def test_reset_without_a_seed_goes_on_with_the_generators() -> None:
    env = wb.envs.mujoco("Ant", "4x2", n_envs=2)
    first, second = env.reset(seed=0), env.reset()
    assert not np.array_equal(first.state, second.state)
    assert np.array_equal(env.reset(seed=0).state, first.state)
    assert np.array_equal(env.reset().state, second.state)


def test_a_seed_counts_whatever_went_before() -> None:
    """Starts drawn ahead belong to the generators that drew them."""
    used, fresh = (wb.envs.mujoco("Walker2d", "2x3", n_envs=3) for _ in range(2))
    used.reset(seed=0)
    while ahead(used, 1)[0].final is None:
        pass
    assert used._starts._ready.any()  # the others' next starts, drawn with that of the one that fell
    assert_equal(used.reset(seed=5), fresh.reset(seed=5))
    for one, other in zip(ahead(used, 30), ahead(fresh, 30), strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("seed", [-1, 0.5, "0", True])
def test_seeds_that_are_none_are_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed"):
        wb.envs.mujoco("Swimmer", "2x1", n_envs=1).reset(seed=seed)


def test_the_number_of_threads_changes_nothing() -> None:
    runs = []
    for n_threads, forces in ((1, "portable"), (3, "portable"), (1, "auto"), (2, "auto")):
        env = wb.envs.mujoco("Ant", "4x2", n_envs=5, n_threads=n_threads, contact_forces=forces, max_episode_steps=20)
        env.reset(seed=3)
        runs.append(ahead(env, 50))
        env.close()
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            assert_equal(one, other)


# ---- snapshots ----

KINDS: list[tuple[str, str, dict[str, Any]]] = [
    ("Ant", "4x2", WITHOUT_CONTACTS),
    ("Ant", "4x2", {"contact_forces": "portable"}),
    ("Ant", "4x2", {"agent_obsk": 1}),
    ("Walker2d", "6x1", {}),
    ("HalfCheetah", "2x3", {}),
    ("Hopper", "3x1", {}),
    ("Humanoid", "9|8", {}),
    ("HumanoidStandup", "17x1", {}),
    ("Swimmer", "2x1", {}),
    ("ManyAgentSwimmer", "4x2", {}),
]


@pytest.mark.parametrize(("scenario", "conf", "options"), KINDS)
def test_from_a_snapshot_the_same_bits_follow(scenario: str, conf: str, options: dict[str, Any]) -> None:
    env = wb.envs.mujoco(scenario, conf, n_envs=4, max_episode_steps=25, n_threads=2, **options)
    env.reset(seed=0)
    ahead(env, 30)
    saved = env.snapshot()
    future = ahead(env, 60, seed=1)
    assert any(step.final is not None for step in future)
    fresh, used = (
        wb.envs.mujoco(scenario, conf, n_envs=4, max_episode_steps=25, n_threads=1, **options) for _ in range(2)
    )
    used.reset(seed=9)
    ahead(used, 1)
    for restored in (env, env, fresh, used):
        restored.restore(saved)
        for step, expected in zip(ahead(restored, 60, seed=1), future, strict=True):
            assert_equal(step, expected)


def test_snapshots_pass_between_the_ways_of_computing_forces() -> None:
    """All engines hold the same rows, so a run may go on on another processor."""
    portable = wb.envs.mujoco("Ant", "4x2", n_envs=3, contact_forces="portable")
    portable.reset(seed=0)
    ahead(portable, 40)
    other = wb.envs.mujoco("Ant", "4x2", n_envs=3)
    other.restore(portable.snapshot())
    for one, same in zip(ahead(portable, 40), ahead(other, 40), strict=True):
        assert_equal(one, same)


IN_ANOTHER_PROCESS = """
import sys, numpy as np, workbench as wb
env = wb.envs.mujoco("Ant", "4x2", n_envs=4, max_episode_steps=25, n_threads=1)
env.restore(np.load(sys.argv[1]))
rng = np.random.default_rng(1)
rewards = []
for _ in range(40):
    actions = {a: rng.uniform(-1, 1, (4, 2)).astype(np.float32) for a in env.agents}
    rewards.append(env.step(actions).reward)
np.save(sys.argv[2], rewards)
"""


def test_another_process_goes_on_from_a_snapshot(tmp_path: Any) -> None:
    env = wb.envs.mujoco("Ant", "4x2", n_envs=4, max_episode_steps=25)
    env.reset(seed=0)
    ahead(env, 30)
    np.savez(tmp_path / "saved.npz", **env.snapshot())
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "saved.npz"), str(tmp_path / "rewards.npy")]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    expected = [step.reward for step in ahead(env, 40, seed=1)]
    assert np.array_equal(np.load(tmp_path / "rewards.npy"), expected)


def test_a_snapshot_is_small_plain_and_a_copy() -> None:
    env = wb.envs.mujoco("Ant", "4x2", n_envs=20)
    env.reset(seed=0)
    saved = env.snapshot()
    assert sum(array.nbytes for array in saved.values()) < 2_000_000
    assert all(array.dtype.kind in "fiub" for array in saved.values())
    before = {name: array.copy() for name, array in saved.items()}
    env.reset()
    ahead(env, 3)
    assert all(np.array_equal(saved[name], before[name]) for name in before)


def test_snapshots_of_other_environments_are_refused_and_change_nothing() -> None:
    env = wb.envs.mujoco("Ant", "4x2", n_envs=2)
    env.reset(seed=0)
    expected = env.snapshot()
    foreign = wb.envs.mujoco("Ant", "4x2", n_envs=3).snapshot()
    partial = {name: array for name, array in expected.items() if name != "generators"}
    for wrong, message in ((foreign, "'physics' has shape"), (partial, "'generators' is missing")):
        with pytest.raises(ValueError, match=message):
            env.restore(wrong)
    assert all(np.array_equal(array, expected[name]) for name, array in env.snapshot().items())


# ---- descriptions ----


@pytest.mark.parametrize(("scenario", "conf", "options"), KINDS)
def test_a_description_makes_an_equal_environment(scenario: str, conf: str, options: dict[str, Any]) -> None:
    env = wb.envs.mujoco(scenario, conf, n_envs=2, version="v5", reset_noise_scale=0.03, **options)
    assert env.description is not None
    made = wb.envs.make(**json.loads(json.dumps(env.description)))
    assert isinstance(made, MujocoTeamEnv)
    assert repr(made) == repr(env)
    assert made.description == env.description
    assert_equal(made.reset(seed=5), env.reset(seed=5))


def test_a_description_holds_what_differs_from_the_defaults_only() -> None:
    plain = {"kind": "mujoco", "scenario": "Ant", "agent_conf": "4x2", "n_envs": 16}
    assert wb.envs.mujoco("Ant", "4x2").description == plain
    given = {"agent_obsk": 1, "healthy_z_range": [0.3, 0.9], "version": "v4", "max_episode_steps": None}
    assert wb.envs.mujoco("Ant", "4x2", **given).description == plain | given


def test_remake_changes_the_number_of_copies_only() -> None:
    factorization = {"left": ["motor1_rot"], "right": ["motor2_rot"]}
    env = wb.envs.mujoco("Swimmer", n_envs=5, agent_factorization=factorization, ctrl_cost_weight=0.5)
    one = env.remake(1)
    assert (one.n_envs, one.agents, one.robot.options) == (1, env.agents, env.robot.options)
    assert one.description == {**env.description, "n_envs": 1}


def test_an_environment_shows_what_it_is() -> None:
    env = wb.envs.mujoco("ManyAgentAnt", "3x1", n_envs=2)
    shown = (
        "MujocoTeamEnv('ManySegmentAnt', '3x1', n_envs=2): 3 agents, observations (164,), actions (4,), state (161,)"
    )
    assert repr(env) == shown
    assert env.partition["agent_1"][0] == (6, "hip2_1", 13)
    assert env.positions.shape == (2, env.model.nq)
    assert env.seconds_per_step == pytest.approx(0.05)


# ---- refusals ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Antt", "4x2"), "unknown scenario 'Antt'; did you mean 'Ant'"),
        (("ant", "4x2"), "did you mean 'Ant'"),
        (("Ant", "4x3"), "unknown partition of Ant '4x3'; did you mean '4x2'.*2x4, 2x4d, 4x2, 8x1"),
        (("ManyAgentSwimmer", "10"), "'<agents>x<segments for each>'"),
        (("ManyAgentSwimmer", "1x1"), "2 or more segments"),
        (("ManyAgentSwimmer", None), "such as '10x2'"),
    ],
)
def test_unknown_scenarios_and_partitions_are_refused(arguments: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wb.envs.mujoco(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ctrl_cost": 0.1}, "unknown keyword of Ant v5 'ctrl_cost'; did you mean 'ctrl_cost_weight'"),
        ({"n_env": 4}, "did you mean 'n_envs'"),
        ({"use_contact_forces": True}, "unknown keyword of Ant v5"),
        ({"version": "v4", "include_cfrc_ext_in_observation": False}, "unknown keyword of Ant v4"),
        ({"version": "v3"}, "unknown version 'v3'"),
        ({"contact_forces": "naive"}, "did you mean 'native'"),
        ({"n_envs": 0}, "n_envs is 0; expected an integer ≥ 1"),
        ({"n_envs": 2.5}, "n_envs is 2.5"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0"),
        ({"n_threads": -1}, "n_threads is -1"),
        ({"agent_obsk": -1}, "agent_obsk is -1; expected None or an integer ≥ 0"),
        ({"standardize": "yes"}, "standardize='yes'"),
        ({"frame_skip": 0}, "frame_skip=0: expected an integer ≥ 1"),
        ({"ctrl_cost_weight": "0.5"}, "ctrl_cost_weight='0.5': expected a finite number"),
        ({"ctrl_cost_weight": float("nan")}, "ctrl_cost_weight=nan"),
        ({"healthy_z_range": (1.0, 0.2)}, "healthy_z_range=.*low < high"),
        ({"healthy_z_range": 0.2}, "healthy_z_range=0.2"),
        ({"terminate_when_unhealthy": 1}, "terminate_when_unhealthy=1: expected True or False"),
        ({"reset_noise_scale": -0.1}, "reset_noise_scale=-0.1: expected a number ≥ 0"),
        ({"main_body": 1.5}, "main_body=1.5: expected a body's number or name"),
        ({"main_body": "torsoo"}, "unknown main_body 'torsoo'; did you mean 'torso'"),
        ({"main_body": 14}, "unknown main_body 14.*a number below 14"),
        ({"xml_file": 3}, "xml_file=3: expected a path"),
        ({"xml_file": "./nowhere.xml"}, "there is no file nowhere.xml"),
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        wb.envs.mujoco("Ant", "4x2", **options)


def test_a_chain_has_a_model_of_its_own() -> None:
    with pytest.raises(ValueError, match="xml_file: ManySegmentSwimmer makes its own model"):
        wb.envs.mujoco("ManyAgentSwimmer", "10x2", xml_file="swimmer.xml")


def test_unknown_names_are_attribute_errors_too() -> None:
    with pytest.raises(UnknownNameError):
        wb.envs.mujoco("Ant", "4x2", epochs=3)


def wrong_actions(env: MujocoTeamEnv) -> list[tuple[dict[str, Any], str]]:
    good: Actions = {agent: np.zeros((3, 2)) for agent in env.agents}
    poisoned = np.zeros((3, 2))
    poisoned[1, 0] = np.nan
    return [
        ({**good, "agent_2": np.zeros((3, 3))}, r"'agent_2' has shape \(3, 3\); expected \(3, 2\)"),
        ({**good, "agent_1": np.zeros(2)}, r"'agent_1' has shape \(2,\)"),
        ({**good, "agent_3": poisoned}, "'agent_3' is nan in environment 1"),
        ({**good, "agent_0": np.full((3, 2), -np.inf)}, "'agent_0' is -inf in environment 0"),
        ({agent: good[agent] for agent in env.agents[:3]}, "'agent_3'"),
        ({**good, "agent_4": good["agent_0"]}, "agent_4"),
        ({**good, "agent_1": np.full((3, 2), "left")}, "'agent_1' has dtype"),
    ]


def test_actions_that_are_none_are_refused_and_nothing_is_stepped() -> None:
    env = wb.envs.mujoco("Ant", "4x2", n_envs=3)
    env.reset(seed=0)
    ahead(env, 5)
    before = env.snapshot()
    for actions, message in wrong_actions(env):
        with pytest.raises(ValueError, match=message):
            env.step(actions)
        assert all(np.array_equal(array, before[name]) for name, array in env.snapshot().items())


def test_integers_are_actions_too() -> None:
    env = wb.envs.mujoco("Ant", "4x2", n_envs=3)
    env.reset(seed=0)
    env.step({agent: np.ones((3, 2), int) for agent in env.agents})
    assert np.array_equal(env.engine.ctrl, np.ones((3, 8)))


def test_stepping_needs_a_reset_and_ends_with_close() -> None:
    env = wb.envs.mujoco("Ant", "4x2", n_envs=2)
    actions = {agent: np.zeros((2, 2)) for agent in env.agents}
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.step(actions)
    env.reset()
    env.step(actions)
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.step(actions)


# ---- engines ----


def test_forces_of_contacts_are_computed_only_where_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def kind(scenario: str, **options: Any) -> type:
        return type(wb.envs.mujoco(scenario, **options).engine)

    best = NativeEngine if native_forces_work() else ThreadedEngine
    assert kind("Ant") is best
    assert kind("Ant", contact_forces="portable") is ThreadedEngine
    assert kind("Ant", **WITHOUT_CONTACTS) is BatchEngine
    assert kind("Ant", include_cfrc_ext_in_observation=False) is best
    assert kind("Ant", version="v4") is BatchEngine
    assert kind("HumanoidStandup", version="v4") is best
    assert kind("Walker2d", agent_conf="2x3", agent_obsk=1) is BatchEngine
    monkeypatch.setattr("workbench.envs.multi_agent_mujoco.design.native_forces_work", lambda: False)
    assert kind("Ant") is ThreadedEngine
    with pytest.raises(ValueError, match="use 'portable'"):
        kind("Ant", contact_forces="native")


@pytest.mark.skipif(not native_forces_work(), reason="no native forces on this machine")
def test_the_self_test_notices_forces_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    import mujoco

    model = mujoco.MjModel.from_xml_string(native._FALLING_ROD)
    assert native._agree(model)
    # Forces as after the step before: what reading them too early would give.
    monkeypatch.setattr(NativeEngine, "step", _late_forces)
    assert not native._agree(model)


def _late_forces(engine: NativeEngine) -> None:
    library = engine._library
    library.mjb_step(engine._batch, None, 0, engine.frame_skip, 0)
    library.mjb_apply(engine._batch, None, 0, engine._add_forces, None, 0)


def test_the_physics_alone_is_what_the_environment_steps() -> None:
    env, physics = (single("Ant", n_envs=3, **WITHOUT_CONTACTS) for _ in range(2))
    env.reset(seed=0)
    physics.restore(env.snapshot())
    controls = np.random.default_rng(0).uniform(-1, 1, (3, 8))
    env.step({"agent_0": controls})
    physics.engine.physics_only_step(controls)
    assert np.array_equal(env.engine.save(), physics.engine.save())


def test_a_robot_that_is_nowhere_has_fallen() -> None:
    env = single("Ant", n_envs=3)
    env.reset(seed=0)
    env.engine.qvel[1, 3] = np.nan
    env.engine.qpos[2, 9] = np.inf
    assert env.robot.healthy(env.engine.motion).tolist() == [True, False, False]
