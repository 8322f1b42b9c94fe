"""Our robots against Gymnasium's, to the last bit: observations, rewards, endings, resets."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium
import numpy as np
import pytest
from mujoco_references import WITHOUT_CONTACTS, gymnasium_env, in_lockstep, quiet, single

from workbench.envs.multi_agent_mujoco.keywords import KEYWORDS
from workbench.envs.multi_agent_mujoco.native import native_forces_work

ROBOTS = ("Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "Swimmer", "Walker2d")
NEVER_FALL = ("HalfCheetah", "HumanoidStandup", "Swimmer")
CASES: list[tuple[str, dict[str, Any]]] = [("Ant", WITHOUT_CONTACTS), *((robot, {}) for robot in ROBOTS)]
WAYS = ("portable", "native") if native_forces_work() else ("portable",)

# Every keyword at another value than its default.
OTHER_KEYWORDS: dict[str, dict[str, Any]] = {
    "Ant": {
        "frame_skip": 3,
        "forward_reward_weight": 1.7,
        "ctrl_cost_weight": 0.3,
        "contact_cost_weight": 2e-3,
        "healthy_reward": 0.6,
        "main_body": "front_left_leg",
        "healthy_z_range": (0.25, 0.9),
        "contact_force_range": (-0.7, 1.3),
        "reset_noise_scale": 0.2,
        "exclude_current_positions_from_observation": False,
    },
    "HalfCheetah": {
        "frame_skip": 2,
        "forward_reward_weight": 0.7,
        "ctrl_cost_weight": 0.3,
        "reset_noise_scale": 0.3,
        "exclude_current_positions_from_observation": False,
    },
    "Hopper": {
        "frame_skip": 3,
        "forward_reward_weight": 0.7,
        "ctrl_cost_weight": 0.01,
        "healthy_reward": 0.6,
        "healthy_state_range": (-3.0, 3.5),
        "healthy_z_range": (0.6, 1.4),
        "healthy_angle_range": (-0.3, 0.25),
        "reset_noise_scale": 0.05,
        "exclude_current_positions_from_observation": False,
    },
    "Humanoid": {
        "frame_skip": 4,
        "forward_reward_weight": 0.7,
        "ctrl_cost_weight": 0.3,
        "contact_cost_weight": 2e-5,
        "contact_cost_range": (0.1, 2.0),
        "healthy_reward": 0.6,
        "healthy_z_range": (0.9, 1.6),
        "reset_noise_scale": 0.05,
        "exclude_current_positions_from_observation": False,
        "include_cvel_in_observation": False,
        "include_qfrc_actuator_in_observation": False,
    },
    "HumanoidStandup": {
        "frame_skip": 4,
        "uph_cost_weight": 3.0,
        "ctrl_cost_weight": 0.3,
        "impact_cost_weight": 2e-5,
        "impact_cost_range": (0.1, 2.0),
        "reset_noise_scale": 0.05,
        "exclude_current_positions_from_observation": False,
        "include_cinert_in_observation": False,
        "include_cfrc_ext_in_observation": False,
    },
    "Swimmer": {
        "frame_skip": 3,
        "forward_reward_weight": 0.7,
        "ctrl_cost_weight": 0.3,
        "reset_noise_scale": 0.3,
        "exclude_current_positions_from_observation": False,
    },
    "Walker2d": {
        "frame_skip": 3,
        "forward_reward_weight": 0.7,
        "ctrl_cost_weight": 0.01,
        "healthy_reward": 0.6,
        "healthy_z_range": (0.7, 1.6),
        "healthy_angle_range": (-0.8, 0.9),
        "reset_noise_scale": 0.05,
        "exclude_current_positions_from_observation": False,
    },
}


def side_by_side(
    robot: str, steps: int, seed: int, *, n_envs: int = 3, version: str = "v5", dtype: type = np.float32, **options: Any
) -> dict[str, int]:
    """Endings counted over ``steps`` of ``n_envs`` environments, seeded differently, that agreed in every bit."""
    ours = {"contact_forces", "n_threads"}
    keywords = {name: value for name, value in options.items() if name not in ours}
    env = single(robot, n_envs=n_envs, version=version, **options)
    references = [gymnasium_env(f"{robot}-{version}", **keywords) for _ in range(n_envs)]
    return in_lockstep(env, references, steps, seed, dtype)


@pytest.mark.parametrize(("robot", "keywords"), CASES)
def test_v5_with_its_defaults_over_a_whole_episode_and_more(robot: str, keywords: dict[str, Any]) -> None:
    endings = side_by_side(robot, 1040, seed=11, **keywords)
    assert endings["truncated" if robot in NEVER_FALL else "terminated"] >= 3


@pytest.mark.parametrize("robot", ROBOTS)
def test_v5_with_every_keyword_changed_and_float64_actions(robot: str) -> None:
    side_by_side(robot, 200, seed=5, dtype=np.float64, max_episode_steps=70, **OTHER_KEYWORDS[robot])


@pytest.mark.parametrize("robot", [robot for robot in ROBOTS if robot not in NEVER_FALL])
def test_v5_of_a_robot_that_may_lie_about(robot: str) -> None:
    endings = side_by_side(robot, 130, seed=3, max_episode_steps=60, terminate_when_unhealthy=False)
    assert endings == {"none": 3 * 128, "truncated": 6}


@pytest.mark.parametrize(
    ("robot", "keywords"), [("Ant", {"use_contact_forces": True}), *((robot, {}) for robot in ROBOTS)]
)
def test_v4_where_gymnasium_has_it(robot: str, keywords: dict[str, Any]) -> None:
    endings = side_by_side(robot, 250, seed=17, version="v4", max_episode_steps=100, **keywords)
    assert endings["truncated" if robot in NEVER_FALL else "terminated"] >= 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("robot", "keywords"),
    [
        ("Ant", {}),
        ("Ant", {"contact_cost_weight": 0.0}),
        ("Ant", {"include_cfrc_ext_in_observation": False}),
        ("Humanoid", {}),
    ],
)
def test_forces_of_contacts_both_ways(robot: str, keywords: dict[str, Any], way: str) -> None:
    side_by_side(robot, 120, seed=23, contact_forces=way, n_threads=2, **keywords)


def test_a_model_of_the_users_own(tmp_path: Any) -> None:
    """Gymnasium's own Hopper with a heavier foot."""
    assets = inspect.getfile(gymnasium).replace("__init__.py", "envs/mujoco/assets/hopper.xml")
    with open(assets) as file:
        (tmp_path / "hopper.xml").write_text(file.read().replace('friction="2.0"', 'friction="1.1"'))
    side_by_side("Hopper", 200, seed=1, xml_file=str(tmp_path / "hopper.xml"))


def test_the_vector_environment_with_same_step_resets() -> None:
    """Gymnasium's own seeding ``seed + i`` and its generators going on across resets."""
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    with quiet():
        vector = gymnasium.make_vec(
            "Ant-v5", 3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, max_episode_steps=40
        )
    env = single("Ant", n_envs=3, max_episode_steps=40)
    assert np.array_equal(env.reset(seed=31).state, vector.reset(seed=31)[0])
    rng = np.random.default_rng(0)
    n_ended = 0
    for _ in range(150):
        actions = rng.uniform(-1, 1, (3, 8)).astype(np.float32)
        step = env.step({"agent_0": actions})
        observations, rewards, terminated, truncated, infos = vector.step(actions)
        assert np.array_equal(step.state, observations)
        assert np.array_equal(step.reward, rewards)
        assert np.array_equal(step.terminated, terminated)
        assert np.array_equal(step.done, terminated | truncated)
        if step.final is not None:
            n_ended += len(step.final.envs)
            assert np.array_equal(step.final.state, np.stack(infos["final_obs"][step.final.envs]))
    assert n_ended >= 6


@pytest.mark.parametrize("version", KEYWORDS)
@pytest.mark.parametrize("robot", ROBOTS)
def test_keywords_and_defaults_are_gymnasiums(robot: str, version: str) -> None:
    parameters = inspect.signature(type(gymnasium_env(f"{robot}-{version}").unwrapped).__init__).parameters
    skipped = ("self", "kwargs", "default_camera_config")
    expected = {name: parameter.default for name, parameter in parameters.items() if name not in skipped}
    assert KEYWORDS[version][robot] == expected


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_keyword_of_v5_is_tried_at_another_value(robot: str) -> None:
    tried = {*OTHER_KEYWORDS[robot], "xml_file", "terminate_when_unhealthy"}
    # The observation's parts: some left out here, some there, in the two humanoids.
    assert {name for name in KEYWORDS["v5"][robot] if not name.startswith("include_")} <= tried
    assert all(value != KEYWORDS["v5"][robot][name] for name, value in OTHER_KEYWORDS[robot].items())


@pytest.mark.stress
@pytest.mark.parametrize("seed", [0, 1000, 2000])
@pytest.mark.parametrize(("robot", "keywords"), CASES)
def test_v5_for_long(robot: str, keywords: dict[str, Any], seed: int) -> None:
    side_by_side(robot, 5000, seed=seed, n_envs=8, dtype=(np.float32, np.float64)[seed % 2000 // 1000], **keywords)
