"""Random games and policies of every shape that the theory is tested on."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from workbench.theory import deterministic_policies, random_game, random_policies


def draw_game(rng, agents=(2, 5), states=(1, 6), actions=(2, 4), discounts=(0.0, 0.3, 0.6, 0.9, 0.99)):
    """A random game; the ranges include both ends. Agents have different numbers of actions."""
    n_agents = int(rng.integers(agents[0], agents[1] + 1))
    return random_game(
        n_agents,
        n_states=int(rng.integers(states[0], states[1] + 1)),
        n_actions=[int(k) for k in rng.integers(actions[0], actions[1] + 1, n_agents)],
        discount=float(rng.choice(discounts)),
        seed=rng,
        concentration=float(rng.choice([0.1, 1.0, 10.0])),
    )


def draw_policies(game, rng):
    """Anything from nearly uniform to deterministic."""
    concentration = rng.choice([0.0, 0.05, 1.0, 20.0])
    if concentration == 0.0:
        return deterministic_policies(game, [rng.integers(0, k, game.n_states) for k in game.n_actions])
    return random_policies(game, rng, concentration)


@st.composite
def games_with_policies(draw, **ranges):
    """A game, two joint policies for it, and the generator they came from, for further draws."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    game = draw_game(rng, **ranges)
    return game, draw_policies(game, rng), draw_policies(game, rng), rng
