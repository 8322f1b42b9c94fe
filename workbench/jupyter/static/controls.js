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
  if (what.startsWith("step")) node.prepend(text); // arrows point away from the middle
  else node.append(text);
  return node;
}

function chooser(title, chosen) {
  const node = document.createElement("select");
  node.title = title;
  node.setAttribute("aria-label", title);
  node.addEventListener("change", () => chosen(node.value));
  return node;
}

function render({ model, el }) {
  setUp(el, "wb-controls");
  const [ask, stopAsking] = makeAsk(model, el);
  const row = part("wb-bar");
  row.setAttribute("role", "toolbar");
  row.setAttribute("aria-label", "Training");
  const buttons = new Map();
  for (const group of BUTTONS) {
    const box = part("wb-group");
    for (const one of group) {
      const node = button(one);
      node.addEventListener("click", () => ask({ type: "do", what: one[0] }));
      buttons.set(one[0], node);
      box.append(node);
    }
    row.append(box);
  }
  const choosers = part("wb-choosers");
  const page = chooser("The figures that are shown", (value) => ask({ type: "page", page: value }));
  const kind = chooser("How M-factors are drawn", (value) => ask({ type: "kind", kind: value }));
  const runs = chooser("The run that the panel drives", (value) => ask({ type: "select", name: value }));
  choosers.append(page, kind, runs);
  const line = part("wb-line");
  const place = part("wb-where");
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", "Progress");
  const where = part("", "span");
  place.append(bar, where);
  const message = part("wb-message");
  message.setAttribute("role", "status");
  line.append(place, message);
  const trouble = part("wb-trouble");
  trouble.setAttribute("role", "status");
  line.append(trouble);
  const trace = makeTraceback();
  el.append(row, line, choosers, trace.node);

  // Any widget of this panel may find that nobody answers.
  const unheard = (event) => {
    const panel = event.target.closest(".wb-panel");
    if (event.target !== el && !panel?.contains(el)) return;
    message.dataset.kind = "error";
    message.textContent =
      "The kernel does not answer: it is busy with a cell, or gone. What was asked is done once it answers.";
  };
  document.addEventListener("wb-unheard", unheard);

  // Says that the state was seen: nothing more is sent to a page that does not.
  let onScreen = false;
  const answer = () => {
    if (onScreen && document.visibilityState === "visible") model.send({ type: "shown" });
  };
  const seen = new IntersectionObserver(([entry]) => {
    onScreen = entry.isIntersecting;
    answer();
  });
  seen.observe(row); // the widget itself has no box
  document.addEventListener("visibilitychange", answer);

  function show() {
    const state = model.get("state");
    if (!state.can) return;
    for (const [what, node] of buttons) node.disabled = !state.can.includes(what);
    buttons.get("run").dataset.on = state.running;
    fill(page, state.pages.map((name) => [name, name]), state.page);
    fill(kind, state.kinds.map((name) => [name, `M: ${name}`]), state.kind);
    fill(runs, state.runs.map((name) => [name, `drives ${name}`]), state.active);
    runs.hidden = state.runs.length < 2;
    kind.hidden = state.page !== state.pages[0];
    if (state.fraction === null) bar.removeAttribute("value");
    else bar.value = state.fraction;
    bar.hidden = state.fraction === null && !state.running;
    where.textContent = state.where;
    message.dataset.kind = state.error ? "error" : "";
    if (message.textContent !== state.message) message.textContent = state.message;
    if (trouble.textContent !== state.trouble) trouble.textContent = state.trouble;
    trace.show(state.traceback);
    answer();
  }

  model.on("change:state", show);
  show();
  return () => {
    stopAsking();
    document.removeEventListener("wb-unheard", unheard);
    seen.disconnect();
    document.removeEventListener("visibilitychange", answer);
    model.off("change:state", show);
  };
}

export default { render };
