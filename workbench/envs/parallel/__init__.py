"""Any PettingZoo parallel environment as a team's: in this process, or its copies shared out among workers."""

from workbench.envs.parallel.pettingzoo_env import PettingZooTeamEnv
from workbench.envs.parallel.spaces import IncompatibleEnvironmentError

__all__ = ["IncompatibleEnvironmentError", "PettingZooTeamEnv"]
