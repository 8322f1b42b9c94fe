"""From the agents' actions to the robot's controls."""

from __future__ import annotations

import math
from collections.abc import Mapping

import mujoco
import numpy as np
from gymnasium.spaces import Box

from workbench.envs.arguments import checked_actions
from workbench.envs.base import Actions, Array


class ActuatorControls:
    """Puts the actions of all agents together in the order of the model's actuators.

    action_spaces  {agent: Box within the control ranges of its actuators, float32}
    """

    def __init__(self, model: mujoco.MjModel, shares: Mapping[str, tuple[int, ...]], n_envs: int) -> None:
        self._n_envs = n_envs
        self._shapes = {agent: (n_envs, len(actuators)) for agent, actuators in shares.items()}
        order = np.concatenate([np.array(actuators) for actuators in shares.values()])
        # Column i of the robot's action is column columns[i] of the agents' actions side by side.
        self._columns = None if (np.diff(order) > 0).all() else np.argsort(order)
        low, high = model.actuator_ctrlrange.astype(np.float32).T
        self.action_spaces = {
            agent: Box(low[list(actuators)], high[list(actuators)], dtype=np.float32)
            for agent, actuators in shares.items()
        }

    def __call__(self, actions: Actions) -> Array:
        """(n_envs, n_actuators), float32 if all actions are, else float64; ``ValueError`` as ``TeamEnv.step`` says."""
        joint_action = self._side_by_side(actions)
        # The sum shows whether all are finite, but may itself overflow.
        if joint_action is None or not math.isfinite(np.add.reduce(joint_action, axis=None)):
            # The quick checks of all agents at once have failed: look closer, and say what is wrong with whom.
            parts = checked_actions(actions, self.action_spaces, self._n_envs)
            joint_action = np.concatenate(list(parts.values()), axis=1)
        if self._columns is not None:
            joint_action = joint_action.take(self._columns, axis=1)
        return joint_action if joint_action.dtype == np.float32 else joint_action.astype(np.float64, copy=False)

    def _side_by_side(self, actions: Actions) -> Array | None:
        """The agents' actions side by side, or None where they do not fit."""
        if not isinstance(actions, Mapping) or actions.keys() != self._shapes.keys():
            return None
        parts = [np.asarray(actions[agent]) for agent in self._shapes]
        if any(part.shape != shape for part, shape in zip(parts, self._shapes.values(), strict=True)):
            return None
        joint_action = np.concatenate(parts, axis=1)
        return joint_action if joint_action.dtype.kind == "f" else None
