"""What is wrong with how a panel lies on the page: text that is cut or covered, controls that overlap, missing names.

``faults`` looks at what the browser drew, box by box; rotated text counts by its turned box.
"""

from __future__ import annotations

from typing import Any

from panel_page import Panel
from playwright.sync_api import Locator

LOOK = """
(panel) => {
  const faults = [];
  const frame = panel.getBoundingClientRect();
  const shown = (node) => node.getClientRects().length > 0 && getComputedStyle(node).visibility !== "hidden";
  const name = (node) => (node.textContent.trim() || node.getAttribute("aria-label") || node.type || node.className);

  // A box as four corners, made a little smaller, so that what only touches does not overlap.
  const square = ({left, top, right, bottom}, by = 1) =>
    [[left + by, top + by], [right - by, top + by], [right - by, bottom - by], [left + by, bottom - by]];
  const turned = (text) => {
    const box = text.getBBox(), matrix = text.getScreenCTM();
    return square({left: box.x, top: box.y, right: box.x + box.width, bottom: box.y + box.height}).map(([x, y]) => {
      const point = new DOMPoint(x, y).matrixTransform(matrix);
      return [point.x, point.y];
    });
  };
  // Two convex shapes are apart where some edge of either has all of one on one side and all of the other beyond it.
  const spread = (shape, [nx, ny]) => {
    const along = shape.map(([x, y]) => x * nx + y * ny);
    return [Math.min(...along), Math.max(...along)];
  };
  const apart = (a, b) => [a, b].some((shape) => shape.some(([x0, y0], i) => {
    const [x1, y1] = shape[(i + 1) % shape.length];
    const normal = [y1 - y0, x0 - x1];
    const [low, high] = spread(a, normal), [least, most] = spread(b, normal);
    return high <= least || most <= low;
  }));
  const overlaps = (things, what) => {
    for (let i = 0; i < things.length; i++) {
      for (let j = 0; j < i; j++) {
        const [a, b] = [things[i], things[j]];
        if (!apart(a.shape, b.shape)) faults.push(`${what} "${b.name}" and "${a.name}" overlap`);
      }
    }
  };

  const kinds = ".wb-chip, button, select, input, label, .wb-label, .wb-where > *, .wb-message, .wb-note, summary";
  const controls = [...panel.querySelectorAll(kinds)].filter((node) => shown(node) && !node.closest(".js-plotly-plot"));
  const figure = panel.querySelector(".js-plotly-plot");
  for (const node of controls) {
    const box = node.getBoundingClientRect();
    if (box.left < frame.left - 1 || box.right > frame.right + 1) faults.push(`"${name(node)}" leaves the panel`);
    if (node.localName !== "select" && node.scrollWidth > node.clientWidth + 1 && node.clientWidth)
      faults.push(`"${name(node)}" is cut`);
  }
  const boxes = controls.map((node) => ({name: name(node), shape: square(node.getBoundingClientRect())}));
  overlaps([...boxes, {name: "figure", shape: square(figure.getBoundingClientRect())}], "controls");

  const sheet = figure.querySelector(".main-svg").getBoundingClientRect();
  if (sheet.right > frame.right + 1) faults.push("the figure is wider than the panel");
  const drawn = [...figure.querySelectorAll(".main-svg text")].filter((text) => text.textContent.trim() && shown(text));
  const texts = drawn.map((text) => ({name: text.textContent, shape: turned(text), node: text}));
  for (const {name, shape} of texts) {
    const [left, right] = spread(shape, [1, 0]), [top, bottom] = spread(shape, [0, 1]);
    if (left < sheet.left || right > sheet.right || top < sheet.top || bottom > sheet.bottom)
      faults.push(`"${name}" is cut at the edge of the figure`);
  }
  overlaps(texts, "texts");

  // Notes inside a panel stand where no curve, bar or violin is.
  const notes = texts.filter(({node}) => node.closest(".annotation"));
  for (const path of figure.querySelectorAll(".plot .trace path")) {
    if (!shown(path) || path.getAttribute("d") === null) continue;
    const matrix = path.getScreenCTM(), length = path.getTotalLength();
    for (let at = 0; at <= length; at += 3) {
      const point = path.getPointAtLength(at).matrixTransform(matrix);
      const dot = square({left: point.x, top: point.y, right: point.x, bottom: point.y}, -0.5);
      const under = notes.find(({shape}) => !apart(shape, dot));
      if (under) { faults.push(`"${under.name}" covers what is drawn`); break; }
    }
  }

  const words = (text) => text.replace(/<br>/g, "").replace(/<[^>]+>/g, "");
  const layout = figure.layout;
  const axes = Object.keys(layout).filter((key) => /^[xy]axis/.test(key)).map((key) => layout[key]);
  const wanted = axes.flatMap((axis) => [axis.title?.text, ...(axis.ticktext ?? [])]);
  wanted.push(...(layout.annotations ?? []).map((note) => note.text));
  const there = new Set(drawn.map((text) => text.textContent));
  for (const text of wanted) if (text && !there.has(words(text))) faults.push(`"${words(text)}" is not drawn`);

  const all = (selector) => [...panel.querySelectorAll(selector)].filter(shown).map((node) => node.textContent);
  return {faults, chips: all(".wb-chip .wb-name"), legend: all(".wb-legend button"), height: frame.height};
}
"""


def look(panel: Locator) -> dict[str, Any]:
    """The ``faults`` of a panel, the names on its ``chips`` and in its ``legend``, its ``height`` in pixels."""
    return dict(panel.evaluate(LOOK))


def faults(panel: Locator, agents: list[str]) -> list[str]:
    """All that is wrong, agents that are nowhere named included."""
    seen = look(panel)
    missing = [
        f"{agent} is missing from the {part}"
        for part in ("chips", "legend")
        for agent in agents
        if agent not in seen[part]
    ]
    return [*seen["faults"], *missing]


def await_arranged(panel: Panel, box: Locator, session: str = "session") -> None:
    """Wait until the figure in ``box`` is drawn as the kernel arranged it for its width."""
    plot = box.locator(".wb-plot")
    for _ in range(200):
        width = plot.evaluate("node => Math.round(node.clientWidth)")
        widths, sent, drawn, idle = panel.ask(
            f"[[list(p.widths), p.sent, p.drawn, f._thread is None] for p, f in "
            f"[({session}._panel.plot, {session}._panel.plot.frames)]][0]"
        )
        frame = plot.locator(".wb-figure").get_attribute("data-frame")
        if any(abs(one - width) < 4 for one in widths) and idle and sent == drawn == int(frame or 0):
            return
        panel.page.wait_for_timeout(50)
    raise AssertionError(f"the figure did not settle: {width} of {widths}, frame {frame} of {sent}")
