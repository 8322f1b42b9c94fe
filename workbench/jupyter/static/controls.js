// The buttons of a session, its progress, and the line that says what became of each request.

const ICONS = {
  back2: "M11 1v10L6 6.5V11L1 6l5-5v4.5z",
  back: "M10 1v10L3 6z",
  step: "M2 1v10l7-5z",
  step2: "M1 1v10l5-4.5V11l5-5-5-5v4.5z",
  run: "M2 0.5v11l9-5.500z",
  pause: "M2 1h3v10H2zM7 1h3v10H7z",
  fork: "M1 0h4v4H4v1.500C4 6.500 5 7 6 7s2-.5 2-1.500V4H7V0h4v4h-1v1.500C10 7.700 8.400 8.800 7 9v3H5V9C3.600 8.800 2 7.700 2 5.500V4H1z",
};

const BUTTONS = [
  [
    ["rewind iteration", "back2", "Iteration", "Back to the beginning of the iteration, or of the one before"],
    ["rewind agent", "back", "Agent", "Back to before the last agent's update"],
  ],
  [
    ["step agent", "step", "Agent", "On until one more agent is updated"],
    ["step iteration", "step2", "Iteration", "On to the end of the iteration"],
  ],
  [
    ["run", "run", "Run", "Train until paused"],
    ["pause", "pause", "Pause", "Pause after the phase under way"],
  ],
  [["fork", "fork", "Fork", "A copy from here on, which the panel then drives; the run itself stays as it is"]],
];

function button([what, icon, text, title]) {
  const node = document.createElement("button");
  node.dataset.do = what;
  node.title = title;
  const verb = { rewind: "Back one ", step: "Forward one " }[what.split(" ")[0]];
  node.setAttribute("aria-label", verb ? `${verb}${text.toLowerCase()}` : text);
  node.innerHTML = `<svg viewBox="0 0 12 12" aria-hidden="true"><path d="${ICONS[icon]}"/></svg>`;
  node.append(text);
  return node;
}

function chooser(title) {
  const node = document.createElement("select");
  node.title = title;
  node.setAttribute("aria-label", title);
  return node;
}

function fill(select, options, value) {
  const now = [...select.options].map((option) => [option.value, option.text]);
  if (JSON.stringify(now) !== JSON.stringify(options)) {
    select.replaceChildren(...options.map(([key, text]) => new Option(text, key)));
  }
  select.value = value;
}

function render({ model, el }) {
  el.classList.add("wb", "wb-controls");
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's keys are for the notebook around
  el.addEventListener("keydown", (event) => event.stopPropagation());
  const row = document.createElement("div");
  row.className = "wb-row";
  row.setAttribute("role", "toolbar");
  row.setAttribute("aria-label", "Training");
  const buttons = new Map();
  for (const group of BUTTONS) {
    const box = document.createElement("div");
    box.className = "wb-group";
    for (const one of group) {
      const node = button(one);
      node.addEventListener("click", () => ask({ type: "do", what: one[0] }));
      buttons.set(one[0], node);
      box.append(node);
    }
    row.append(box);
  }
  const runs = chooser("The run that the panel drives");
  runs.addEventListener("change", () => ask({ type: "select", name: runs.value }));
  const kind = chooser("How M-factors are drawn");
  kind.addEventListener("change", () => ask({ type: "kind", kind: kind.value }));
  row.append(kind, runs);
  const line = document.createElement("div");
  line.className = "wb-line";
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", "Progress");
  const where = document.createElement("span");
  where.className = "wb-where";
  const message = document.createElement("span");
  message.className = "wb-message";
  message.setAttribute("role", "status");
  line.append(bar, where, message);
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "Traceback";
  const trace = document.createElement("pre");
  trace.tabIndex = 0;
  details.append(summary, trace);
  el.append(row, line, details);

  let asked = 0;
  let late;
  const unheard = () => {
    message.dataset.kind = "error";
    message.textContent =
      "The kernel does not answer: it is busy with a cell, or gone. What was asked is done once it answers.";
  };
  function ask(request) {
    asked += 1;
    clearTimeout(late);
    late = setTimeout(unheard, 4000);
    model.send({ ...request, number: asked });
  }
  const heard = (reply) => {
    if (reply?.type === "heard" && reply.number === asked) clearTimeout(late);
  };

  // Says that the state was seen: nothing more is sent to a page that does not.
  let onScreen = false;
  const answer = () => {
    if (onScreen && document.visibilityState === "visible") model.send({ type: "shown" });
  };
  const seen = new IntersectionObserver(([entry]) => {
    onScreen = entry.isIntersecting;
    answer();
  });
  seen.observe(el);
  document.addEventListener("visibilitychange", answer);

  function show() {
    const state = model.get("state");
    if (!state.can) return;
    for (const [what, node] of buttons) node.disabled = !state.can.includes(what);
    buttons.get("run").dataset.on = state.running;
    fill(runs, state.runs.map((name) => [name, name]), state.active);
    runs.hidden = state.runs.length < 2;
    fill(kind, state.kinds.map((name) => [name, name]), state.kind);
    if (state.fraction === null) bar.removeAttribute("value");
    else bar.value = state.fraction;
    bar.hidden = state.fraction === null && !state.running;
    where.textContent = state.where;
    message.dataset.kind = state.error ? "error" : "";
    if (message.textContent !== state.message) message.textContent = state.message;
    details.hidden = !state.traceback;
    trace.textContent = state.traceback;
    answer();
  }

  model.on("change:state", show);
  model.on("msg:custom", heard);
  show();
  return () => {
    clearTimeout(late);
    seen.disconnect();
    document.removeEventListener("visibilitychange", answer);
    model.off("change:state", show);
    model.off("msg:custom", heard);
  };
}

export default { render };
