// A Plotly figure that follows a run. The newest frame is drawn, those that it overtook are not; nothing is drawn, and
// nothing is asked for, while the figure cannot be seen.

const loadPlotly = (model) => (globalThis.Plotly?.react ? Promise.resolve(globalThis.Plotly) : loadScript(model, "plotly"));

// The arrangement made for the width that is nearest to this one.
function nearest(layouts, width) {
  const widths = Object.keys(layouts).map(Number);
  return layouts[widths.reduce((best, one) => (Math.abs(one - width) < Math.abs(best - width) ? one : best))];
}

const axesOf = (layout) => Object.keys(layout).filter((key) => /^[xy]axis/.test(key)).join();
const groupOf = (trace) => trace.legendgroup ?? trace.name;

const DASHES = { solid: "", dash: "6 4", dot: "2 3", dashdot: "6 3 2 3", longdash: "10 4" };

function swatch(trace) {
  const color = trace.line?.color ?? trace.marker?.color ?? "currentColor";
  const dash = DASHES[trace.line?.dash ?? "solid"] ?? "";
  const line = `<line x1="0" y1="6" x2="24" y2="6" stroke="${color}" stroke-width="2.200" stroke-dasharray="${dash}"/>`;
  const diamond = `<path d="M12 1l5 5-5 5-5-5z" fill="${color}"/>`;
  const shape = trace.mode === "markers" ? diamond : line;
  return `<svg viewBox="0 0 24 12" width="24" height="12" aria-hidden="true">${shape}</svg>`;
}

// Plotly's own legend cannot be reached by keyboard; this one is a row of buttons that switch things on and off.
function makeLegend(changed) {
  const node = part("wb-legend");
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", "Legend: each entry shows or hides its lines");
  const hidden = new Set();
  let shown = "";

  function button(trace, all) {
    const group = groupOf(trace);
    const entry = part("", "button");
    entry.dataset.group = group;
    entry.title = "Click: show or hide. Double-click, or Shift with Enter: only this one, or all.";
    entry.innerHTML = swatch(trace);
    entry.append(trace.name);
    entry.addEventListener("click", () => {
      if (!hidden.delete(group)) hidden.add(group);
      press();
    });
    const only = () => {
      const alone = !hidden.has(group) && all.every((one) => one === group || hidden.has(one));
      hidden.clear();
      if (!alone) for (const one of all) if (one !== group) hidden.add(one);
      press();
    };
    entry.addEventListener("dblclick", only);
    entry.addEventListener("keydown", (event) => {
      if (!event.shiftKey || event.key !== "Enter") return;
      event.preventDefault();
      only();
    });
    return entry;
  }

  function press() {
    for (const entry of node.children) entry.setAttribute("aria-pressed", !hidden.has(entry.dataset.group));
    changed();
  }

  function show(traces) {
    const entries = traces.filter((trace) => trace.name && trace.showlegend !== false);
    const looks = JSON.stringify(entries.map((trace) => [trace.name, trace.mode, trace.line?.color, trace.line?.dash]));
    if (looks === shown) return;
    shown = looks;
    const all = entries.map(groupOf);
    const focused = node.contains(document.activeElement) ? document.activeElement.dataset.group : null;
    node.replaceChildren(...entries.map((trace) => button(trace, all)));
    for (const entry of node.children) {
      entry.setAttribute("aria-pressed", !hidden.has(entry.dataset.group));
      if (entry.dataset.group === focused) entry.focus();
    }
  }

  return { node, show, hides: (trace) => hidden.has(groupOf(trace)) };
}

function render({ model, el }) {
  setUp(el, "wb-plot");
  const figure = part("wb-figure");
  figure.setAttribute("role", "figure"); // an image could hold no buttons, and Plotly's own are in it
  const legend = makeLegend(() => renew());
  const note = part("wb-note");
  note.setAttribute("role", "status");
  const trace = makeTraceback();
  el.append(figure, legend.node, note, trace.node);

  const view = Math.random().toString(36).slice(2);
  let width = 0;
  let onScreen = false;
  let drawing = false;
  let stale = true;
  let closed = false;
  let dark = isDark();
  let axes = "";

  const visible = () => onScreen && document.visibilityState === "visible" && width > 0;
  const say = (text, kind = "") => {
    note.dataset.kind = kind;
    note.textContent = text;
  };

  async function draw() {
    if (drawing || closed || !stale || !visible()) return;
    drawing = true;
    try {
      const plotly = await loadPlotly(model);
      while (stale && !closed && visible()) {
        await painted(); // chips and messages that came with this frame are seen before the figure takes its time
        if (closed) return;
        const start = performance.now();
        stale = false;
        const spec = model.get("spec");
        if (!spec.frame) return; // the first is still under way
        const traces = unpack(spec.data, bytes(model.get("block")));
        const layout = { ...unpack(nearest(spec.layouts, width), bytes(model.get("block"))), width };
        layout.template = model.get("templates")[dark ? "dark" : "light"];
        layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
        layout.uirevision = "kept"; // a zoom outlives the next frame
        const drawn = traces.map((trace) => (legend.hides(trace) ? { ...trace, visible: false } : trace));
        // Panels that come or go are drawn afresh: Plotly would draw a new one first without its scale.
        const put = axesOf(layout) === axes ? plotly.react : plotly.newPlot;
        axes = axesOf(layout);
        await put(figure, drawn, layout, {
          displaylogo: false,
          modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
        });
        figure.setAttribute("aria-label", spec.label ?? "");
        figure.querySelector(".modebar")?.setAttribute("aria-label", "Figure");
        figure.dataset.frame = spec.frame;
        complain();
        await painted();
        if (!closed) model.send({ type: "drawn", frame: spec.frame, took: performance.now() - start });
      }
    } catch (error) {
      stale = true;
      say(`The figure could not be drawn: ${error.message}`, "error");
    } finally {
      drawing = false;
      if (closed) purge();
    }
  }

  // Never under Plotly's hands: it draws in pieces, and would go on with a figure that has no scales any more.
  const purge = () => drawing || page.scripts.plotly?.then((plotly) => plotly.purge(figure));

  // The figure's place is kept from the moment its size is known: buttons below do not move while it is being drawn.
  const reserve = () => {
    const spec = model.get("spec");
    if (!spec.frame || !width) return;
    figure.style.minHeight = `${nearest(spec.layouts, width).height}px`;
    legend.show(spec.data);
  };
  const renew = () => {
    stale = true;
    reserve();
    draw();
  };
  const measured = () => {
    const now = Math.round(el.clientWidth);
    if (!now || Math.abs(now - width) < 4) return;
    width = now;
    model.send({ type: "width", view, width });
    renew();
  };
  const retheme = () => {
    if (isDark() === dark) return;
    dark = !dark;
    renew();
  };
  const complain = () => {
    say(model.get("error"), "error");
    trace.show(model.get("traceback"));
  };

  say("Loading the figure …");
  model.on("change:spec", renew);
  model.on("change:error change:traceback", complain);
  const resized = new ResizeObserver(measured);
  resized.observe(el);
  const sighted = (now) => {
    onScreen = now;
    draw();
  };
  const seen = watchSight(el, sighted, "200px"); // what is about to be scrolled into sight counts as seen
  document.addEventListener("visibilitychange", draw);
  const forgetTheme = onThemeChange(retheme);
  measured();

  return () => {
    closed = true;
    model.off("change:spec", renew);
    model.off("change:error change:traceback", complain);
    forget(resized);
    forget(seen);
    document.removeEventListener("visibilitychange", draw);
    forgetTheme();
    purge();
    try {
      model.send({ type: "gone", view });
    } catch {
      // The kernel is gone too.
    }
  };
}

export default { render };
