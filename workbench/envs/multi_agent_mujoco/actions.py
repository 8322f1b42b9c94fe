"""From the agents' actions to the robot's controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from workbench.envs.base import Actions


class Steering:
    """Puts the actions of all agents together in the order of the model's actuators.

    action_spaces  {agent: Box within the control ranges of its actuators, float32}
    """

    def __init__(self, model: mujoco.MjModel, shares: Mapping[str, tuple[int, ...]], n_envs: int) -> None:
        self._shapes = {agent: (n_envs, len(actuators)) for agent, actuators in shares.items()}
        order = np.concatenate([np.array(actuators) for actuators in shares.values()])
        # Column i of the robot's action is column columns[i] of the agents' actions side by side.
        self._columns = np.argsort(order)
        low, high = model.actuator_ctrlrange.astype(np.float32).T
        self.action_spaces = {
            agent: Box(low[list(actuators)], high[list(actuators)], dtype=np.float32)
            for agent, actuators in shares.items()
        }

    def __call__(self, actions: Actions) -> npt.NDArray[Any]:
        """(n_envs, n_actuators), float32 if all actions are, else float64. Raises ``ValueError`` as ``step`` says."""
        if len(actions) != len(self._shapes):
            self._refuse_names(actions)
        parts = []
        for agent, shape in self._shapes.items():
            if agent not in actions:
                self._refuse_names(actions)
            part = np.asarray(actions[agent])
            if part.shape != shape:
                raise ValueError(
                    f"action of {agent!r} has shape {part.shape}, expected {shape}: a row for each environment, "
                    "a column for each actuator. Nothing was stepped."
                )
            parts.append(part)
        joint_action = np.concatenate(parts, axis=1).take(self._columns, axis=1)
        if joint_action.dtype != np.float32:
            joint_action = self._doubles(joint_action)
        if not np.isfinite(joint_action).all():
            self._refuse_values(parts)
        return joint_action

    def _doubles(self, joint_action: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        if joint_action.dtype.kind not in "fiu":
            raise ValueError(f"actions of type {joint_action.dtype}, expected float32 or float64. Nothing was stepped.")
        return joint_action.astype(np.float64)

    def _refuse_names(self, actions: Actions) -> None:
        missing = [agent for agent in self._shapes if agent not in actions]
        unknown = [agent for agent in actions if agent not in self._shapes]
        raise ValueError(
            f"actions need exactly one entry for each of {', '.join(self._shapes)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(map(str, unknown)) or 'none'}. "
            "Nothing was stepped."
        )

    def _refuse_values(self, parts: list[npt.NDArray[Any]]) -> None:
        for agent, part in zip(self._shapes, parts, strict=True):
            bad = np.argwhere(~np.isfinite(part))
            if bad.size:
                env, column = bad[0]
                raise ValueError(
                    f"action of {agent!r} in environment {env} is {part[env, column]} (column {column}), expected a "
                    "finite number. Nothing was stepped; look at the policy that computed it."
                )
