// A Plotly figure that follows a run. The newest frame is drawn, those that it overtook are not; nothing is drawn, and
// nothing is asked for, while the figure cannot be seen.

const page = (globalThis.__workbench ??= {}); // shared by all figures of the page

function loadPlotly(model) {
  if (globalThis.Plotly?.react) return Promise.resolve(globalThis.Plotly);
  page.plotly ??= fetchPlotly(model).catch((error) => {
    page.plotly = undefined; // the next frame tries again
    throw error;
  });
  return page.plotly;
}

async function fetchPlotly(model) {
  const packed = await new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error("the kernel did not send plotly.js")), 30000);
    const listen = (message, buffers) => {
      if (message?.type !== "plotly") return;
      clearTimeout(late);
      model.off("msg:custom", listen);
      resolve(buffers[0]);
    };
    model.on("msg:custom", listen);
    model.send({ type: "plotly" });
  });
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = await new Response(stream).text();
  // As a module, so that no loader of the page (AMD, CommonJS) takes it for its own.
  const wrapped = `const module = { exports: {} }, exports = module.exports, define = undefined;
(function () { ${script}
}).call(globalThis);
export default module.exports;`;
  const url = URL.createObjectURL(new Blob([wrapped], { type: "text/javascript" }));
  try {
    return (await import(/* webpackIgnore: true */ url)).default;
  } finally {
    URL.revokeObjectURL(url);
  }
}

export function isDark() {
  const body = document.body;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (body.dataset.vscodeThemeKind) return /dark|high-contrast$/.test(body.dataset.vscodeThemeKind);
  if (document.documentElement.hasAttribute("theme")) return document.documentElement.getAttribute("theme") === "dark";
  return globalThis.matchMedia?.("(prefers-color-scheme: dark)").matches ?? false;
}

function onThemeChange(react) {
  const watch = new MutationObserver(react);
  const attributeFilter = ["data-jp-theme-light", "data-vscode-theme-kind", "theme", "class"];
  for (const node of [document.body, document.documentElement]) watch.observe(node, { attributes: true, attributeFilter });
  const system = globalThis.matchMedia?.("(prefers-color-scheme: dark)");
  system?.addEventListener("change", react);
  return () => {
    watch.disconnect();
    system?.removeEventListener("change", react);
  };
}

// Arrays travel as float32 in one block; {"$": [offset, length]} stands for one of them.
function unpack(value, block) {
  if (Array.isArray(value)) return value.map((item) => unpack(item, block));
  if (value === null || typeof value !== "object") return value;
  if (value.$) return new Float32Array(block.slice(4 * value.$[0], 4 * (value.$[0] + value.$[1])));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpack(item, block)]));
}

function bytes(view) {
  return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
}

function render({ model, el }) {
  el.classList.add("wb", "wb-plot");
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's keys are for the notebook around
  el.addEventListener("keydown", (event) => event.stopPropagation());
  const figure = document.createElement("div");
  figure.setAttribute("role", "img");
  const note = document.createElement("div");
  note.className = "wb-note";
  note.setAttribute("role", "status");
  el.append(figure, note);

  let width = 0;
  let onScreen = false;
  let drawing = false;
  let stale = true;
  let closed = false;
  let dark = isDark();

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
        stale = false;
        const spec = model.get("spec");
        const layout = { ...spec.layout, width, template: model.get("templates")[dark ? "dark" : "light"] };
        layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
        layout.uirevision = "kept"; // zoom and switched-off legend entries outlive the next frame
        await plotly.react(figure, unpack(spec.data ?? [], bytes(model.get("block"))), layout, { displaylogo: false });
        figure.setAttribute("aria-label", spec.label ?? "");
        figure.dataset.frame = spec.frame;
        model.send({ type: "drawn", frame: spec.frame });
      }
      say(model.get("error"), "error");
    } catch (error) {
      stale = true;
      say(`The figure could not be drawn: ${error.message}`, "error");
    } finally {
      drawing = false;
    }
  }

  const renew = () => {
    stale = true;
    draw();
  };
  const measured = () => {
    const now = Math.round(el.clientWidth);
    if (!now || Math.abs(now - width) < 4) return;
    width = now;
    model.send({ type: "width", width });
    renew();
  };
  const retheme = () => {
    if (isDark() === dark) return;
    dark = !dark;
    renew();
  };
  const complain = () => say(model.get("error"), "error");

  say("Loading the figure …");
  model.on("change:spec", renew);
  model.on("change:error", complain);
  const resized = new ResizeObserver(measured);
  resized.observe(el);
  const seen = new IntersectionObserver(([entry]) => {
    onScreen = entry.isIntersecting;
    draw();
  });
  seen.observe(el);
  document.addEventListener("visibilitychange", draw);
  const forgetTheme = onThemeChange(retheme);
  measured();

  return () => {
    closed = true;
    model.off("change:spec", renew);
    model.off("change:error", complain);
    resized.disconnect();
    seen.disconnect();
    document.removeEventListener("visibilitychange", draw);
    forgetTheme();
    page.plotly?.then((plotly) => plotly.purge(figure));
  };
}

export default { render };
