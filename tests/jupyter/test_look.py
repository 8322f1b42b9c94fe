"""The palette holds for colour-blind eyes and on both grounds; agents keep their colour; templates reach Plotly."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from workbench.errors import UnknownNameError
from workbench.jupyter import look

Vector = npt.NDArray[np.float64]

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
EYES = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
RGB_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LMS_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def linear(color: str) -> Vector:
    srgb = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def oklab_distance(a: str, b: str, eye: str) -> float:
    """100 × the distance in OKLab between two colours as an eye sees them."""

    def lab(color: str) -> Vector:
        seen = np.clip(EYES[eye] @ linear(color), 0, 1)
        return np.asarray(LMS_TO_OKLAB @ np.cbrt(RGB_TO_LMS @ seen))

    return float(100 * np.linalg.norm(lab(a) - lab(b)))


def contrast(color: str, ground: str) -> float:
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (color, ground))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("eye", EYES)
def test_any_two_agents_differ_to_every_eye(eye: str) -> None:
    for n, least in [(4, 10.0), (10, 8.5), (len(look.PALETTE), 5.5)]:
        worst = min(oklab_distance(a, b, eye) for a, b in itertools.combinations(look.PALETTE[:n], 2))
        assert worst >= least, f"{n} agents"


def test_the_palette_is_stated_in_the_docs(root: Path) -> None:
    page = (root / "docs" / "live_panel.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"`(#[0-9A-F]{6})`", page)) == look.PALETTE


@pytest.mark.parametrize("ground", ["#ffffff", "#111111"])
def test_every_agent_stands_out_from_both_grounds(ground: str) -> None:
    assert min(contrast(color, ground) for color in look.PALETTE) > 2.1


@pytest.mark.parametrize("ground", ["#ffffff", "#111111"])
def test_neutral_text_reads_on_both_grounds(ground: str) -> None:
    assert contrast(look.INKS["neutral"].text, ground) > 4.1


def test_colour_belongs_to_the_agent_whatever_the_order() -> None:
    agents = tuple(f"agent_{i}" for i in range(17))
    assert len({look.agent_color(agents, agent) for agent in agents}) == 17
    assert look.agent_color(agents, 3) == look.agent_color(agents, "agent_3") == look.PALETTE[3]


def test_more_agents_than_colours_still_look_different() -> None:
    agents = tuple(f"agent_{i}" for i in range(60))
    assert len({look.agent_style(agents, agent) for agent in agents}) == 60


@pytest.mark.parametrize("agent", ["agent_9", 9, -1])
def test_unknown_agent_is_refused(agent: str | int) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown agent {agent!r}"):
        look.agent_color(("agent_0", "agent_1"), agent)


def test_templates_reach_plotly_and_leave_its_default_alone() -> None:
    import plotly.graph_objects as go
    import plotly.io

    default = plotly.io.templates.default
    look.register_templates()
    for theme, name in look.TEMPLATE_NAMES.items():
        figure = go.Figure(layout={"template": name})
        assert figure.layout.template.layout.font.color == look.INKS[theme].text
    assert plotly.io.templates.default == default


def test_unknown_theme_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'dark'"):
        look.template("drak")  # type: ignore[arg-type]


def test_palette_is_there_without_plotly_or_matplotlib() -> None:
    code = (
        "import sys, workbench.jupyter.look, workbench.jupyter.figures.record;"
        "print([m for m in ('plotly', 'matplotlib', 'ipywidgets', 'anywidget') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("eye", EYES)
def test_no_run_is_taken_for_an_agent_or_another_run(eye: str) -> None:
    assert min(oklab_distance(a, b, eye) for a, b in itertools.combinations(look.RUN_PALETTE, 2)) > 10
    assert min(oklab_distance(a, b, eye) for a in look.RUN_PALETTE for b in look.PALETTE[:6]) > 7
    assert not {*look.RUN_PALETTE} & {*look.PALETTE}
    assert min(contrast(color, ground) for color in look.RUN_PALETTE for ground in ("#ffffff", "#111111")) > 2.9
