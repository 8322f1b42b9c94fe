"""How a game shows itself in a notebook: one table of facts, and the payoffs where they are few. Follows the theme."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from workbench.theory.validation import FloatArray

if TYPE_CHECKING:
    from workbench.theory.games import TabularGame

_MOST_PAYOFF_STATES, _MOST_PAYOFF_ACTIONS = 4, 6
_LINE = "1px solid var(--jp-border-color1, rgba(128, 128, 128, 0.4))"
_TABLE = '<table style="border-collapse: collapse; margin: 0; white-space: nowrap">'
_CAPTION = 'style="text-align: left; font-weight: 600; padding-bottom: 4px; color: inherit"'
_FAINT = "color: var(--jp-ui-font-color2, inherit); opacity: 0.85"


def game_to_html(game: TabularGame) -> str:
    """An HTML summary of a game: its sizes, and for two agents with few states and actions the payoffs themselves."""
    small = game.n_states <= _MOST_PAYOFF_STATES and max(game.n_actions) <= _MOST_PAYOFF_ACTIONS
    payoffs = "".join(_payoffs(game, state) for state in range(game.n_states)) if small and game.n_agents == 2 else ""
    return (
        '<div style="display: flex; flex-wrap: wrap; gap: 1.5em; align-items: flex-start; '
        'color: var(--jp-content-font-color1, inherit); font-size: var(--jp-code-font-size, 13px)">'
        f"{_facts(game)}{payoffs}</div>"
    )


def _facts(game: TabularGame) -> str:
    absorbing = int(game.absorbing.sum())
    facts = {
        "agents": str(game.n_agents),
        "states": f"{game.n_states}" + (f" ({absorbing} absorbing)" if absorbing else ""),
        "actions": " × ".join(map(str, game.n_actions)),
        "joint entries": f"{game.reward.size:,}",
        "reward": f"{_number(game.reward.min())} to {_number(game.reward.max())}",
        "discount γ": f"{game.discount:g}",
    }
    rows = "".join(
        f'<tr><td style="text-align: left; {_FAINT}; padding: 1px 1.2em 1px 0">{name}</td>'
        f'<td style="text-align: left; padding: 1px 0">{value}</td></tr>'
        for name, value in facts.items()
    )
    return f"{_TABLE}<caption {_CAPTION}>{escape(game.name or 'game')}</caption><tbody>{rows}</tbody></table>"


def _payoffs(game: TabularGame, state: int) -> str:
    """r(s, a⁰, a¹) as a table, agent 0's actions down and agent 1's across, better payoffs in stronger colour."""
    reward = game.reward[state]
    shade = _shades(game.reward)[state]
    header = "".join(
        f'<th style="{_FAINT}; font-weight: 400; padding: 2px 10px">a¹ = {j}</th>' for j in range(reward.shape[1])
    )
    rows = "".join(
        f'<tr><th style="{_FAINT}; font-weight: 400; padding: 2px 10px 2px 0">a⁰ = {i}</th>'
        + "".join(
            f'<td style="border: {_LINE}; text-align: center; padding: 3px 12px; '
            f'background: rgba(0, 114, 178, {shade[i, j]:.2f})">{_number(value)}</td>'
            for j, value in enumerate(row)
        )
        + "</tr>"
        for i, row in enumerate(reward)
    )
    caption = f"r(a⁰, a¹) in state {state}" if game.n_states > 1 else "r(a⁰, a¹)"
    return (
        f"{_TABLE}<caption {_CAPTION}>{caption}</caption>"
        f"<thead><tr><th></th>{header}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _shades(reward: FloatArray) -> FloatArray:
    """Opacity of the payoffs' colour, faint enough that text stays readable on either theme."""
    spread = np.ptp(reward)
    return 0.4 * (reward - reward.min()) / spread if spread > 0.0 else np.zeros_like(reward)


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
