"""Small runs to be replayed: points that draw themselves, a game, a hopper."""

from __future__ import annotations

import numpy as np
from point_team import PointTeam

import workbench as wb

SMALL = {"n_steps": 12, "hidden_sizes": (8,)}


class SeenTeam(PointTeam):
    """Points that draw themselves, a column each, and whose copies can be told apart in a snapshot."""

    generator_rows = ("rng",)

    def __init__(self, n_envs=4, n_agents=3, limit=7):
        super().__init__(n_envs, n_agents, limit)
        self._rngs = [np.random.Generator(np.random.PCG64(i)) for i in range(n_envs)]
        self._seen = self._x.copy()

    def reset(self, seed=None):
        if seed is not None:
            self._rngs = [np.random.Generator(np.random.PCG64(seed + i)) for i in range(self.n_envs)]
        self._x = np.stack([rng.normal(size=self._x.shape[1]) for rng in self._rngs])
        self._t[:] = 0
        self._seen = self._x.copy()
        none = np.zeros(self.n_envs, bool)
        return self._show(np.zeros(self.n_envs), none, none)

    def step(self, actions):
        noise = np.stack([rng.normal(size=self._x.shape[1]) for rng in self._rngs])
        push = np.stack([actions[a] for a in self.agents], 1)
        self._x = self._x + 0.5 * push[..., 0] + 0.1 * noise
        self._t = self._t + 1
        self._seen = self._x.copy()
        reward = -np.abs(self._x).mean(1)
        terminated = (np.abs(self._x) > 3).any(1)
        truncated = (self._t >= self.limit) & ~terminated
        ended = np.flatnonzero(terminated | truncated)
        final = None
        if len(ended):
            x = self._x[ended]
            final = wb.envs.Final(ended, self._observations(x), x.astype(np.float32))
            self._x[ended] = [self._rngs[i].normal(size=self._x.shape[1]) for i in ended]
            self._t[ended] = 0
        return self._show(reward, terminated, truncated, final)

    def render_state(self):
        picture = np.zeros((self.n_envs, 8, len(self.agents), 3), np.uint8)
        picture[:, 0, :, 0] = np.clip(128 + 40 * self._seen, 0, 255)
        return picture

    def snapshot(self):
        states = [rng.bit_generator.state["state"] for rng in self._rngs]
        words = [[(s[k] >> b) & (2**64 - 1) for k in ("state", "inc") for b in (0, 64)] for s in states]
        return {"x": self._x.copy(), "t": self._t.copy(), "rng": np.array(words, np.uint64)}

    def restore(self, snapshot):
        self._x, self._t = np.array(snapshot["x"]), np.array(snapshot["t"])
        self._seen = self._x.copy()
        for rng, (low, high, inc_low, inc_high) in zip(self._rngs, snapshot["rng"].tolist(), strict=True):
            state = {"state": low | high << 64, "inc": inc_low | inc_high << 64}
            rng.bit_generator.state = {**rng.bit_generator.state, "state": state}

    def select(self, snapshot, envs):
        return {name: rows[list(envs)] for name, rows in snapshot.items()}

    def remake(self, n_envs):
        return SeenTeam(n_envs, len(self.agents), self.limit)


def game_trainer(**settings):
    rng = np.random.default_rng(0)
    shape = (4, 2, 2)
    game = wb.theory.TabularGame(rng.uniform(size=shape), rng.dirichlet(np.ones(4), size=shape), np.ones(4) / 4, 0.8)
    return wb.happo(wb.envs.tabular(game, n_envs=3), seed=0, **SMALL, **settings)


def hoppers(**settings):
    return wb.happo(wb.envs.mujoco("Hopper", "3x1", n_envs=3, **settings), seed=0, **SMALL)


def idle(env):
    return {agent: np.zeros((1, *space.shape), np.float32) for agent, space in env.action_spaces.items()}
