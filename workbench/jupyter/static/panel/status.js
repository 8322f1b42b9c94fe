// What goes on and what became of each request, in two lines; beside it, what is shown and which run is driven.

function chooser(title, chosen) {
  const node = document.createElement("select");
  node.title = title;
  node.setAttribute("aria-label", title);
  node.addEventListener("change", () => chosen(node.value));
  return node;
}

function render({ model, el }) {
  setUp(el, "wb-status");
  const [ask, stopAsking] = makeAsk(model, el);
  const line = part("wb-line");
  const place = part("wb-where");
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", "Progress");
  const where = part("", "span");
  place.append(bar, where);
  const message = part("wb-message");
  const trouble = part("wb-trouble");
  for (const told of [message, trouble]) told.setAttribute("role", "status");
  line.append(place, message, trouble);
  const choosers = part("wb-choosers");
  const page = chooser("The figures that are shown", (value) => ask({ type: "page", page: value }));
  const kind = chooser("How M-factors are drawn", (value) => ask({ type: "kind", kind: value }));
  const runs = chooser("The run that the panel drives", (value) => ask({ type: "select", name: value }));
  choosers.append(page, kind, runs);
  const trace = makeTraceback();
  el.append(line, choosers, trace.node);

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
  let closed = false;
  const answer = async () => {
    const start = performance.now();
    await painted();
    if (closed || !onScreen || document.visibilityState !== "visible") return;
    model.send({ type: "shown", took: performance.now() - start });
  };
  const sighted = (now) => {
    onScreen = now;
    answer();
  };
  // Whoever sees any part of the panel counts as seeing this line, a click away from where it stands for instance.
  let seen;
  const watch = async () => {
    await painted();
    if (closed) return;
    if (el.isConnected) seen = watchSight(el.closest(".wb-panel") ?? el, sighted);
    else watch();
  };
  watch();
  document.addEventListener("visibilitychange", answer);

  function show() {
    const state = model.get("state");
    if (!state.where) return;
    fill(page, state.pages.map((name) => [name, name]), state.page);
    fill(kind, state.kinds.map((name) => [name, `M: ${name}`]), state.kind);
    fill(runs, state.runs.map((name) => [name, `drives ${name}`]), state.active);
    runs.hidden = state.runs.length < 2;
    kind.hidden = state.page !== state.pages[0];
    bar.value = state.fraction ?? 0;
    bar.hidden = state.fraction === null; // one without a value moves for ever, and costs as much as a figure
    where.textContent = state.where;
    message.dataset.kind = state.error ? "error" : "";
    if (message.textContent !== state.message) message.textContent = state.message;
    if (trouble.textContent !== state.trouble) trouble.textContent = state.trouble;
    trace.show(state.traceback, state.error || state.trouble ? "Traceback" : "Code");
    if (state.answer) answer();
  }

  model.on("change:state", show);
  show();
  return () => {
    closed = true;
    stopAsking();
    document.removeEventListener("wb-unheard", unheard);
    seen?.disconnect();
    document.removeEventListener("visibilitychange", answer);
    model.off("change:state", show);
  };
}

export default { render };
