"""What settings are called elsewhere: in the configurations of HARL and on-policy, and by Stable-Baselines3.

The nearest spelling would mislead: HARL's ``n_rollout_threads`` are environments, its ``num_env_steps`` a run's length.
"""

from __future__ import annotations

# {their name: the setting of that meaning}, where the value means the same or is easily turned into it.
SAME_MEANING = {
    **dict.fromkeys(("learning_rate", "actor_lr"), "lr"),
    **dict.fromkeys(("clip_param", "clip_range", "eps_clip"), "clip_epsilon"),
    **dict.fromkeys(("ppo_epoch", "n_epochs", "num_epochs", "a2c_epoch", "update_epochs"), "epochs"),
    **dict.fromkeys(("critic_epoch", "n_critic_updates"), "critic_epochs"),
    **dict.fromkeys(("num_mini_batch", "actor_num_mini_batch", "num_minibatches"), "n_minibatches"),
    "critic_num_mini_batch": "critic_minibatches",
    **dict.fromkeys(("rollout_length", "episode_length", "num_steps", "unroll_length"), "n_steps"),
    **dict.fromkeys(("kl_threshold", "delta"), "max_kl"),
    **dict.fromkeys(("ls_step", "line_search_max_iter"), "line_search_steps"),
    **dict.fromkeys(("backtrack_coeff", "line_search_shrinking_factor"), "line_search_decay"),
    **dict.fromkeys(("cg_max_steps", "cg_iters"), "cg_iterations"),
    "cg_damping": "damping",
    "sub_sampling_factor": "fisher_fraction",
    **dict.fromkeys(("ent_coef", "entropy_coeff"), "entropy_coef"),
    "clip_range_vf": "value_clip_epsilon",
    "use_clipped_value_loss": "value_clip_epsilon",
    "use_huber_loss": "huber_delta",
    **dict.fromkeys(("use_valuenorm", "use_popart"), "normalize_values"),
    **dict.fromkeys(("use_linear_lr_decay", "anneal_lr"), "lr_decay_steps"),
    **dict.fromkeys(("normalize_advantage", "normalize_advantages", "norm_adv"), "standardize_advantages"),
    **dict.fromkeys(("hidden_layers", "net_arch", "hidden_size", "layer_N"), "hidden_sizes"),
    **dict.fromkeys(("activation_func", "activation_fn", "use_ReLU"), "activation"),
    "use_feature_normalization": "layer_norm",
    **dict.fromkeys(("use_recurrent_policy", "use_naive_recurrent_policy", "recurrent_N", "recurrent_n"), "recurrent"),
    "data_chunk_length": "sequence_length",
    **dict.fromkeys(("share_param", "share_policy"), "sharing"),
    "fixed_order": "order",
    **dict.fromkeys(("cuda", "cuda_device"), "device"),
    **dict.fromkeys(("torch_threads", "n_training_threads"), "threads"),
    "use_max_grad_norm": "max_grad_norm",
    "use_gae": "gae_lambda",
    "log_std_init": "initial_log_std",
    "norm_obs": "normalize_observations",
}

# {their name: where that is said instead}: of the environment, or of the call that trains.
SAID_ELSEWHERE = {
    **dict.fromkeys(
        ("n_rollout_threads", "num_envs", "n_rollouts"), "n_envs of the environment, as in wb.envs.mujoco(…, n_envs=16)"
    ),
    **dict.fromkeys(
        ("num_env_steps", "total_timesteps", "max_timesteps", "max_steps"),
        "env_steps of run(), as in run(env_steps=1_000_000)",
    ),
    **dict.fromkeys(("eval_interval", "eval_freq"), "evaluate_every of run()"),
    **dict.fromkeys(("eval_episodes", "n_eval_episodes"), "evaluate_episodes of run()"),
    **dict.fromkeys(("log_dir", "tensorboard_log"), "what wb.export_tensorboard writes"),
    **dict.fromkeys(("agent_conf", "agent_obsk", "scenario"), "an argument of wb.envs.mujoco"),
}

# Names that are known, and for which there is no setting: a setting of another meaning must not be suggested.
_NOT_HERE = """
std_x_coef std_y_coef value_loss_coef vf_coef value_coef batch_size mini_batch_size initialization_method gain opti_eps
adam_eps weight_decay use_proper_time_limits model_dir use_eval n_eval_rollout_threads use_render render_episodes
log_interval save_interval seed_specify cuda_deterministic use_policy_active_masks use_value_active_masks
action_aggregation use_orthogonal use_stacked_frames stacked_frames use_centralized_V use_obs_instead_of_state
algorithm_name experiment_name use_sde sde_sample_freq policy_kwargs verbose use_rms_prop target_kl state_type
use_single_network
"""
NOT_HERE = frozenset(_NOT_HERE.split())
