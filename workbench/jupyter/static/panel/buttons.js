// The buttons of a session: back, forward, run, pause, fork, code.

const ICONS = {
  back2: "M11 1v10L6 6.5V11L1 6l5-5v4.5z",
  back: "M10 1v10L3 6z",
  step: "M2 1v10l7-5z",
  step2: "M1 1v10l5-4.5V11l5-5-5-5v4.5z",
  run: "M2 0.5v11l9-5.500z",
  pause: "M2 1h3v10H2zM7 1h3v10H7z",
  fork: "M1 0h4v4H4v1.500C4 6.500 5 7 6 7s2-.5 2-1.500V4H7V0h4v4h-1v1.500C10 7.700 8.400 8.800 7 9v3H5V9C3.600 8.800 2 7.700 2 5.500V4H1z",
  code: "M4 2L0 6l4 4 1.200-1.200L2.400 6l2.800-2.800zM8 2l4 4-4 4-1.200-1.200L9.600 6 6.800 3.200z",
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
  [
    ["fork", "fork", "Fork", "A copy from here on, which the panel then drives; the run itself stays as it is"],
    ["code", "code", "Code", "What was done, as Python that ends in the same fingerprint"],
  ],
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

function render({ model, el }) {
  setUp(el, "wb-buttons");
  el.setAttribute("role", "toolbar");
  el.setAttribute("aria-label", "Training");
  const [ask, stopAsking] = makeAsk(model, el);
  const buttons = new Map();
  for (const group of BUTTONS) {
    const box = part("wb-group");
    for (const one of group) {
      const node = button(one);
      whenPressed(node, () => ask({ type: "do", what: one[0] }));
      buttons.set(one[0], node);
      box.append(node);
    }
    el.append(box);
  }

  function show() {
    for (const [what, node] of buttons) enable(node, model.get("can").includes(what));
    buttons.get("run").dataset.on = model.get("running");
  }

  model.on("change:can change:running", show);
  show();
  return () => {
    stopAsking();
    model.off("change:can change:running", show);
  };
}

export default { render };
