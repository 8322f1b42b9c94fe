"""What the method claims, computed exactly on games small enough to be written out in full (NumPy, float64)."""

from workbench.theory.equilibrium import Optimum, best_joint_policy, best_response, nash_gap
from workbench.theory.evaluation import (
    Evaluation,
    evaluate,
    joint_policy,
    multi_agent_action_value,
    multi_agent_advantage,
)
from workbench.theory.games import TabularGame
from workbench.theory.generators import matrix_game, meeting_game, random_game, sharing_game, simultaneous_game
from workbench.theory.monotonic import Trace, algorithm1, penalty_coefficient, simultaneous_update
from workbench.theory.policies import (
    PolicyHistory,
    check_policies,
    deterministic_policies,
    raise_to_floor,
    random_policies,
    uniform_policies,
)
from workbench.theory.sharing import best_shared_policy
from workbench.theory.surrogates import happo_surrogate, hatrpo_surrogate, m_factor

__all__ = [
    "Evaluation",
    "Optimum",
    "PolicyHistory",
    "TabularGame",
    "Trace",
    "algorithm1",
    "best_joint_policy",
    "best_response",
    "best_shared_policy",
    "check_policies",
    "deterministic_policies",
    "evaluate",
    "happo_surrogate",
    "hatrpo_surrogate",
    "joint_policy",
    "m_factor",
    "matrix_game",
    "meeting_game",
    "multi_agent_action_value",
    "multi_agent_advantage",
    "nash_gap",
    "penalty_coefficient",
    "raise_to_floor",
    "random_game",
    "random_policies",
    "sharing_game",
    "simultaneous_game",
    "simultaneous_update",
    "uniform_policies",
]
