"""How everything looks: one colour per agent, and the Plotly templates.

The first six colours are Okabe and Ito's (Color Universal Design, 2008), their green a little darker and their purple
a little lighter, so that the two differ in lightness too. The others were each taken as far as possible, in OKLab, from
those before them as seen with normal, protanopic and deuteranopic eyes (Machado, Oliveira and Fernandes, 2009), among
the colours that stand out from white and from near-black alike. Beyond six agents colour alone is not enough for every
eye, so each further six get another dash, and neighbours get different marker symbols.

Three templates: ``workbench`` for a white ground, ``workbench_dark`` for a dark one, and ``workbench_neutral``, whose
greys read on both, for stored figures, which cannot know where they will be shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workbench.errors import unknown_name

Theme = Literal["light", "dark", "neutral"]
Spec = dict[str, Any]  # a part of a Plotly figure in plain form

PALETTE = (
    "#0072B2",  # blue
    "#E69F00",  # orange
    "#008F68",  # green
    "#D583B0",  # pink
    "#D55E00",  # vermilion
    "#56B4E9",  # sky
    "#7800FF",  # violet
    "#874B78",  # plum
    "#78C378",  # light green
    "#8778FF",  # lavender
    "#785A1E",  # brown
    "#D200B4",  # magenta
    "#F03C78",  # rose
    "#D2003C",  # crimson
    "#B4965A",  # sand
    "#967896",  # mauve
    "#F01EF0",  # fuchsia
)
# Of runs and groups of runs, found in the same way, away from the first six agents.
RUN_PALETTE = (
    "#616161",  # grey
    "#873CFF",  # violet
    "#D2000F",  # red
    "#A578D2",  # lilac
)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down")

FONT_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
FONT_SIZE, TITLE_SIZE, TICK_SIZE = 12, 14, 11
LINE_WIDTH = 1.8
WIDTH, HEIGHT, PANEL_HEIGHT = 860, 360, 220  # pixels: a stored figure; the axes of a panel in it

TEMPLATE_NAMES: dict[Theme, str] = {"light": "workbench", "dark": "workbench_dark", "neutral": "workbench_neutral"}


@dataclass(frozen=True, slots=True)
class AgentStyle:
    """What marks one agent in every figure: ``color`` (hex), ``dash`` of its lines, ``symbol`` of its markers."""

    color: str
    dash: str
    symbol: str


@dataclass(frozen=True, slots=True)
class Ink:
    """The colours of a theme beside the agents': ``text``, quieter ``muted``, ``grid``, ``axis`` lines, ``ground``."""

    text: str
    muted: str
    grid: str
    axis: str
    ground: str


# The neutral grey has 4.5:1 against white and 4.2:1 against the #111 of dark notebooks.
INKS: dict[Theme, Ink] = {
    "light": Ink("#2b2f36", "#5b6470", "rgba(43,47,54,0.12)", "rgba(43,47,54,0.45)", "#ffffff"),
    "dark": Ink("#e4e6ea", "#a6adb8", "rgba(228,230,234,0.16)", "rgba(228,230,234,0.5)", "#111111"),
    "neutral": Ink("#767676", "#767676", "rgba(128,128,128,0.25)", "rgba(128,128,128,0.7)", "rgba(0,0,0,0)"),
}


def agent_index(agents: Sequence[str], agent: str | int) -> int:
    """The place of ``agent``, a name or an integer, in ``agents``; agents that share a policy ("a+b") go by the first.

    Raises ``UnknownNameError`` for any other.
    """
    if isinstance(agent, int) and 0 <= agent < len(agents):
        return agent
    for name in (agent, str(agent).partition("+")[0]):
        if name in agents:
            return list(agents).index(str(name))
    raise unknown_name("agent", agent, agents)


def agent_style(agents: Sequence[str], agent: str | int) -> AgentStyle:
    """Colour, dash and symbol of an agent, by its place in ``env.agents``: the same in every figure and every run.

    >>> agent_style(("hip", "knee"), "knee")
    AgentStyle(color='#E69F00', dash='solid', symbol='square')
    """
    i = agent_index(agents, agent)
    return AgentStyle(PALETTE[i % len(PALETTE)], DASHES[i // 6 % len(DASHES)], SYMBOLS[i % len(SYMBOLS)])


def agent_color(agents: Sequence[str], agent: str | int) -> str:
    """The colour of an agent (hex), by its place in ``env.agents``.

    >>> agent_color(("hip", "knee"), "hip")
    '#0072B2'
    """
    return agent_style(agents, agent).color


def run_style(i: int) -> AgentStyle:
    """What marks the i-th run (trainer, fork), or group of runs such as a method, in colours that no first agent has.

    >>> run_style(0).color, run_style(len(RUN_PALETTE)).dash
    ('#616161', 'dash')
    """
    n = len(RUN_PALETTE)
    return AgentStyle(RUN_PALETTE[i % n], DASHES[i // n % len(DASHES)], SYMBOLS[i % len(SYMBOLS)])


def faded(color: str, opacity: float) -> str:
    """A hex colour with an opacity, as CSS writes it.

    >>> faded("#0072B2", 0.25)
    'rgba(0,114,178,0.25)'
    """
    red, green, blue = (int(color[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def template(theme: Theme = "neutral") -> Spec:
    """The Plotly template of a theme, as plain data: ``figure.update_layout(template=look.template("dark"))``."""
    if theme not in INKS:
        raise unknown_name("theme", theme, INKS)
    ink = INKS[theme]
    axis = {
        "automargin": True,
        "showgrid": True,
        "gridcolor": ink.grid,
        "gridwidth": 1,
        "zeroline": False,
        "showline": True,
        "linecolor": ink.axis,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": ink.axis,
        "tickfont": {"size": TICK_SIZE, "color": ink.text},
        "title": {"font": {"size": FONT_SIZE, "color": ink.text}, "standoff": 8},
    }
    layout = {
        "font": {"family": FONT_FAMILY, "size": FONT_SIZE, "color": ink.text},
        "title": {"font": {"size": TITLE_SIZE, "color": ink.text}, "x": 0.01, "xanchor": "left"},
        "colorway": list(PALETTE),
        "paper_bgcolor": ink.ground,
        "plot_bgcolor": ink.ground,
        "margin": {"l": 64, "r": 16, "t": 40, "b": 52},
        "xaxis": {**axis, "minexponent": 3},
        # Small losses and divergences stay plain decimals (0.0004), not SI units (400μ).
        "yaxis": {**axis, "minexponent": 5},
        "legend": {"font": {"size": TICK_SIZE, "color": ink.text}, "bgcolor": "rgba(0,0,0,0)", "traceorder": "normal"},
        "annotationdefaults": {"font": {"size": FONT_SIZE, "color": ink.text}, "showarrow": False},
        "shapedefaults": {"line": {"color": ink.muted, "width": 1.2}},
        "hoverlabel": {"font": {"family": FONT_FAMILY, "size": FONT_SIZE}},
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": ink.muted, "activecolor": ink.text},
        "bargap": 0.25,
    }
    data = {"scatter": [{"type": "scatter", "line": {"width": LINE_WIDTH}}]}
    return {"data": data, "layout": layout}


def register_templates() -> None:
    """Make the three templates known to Plotly by name; Plotly's own default stays as it is."""
    import plotly.io

    for theme, name in TEMPLATE_NAMES.items():
        if name not in plotly.io.templates:
            plotly.io.templates[name] = template(theme)
