// What all widgets of a page share: scripts that are sent once, arrays from the kernel, the theme.

const page = (globalThis.__workbench ??= {});
page.scripts ??= {};

// A script of an installed package, from the kernel, gzip-compressed; one request for all widgets of the page.
function loadScript(model, name) {
  page.scripts[name] ??= fetchScript(model, name).catch((error) => {
    page.scripts[name] = undefined; // the next one tries again
    throw error;
  });
  return page.scripts[name];
}

async function fetchScript(model, name) {
  const packed = await new Promise((resolve, reject) => {
    const unsent = Object.assign(new Error(`the kernel did not send ${name}`), { again: true });
    const late = setTimeout(() => reject(unsent), 30000);
    const listen = (message, buffers) => {
      if (message?.type !== "script" || message.name !== name) return;
      clearTimeout(late);
      model.off("msg:custom", listen);
      resolve(buffers[0]);
    };
    model.on("msg:custom", listen);
    model.send({ type: "script", name });
  });
  return runScript(name, packed);
}

async function runScript(name, packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = await new Response(stream).text();
  // As a module, so that no loader of the page (AMD, CommonJS) takes it for its own; k3d knows AMD only.
  const wrapped = `const module = { exports: {} }, exports = module.exports;
const define = ${name === "k3d" ? "(name, needs, make) => { module.exports = make(); }" : "undefined"};
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

function isDark() {
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

// JupyterLab puts a ResizeObserver of its own in the place of the browser's, which keeps its callback for ever.
function forget(observer) {
  observer?.disconnect();
  if (observer && "callback" in observer) observer.callback = () => {};
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
