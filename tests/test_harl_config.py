"""HARL's configurations as keywords: two accounts of the same tuned settings agree."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

import workbench as wb
from workbench.running.methods import find_method

# tuned_configs/mamujoco/Ant-v2-4x2 of PKU-MARL/HARL, both methods.
COMMON = {
    "device": {"cuda": True, "cuda_deterministic": True, "torch_threads": 4},
    "eval": {"eval_episodes": 40, "n_eval_rollout_threads": 20, "use_eval": True},
    "model": {
        **{"activation_func": "relu", "critic_lr": 0.0005, "data_chunk_length": 10, "gain": 0.01, "lr": 0.0005},
        **{"hidden_sizes": [128, 128, 128], "initialization_method": "orthogonal_", "opti_eps": 1e-05},
        **{"recurrent_n": 1, "std_x_coef": 1, "std_y_coef": 0.5, "use_feature_normalization": True},
        **{"use_naive_recurrent_policy": False, "use_recurrent_policy": False, "weight_decay": 0},
    },
    "seed": {"seed": 1, "seed_specify": True},
    "train": {
        **{"episode_length": 200, "eval_interval": 25, "log_interval": 5, "model_dir": None, "n_rollout_threads": 20},
        **{"num_env_steps": 10000000, "use_linear_lr_decay": False, "use_valuenorm": True},
        "use_proper_time_limits": True,
    },
}
ALGO = {
    **{"action_aggregation": "prod", "critic_epoch": 5, "critic_num_mini_batch": 1, "fixed_order": False},
    **{"gae_lambda": 0.95, "gamma": 0.99, "huber_delta": 10.0, "max_grad_norm": 10.0, "share_param": False},
    **{"use_clipped_value_loss": True, "use_gae": True, "use_huber_loss": True, "use_max_grad_norm": True},
    **{"use_policy_active_masks": True, "value_loss_coef": 1},
}
OWN: dict[str, dict[str, Any]] = {
    "happo": {"actor_num_mini_batch": 1, "clip_param": 0.1, "entropy_coef": 0, "ppo_epoch": 5},
    "hatrpo": {"clip_param": 0.2, "kl_threshold": 0.005, "ls_step": 10, "accept_ratio": 0.5, "backtrack_coeff": 0.8},
}


def config(method: str, **changes: Any) -> dict[str, Any]:
    return {
        "main_args": {"algo": method, "env": "mamujoco", "exp_name": "report", "load_config": ""},
        "algo_args": {**COMMON, "algo": {**ALGO, **OWN[method], **changes}},
    }


@pytest.mark.parametrize("method", ["happo", "hatrpo"])
def test_the_authors_file_gives_the_settings_of_the_reference(method: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(method)), encoding="utf-8")
    with pytest.warns(UserWarning, match="left out of HARL's configuration") as told:
        keywords = wb.from_harl(path)
    (warning,) = told
    assert "n_rollout_threads=20 (n_envs of the environment" in str(warning.message)
    assert "num_env_steps=10000000 (env_steps of run()" in str(warning.message)
    assert "gain" not in str(warning.message)  # which is so here, too
    assert keywords.pop("seed") == 1
    settings = find_method(method).settings
    assert settings.make(method, keywords) == settings.make(method, wb.reference_settings(method, "Ant 4x2"))


@pytest.mark.parametrize(
    ("theirs", "here"),
    [
        ({"use_linear_lr_decay": True, "num_env_steps": 5000}, {"lr_decay_steps": 5000, "final_lr_fraction": 0.0}),
        ({"use_huber_loss": False, "huber_delta": 10.0}, {"huber_delta": None}),
        ({"use_clipped_value_loss": True, "clip_param": 0.05}, {"value_clip_epsilon": 0.05, "clip_epsilon": 0.05}),
        ({"use_clipped_value_loss": False, "clip_param": 0.05}, {"value_clip_epsilon": None}),
        ({"use_gae": False, "gae_lambda": 0.9}, {"gae_lambda": 1.0}),
        ({"use_feature_normalization": False}, {"layer_norm": "hidden"}),
        ({"use_recurrent_policy": True, "data_chunk_length": 5}, {"recurrent": True, "sequence_length": 5}),
        ({"fixed_order": True, "share_param": True}, {"order": "fixed", "sharing": "shared"}),
        ({"activation_func": "tanh"}, {"activation": "tanh"}),
    ],
)
@pytest.mark.filterwarnings("ignore:left out")
def test_what_is_said_in_another_way(theirs: dict[str, Any], here: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "happo.yaml"
    path.write_text(yaml.safe_dump({"train": {**theirs, "episode_length": 50}}), encoding="utf-8")
    assert wb.from_harl(path).items() >= {**here, "n_steps": 50}.items()


def test_values_without_a_setting_are_told_and_nothing_else_is() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert wb.from_harl({"ppo_epoch": 3, "gain": 0.01, "opti_eps": 1e-5}, "happo")["epochs"] == 3
    with pytest.warns(UserWarning, match=r"configuration: gain=0\.1; activation_func='selu'; mystery=3\.$"):
        wb.from_harl({"gain": 0.1, "activation_func": "selu", "mystery": 3}, "happo")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"algo": "hapo"}, "unknown method 'hapo'; did you mean 'happo'"),
        ({"clip_param": 0.2}, r'does not say its method; pass it, as in from_harl\(config, "happo"\)'),
        ({"algo": "happo", "clip_param": "x"}, r"clip_epsilon \(.*\) is 'x'; expected a number"),
        ("[1, 2", "cannot be read"),
        ("3", "holds a int; expected one of HARL's"),
    ],
)
def test_what_is_no_configuration_is_refused(given: Any, message: str, tmp_path: Path) -> None:
    if isinstance(given, str):
        (tmp_path / "happo.yaml").write_text(given, encoding="utf-8")
        given = tmp_path / "happo.yaml"
    with pytest.raises(ValueError, match=message):
        wb.from_harl(given)
