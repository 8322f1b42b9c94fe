"""Multi-Agent MuJoCo: Gymnasium's robots, to the last bit, in batches, their joints shared out among agents."""

from workbench.envs.multi_agent_mujoco.mujoco_env import MujocoTeamEnv

__all__ = ["MujocoTeamEnv"]
