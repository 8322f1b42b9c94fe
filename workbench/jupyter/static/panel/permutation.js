// The update order as a row of chips: dragged, or moved by keyboard. Who has been updated stays where they are.

const HELP =
  "Left and right arrow go from agent to agent. Space picks an agent up, the arrows then move it, Space puts it down, " +
  "Escape puts it back. Shift with an arrow moves it at once.";

const ICONS = {
  shuffle: "M1 4h3l6 8h4M12 9.500l2.500 2.500-2.500 2.500M1 12h3l1.600-2.100M8.400 6.100L10 4h4M12 1.500L14.500 4 12 6.500",
  reverse: "M2 5h12M11 2l3 3-3 3M14 11H2M5 8l-3 3 3 3",
};

function tool(icon, title) {
  const node = part("", "button");
  node.title = title;
  node.setAttribute("aria-label", title);
  node.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${ICONS[icon]}"/></svg>`;
  return node;
}

function render({ model, el }) {
  setUp(el, "wb-order");
  const [ask, stopAsking] = makeAsk(model, el);
  const id = `wb-${Math.random().toString(36).slice(2)}`;
  const label = part("wb-label", "span", "Order");
  label.id = `${id}-label`;
  const list = part("wb-chips", "ul");
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-orientation", "horizontal");
  list.setAttribute("aria-labelledby", label.id);
  list.setAttribute("aria-describedby", `${id}-help`);
  const help = part("wb-sr", "span", HELP);
  help.id = `${id}-help`;
  const live = part("wb-sr", "span");
  live.setAttribute("aria-live", "assertive");
  const shuffle = tool("shuffle", "Shuffle those who are left");
  const reverse = tool("reverse", "Reverse those who are left");
  const rule = part("", "select");
  rule.title = "Who decides the order of each iteration";
  rule.setAttribute("aria-label", rule.title);
  const tools = part("wb-tools", "span");
  tools.append(shuffle, reverse, rule);
  el.append(label, list, tools, help, live);

  let items = []; // as shown: {unit, label, color, state}
  let focused = 0;
  let held = null; // while an agent is picked up or dragged: the items as they were before
  let drag = null;

  const movable = (item) => item && item.state !== "done";
  const first = () => items.findIndex(movable);
  const chips = () => [...list.children];
  const same = (a, b) => a.length === b.length && a.every((item, i) => item.unit === b[i].unit);

  function paint() {
    const before = new Map(chips().map((chip) => [chip.dataset.unit, chip]));
    const pending = model.get("pending");
    focused = Math.max(0, Math.min(focused, items.length - 1));
    items.forEach((item, i) => {
      const chip = before.get(item.unit) ?? newChip(item);
      before.delete(item.unit);
      chip.dataset.state = item.state;
      chip.dataset.pending = pending && movable(item);
      chip.dataset.held = Boolean(held) && !drag && i === focused;
      chip.tabIndex = i === focused ? 0 : -1;
      chip.style.setProperty("--wb-agent", item.color);
      chip.querySelector(".wb-number").textContent = item.state === "done" ? "✓" : i + 1;
      chip.setAttribute("aria-label", `${i + 1} of ${items.length}: ${item.label}${spoken(item)}`);
      chip.setAttribute("aria-disabled", !movable(item));
      chip.setAttribute("aria-selected", i === focused);
      if (list.children[i] !== chip) list.insertBefore(chip, list.children[i] ?? null);
    });
    for (const chip of before.values()) chip.remove();
    const few = items.filter(movable).length < 2;
    for (const button of [shuffle, reverse]) enable(button, !few);
  }

  const spoken = (item) => ({ done: ", already updated", now: ", next" })[item.state] ?? "";

  function newChip(item) {
    const chip = part("wb-chip", "li");
    chip.dataset.unit = item.unit;
    chip.setAttribute("role", "option");
    chip.append(part("wb-swatch", "span"), part("wb-number", "span"), part("wb-name", "span", item.label));
    return chip;
  }

  function focus(i) {
    focused = Math.max(0, Math.min(i, items.length - 1));
    paint();
    list.children[focused]?.focus();
  }

  function move(to) {
    to = Math.max(first(), Math.min(to, items.length - 1));
    if (to !== focused && movable(items[focused])) {
      const moved = items.splice(focused, 1)[0];
      items.splice(to, 0, moved);
      live.textContent = `${moved.label} is now ${to + 1} of ${items.length}`;
    }
    focus(to);
  }

  function send() {
    const before = held ?? model.get("items");
    held = null;
    if (!same(before, items)) ask({ type: "order", units: items.map((item) => item.unit) });
    renew();
  }

  function cancel() {
    items = held ?? items;
    held = drag = null;
    renew();
  }

  // What the kernel says is shown at once, but not under the user's hand.
  function renew() {
    if (held) return;
    const here = items[focused]?.unit;
    const hadFocus = list.contains(document.activeElement);
    items = model.get("items").map((item) => ({ ...item }));
    const place = items.findIndex((item) => item.unit === here);
    if (place >= 0) focused = place;
    paint();
    if (hadFocus) list.children[focused]?.focus();
    fill(rule, model.get("rules"), model.get("rule"));
  }

  list.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (step) {
      if (held) move(focused + step);
      else if (event.shiftKey && movable(items[focused])) {
        held = items.map((item) => ({ ...item }));
        move(focused + step);
        send();
      } else focus(focused + step);
    } else if (event.key === "Home" || event.key === "End") {
      const end = event.key === "End" ? items.length - 1 : 0;
      if (held) move(end);
      else focus(end);
    } else if (event.key === " " || event.key === "Enter") {
      if (held) {
        live.textContent = `${items[focused].label} put down as ${focused + 1} of ${items.length}`;
        send();
      } else if (movable(items[focused])) {
        held = items.map((item) => ({ ...item }));
        live.textContent = `${items[focused].label} picked up`;
        paint();
      } else live.textContent = `${items[focused]?.label} is already updated`;
    } else if (event.key === "Escape" && held) {
      live.textContent = "put back";
      cancel();
    } else return;
    event.preventDefault();
  });

  list.addEventListener("focusin", (event) => {
    const i = chips().indexOf(event.target.closest(".wb-chip"));
    if (i < 0 || i === focused) return;
    focused = i;
    paint();
  });
  list.addEventListener("focusout", (event) => {
    if (held && !drag && !list.contains(event.relatedTarget)) send();
  });

  list.addEventListener("pointerdown", (event) => {
    const chip = event.target.closest(".wb-chip");
    const i = chips().indexOf(chip);
    if (i < 0 || event.button !== 0) return;
    focus(i);
    if (!movable(items[i])) return;
    drag = { unit: items[i].unit, x: event.clientX, y: event.clientY, moved: false };
    el.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  el.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const far = Math.hypot(event.clientX - drag.x, event.clientY - drag.y);
    if (!drag.moved && far < 4) return;
    if (!drag.moved) {
      drag.moved = true;
      held = items.map((item) => ({ ...item }));
    }
    const chip = chips().find((one) => one.dataset.unit === drag.unit);
    chip.dataset.dragged = "true";
    chip.style.transform = "";
    const over = nearest(event.clientX, event.clientY);
    if (over >= 0) {
      const from = items.findIndex((item) => item.unit === drag.unit);
      const to = Math.max(first(), over);
      if (to !== from) {
        items.splice(to, 0, items.splice(from, 1)[0]);
        focused = to;
        paint();
      }
    }
    const box = chip.getBoundingClientRect();
    const x = event.clientX - (box.left + box.width / 2);
    const y = event.clientY - (box.top + box.height / 2);
    chip.style.transform = `translate(${x}px, ${y}px)`;
  });
  const drop = (event) => {
    if (!drag) return;
    const chip = chips().find((one) => one.dataset.unit === drag.unit);
    if (chip) {
      chip.dataset.dragged = "false";
      chip.style.transform = "";
    }
    const moved = drag.moved;
    drag = null;
    if (event.type === "pointercancel") cancel();
    else if (moved) send();
    else paint();
  };
  el.addEventListener("pointerup", drop);
  el.addEventListener("pointercancel", drop);

  // The place whose middle is nearest to the pointer, among all chips as they lie, the dragged one included.
  function nearest(x, y) {
    let best = -1;
    let least = Infinity;
    chips().forEach((chip, i) => {
      const box = { left: chip.offsetLeft, top: chip.offsetTop, width: chip.offsetWidth, height: chip.offsetHeight };
      const origin = chip.offsetParent?.getBoundingClientRect() ?? { left: 0, top: 0 };
      const dx = x - (origin.left + box.left + box.width / 2);
      const dy = y - (origin.top + box.top + box.height / 2);
      const distance = Math.abs(dx) + 3 * Math.abs(dy);
      if (distance < least) [best, least] = [i, distance];
    });
    return best;
  }

  whenPressed(shuffle, () => ask({ type: "shuffle" }));
  whenPressed(reverse, () => ask({ type: "reverse" }));
  rule.addEventListener("change", () => ask({ type: "rule", rule: rule.value }));
  model.on("change:items change:pending change:rule change:rules", renew);
  renew();
  return () => {
    stopAsking();
    model.off("change:items change:pending change:rule change:rules", renew);
  };
}

export default { render };
