"""A team of points on a line: the smallest environment that has all that trips up a trainer.

Agents push their own point; the reward is shared; an episode terminates when a point leaves the field and is truncated
after some steps, so that both endings occur within a few steps.
"""

from __future__ import annotations

import gymnasium
import numpy as np

from workbench.envs.base import Final, TeamEnv, TimeStep


class PointTeam(TeamEnv):
    def __init__(self, n_envs=4, n_agents=3, limit=7, poison_at=None, poison="reward"):
        self.n_envs, self.limit = n_envs, limit
        self.agents = tuple(f"agent_{i}" for i in range(n_agents))
        box = gymnasium.spaces.Box(-np.inf, np.inf, (n_agents + 1,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, box)
        self.action_spaces = dict.fromkeys(self.agents, gymnasium.spaces.Box(-1, 1, (2,), np.float32))
        self.state_space = gymnasium.spaces.Box(-np.inf, np.inf, (n_agents,), np.float32)
        self.poison_at, self.poison, self.calls = poison_at, poison, 0
        self._rng = np.random.Generator(np.random.PCG64(0))
        self._x = np.zeros((n_envs, n_agents))
        self._t = np.zeros(n_envs, np.int64)

    def _observations(self, x):
        return {a: np.column_stack([x, np.full(len(x), i)]).astype(np.float32) for i, a in enumerate(self.agents)}

    def _show(self, reward, terminated, truncated, final=None):
        observations, state = self._observations(self._x), self._x.astype(np.float32)
        if self.poison_at is not None and self.calls == self.poison_at:
            if self.poison == "reward":
                reward = reward.copy()
                reward[1] = np.nan
            elif self.poison == "raise":
                raise RuntimeError("the simulator crashed")
            else:
                observations[self.agents[1]][2, 0] = np.inf
        return TimeStep(observations, state, reward, terminated, truncated, final)

    def reset(self, seed=None):
        if seed is not None:
            self._rng = np.random.Generator(np.random.PCG64(seed))
        self._x = self._rng.normal(size=self._x.shape)
        self._t[:] = np.arange(self.n_envs) % self.limit  # staggered, so that endings do not coincide
        none = np.zeros(self.n_envs, bool)
        return self._show(np.zeros(self.n_envs), none, none)

    def step(self, actions):
        self.calls += 1
        push = np.stack([actions[a] for a in self.agents], 1)
        self._x = self._x + 0.5 * push[..., 0] + 0.1 * self._rng.normal(size=self._x.shape)
        self._t += 1
        reward = -np.abs(self._x).mean(1) - 0.01 * np.square(push).sum((1, 2))
        terminated = (np.abs(self._x) > 1.8).any(1)
        truncated = (self._t >= self.limit) & ~terminated
        ended = np.flatnonzero(terminated | truncated)
        final = None
        if len(ended):
            x = self._x[ended]
            final = Final(ended, self._observations(x), x.astype(np.float32))
            self._x[ended] = self._rng.normal(size=x.shape)
            self._t[ended] = 0
        return self._show(reward, terminated, truncated, final)

    def snapshot(self):
        state = self._rng.bit_generator.state["state"]
        words = [(state[k] >> s) & (2**64 - 1) for k in ("state", "inc") for s in (0, 64)]
        return {"x": self._x.copy(), "t": self._t.copy(), "rng": np.array(words, np.uint64)}

    def restore(self, snapshot):
        self._x, self._t = snapshot["x"].copy(), snapshot["t"].copy()
        low, high, inc_low, inc_high = (int(word) for word in snapshot["rng"])
        whole = self._rng.bit_generator.state
        whole["state"] = {"state": low | high << 64, "inc": inc_low | inc_high << 64}
        self._rng.bit_generator.state = whole

    def remake(self, n_envs):
        return PointTeam(n_envs, len(self.agents), self.limit)


class ForgetfulTeam(PointTeam):
    """The same without a snapshot."""

    snapshot = TeamEnv.snapshot
    restore = TeamEnv.restore
