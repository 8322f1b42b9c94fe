// What the widgets of a panel share; it stands before the script of each.

function part(className, tag = "div", text) {
  const node = document.createElement(tag);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Resolves once what was changed is on the screen; in a hidden page, once that is seen again.
const painted = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

// A button that does nothing for now keeps the focus, which a disabled one would lose.
function enable(button, on) {
  button.setAttribute("aria-disabled", !on);
}

function whenPressed(button, act) {
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") !== "true") act();
  });
}

// A traceback or code, folded; nothing where there is none.
function makeTraceback() {
  const node = part("wb-traceback", "details");
  const text = part("", "pre");
  text.tabIndex = 0;
  const summary = part("", "summary");
  node.append(summary, text);
  const show = (traceback, name = "Traceback") => {
    node.hidden = !traceback;
    if (summary.textContent !== name) summary.textContent = name;
    if (text.textContent !== traceback) text.textContent = traceback;
  };
  show("");
  return { node, show };
}

// Tells whether a node can be seen, or is so near to it; JupyterLab cuts off its notebooks so that a margin is nothing
// there. A busy page hands over several sightings, the newest last.
function watchSight(node, tell, margin = "0px") {
  const observer = new IntersectionObserver((entries) => tell(entries.at(-1).isIntersecting), {
    rootMargin: margin,
    scrollMargin: margin,
  });
  observer.observe(node);
  return observer;
}

// Options are replaced only where they differ: a list that is open on the page stays open.
function fill(select, options, value) {
  const now = [...select.options].map((option) => [option.value, option.text]);
  if (JSON.stringify(now) !== JSON.stringify(options)) {
    select.replaceChildren(...options.map(([key, text]) => new Option(text, key)));
  }
  select.value = value;
}

// JupyterLab's keys are for the notebook around, not for what is typed here.
function setUp(el, className) {
  el.classList.add("wb", className);
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  el.addEventListener("keydown", (event) => event.stopPropagation());
}

// Hands what the user asks for to the kernel. Where that does not say soon that it heard, the panel is told so.
function makeAsk(model, el) {
  const view = Math.random().toString(36).slice(2);
  let asked = 0;
  let late;
  const heard = (reply) => {
    if (reply?.type === "heard" && reply.number === `${view}-${asked}`) clearTimeout(late);
  };
  model.on("msg:custom", heard);
  const ask = (request) => {
    asked += 1;
    clearTimeout(late);
    late = setTimeout(() => el.dispatchEvent(new CustomEvent("wb-unheard", { bubbles: true })), 4000);
    try {
      model.send({ ...request, number: `${view}-${asked}` });
    } catch {
      // The kernel is gone; that it did not hear is said in a moment.
    }
  };
  const stop = () => {
    clearTimeout(late);
    model.off("msg:custom", heard);
  };
  return [ask, stop];
}

