// The numbers of the shown frame: reward and its terms, and what every agent did to get there.

function decimal(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const text = value.toFixed(size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3);
  return text.replace("-", "−");
}

class Numbers {
  constructor(agents) {
    this.root = part("wb-numbers");
    this.rewards = part("wb-rewards");
    this.fields = new Map();
    const list = part("wb-agents");
    this.agents = agents.map((agent) => {
      const box = part("wb-agent");
      box.style.setProperty("--agent", agent.color);
      box.append(part("", "b", agent.name));
      const values = agent.components.map((component) => {
        const row = part("wb-action");
        const bar = part(agent.discrete ? "" : "wb-bar", "i");
        const value = part("wb-value", "span");
        const label = part("wb-label", "span", component.name);
        label.title = component.name;
        row.append(label, bar, value);
        box.append(row);
        return { ...component, bar, value };
      });
      list.append(box);
      return { values, discrete: agent.discrete };
    });
    this.root.append(this.rewards, list);
  }

  field(name, text, title) {
    let field = this.fields.get(name);
    if (!field) {
      field = part("wb-field", "span");
      field.append(part("wb-label", "span", name), part("wb-value", "span"));
      if (title) field.title = title;
      this.fields.set(name, field);
      this.rewards.append(field);
    }
    field.lastChild.textContent = text;
    field.hidden = text === null;
  }

  // Of the step that led to the frame; frame 0 has none.
  show(episode, frame, ghost) {
    const step = Math.min(frame, episode.rewards.length) - 1;
    const at = (values) => (step < 0 ? NaN : values[step]);
    this.field("reward", decimal(at(episode.rewards)), "Joint reward of the step that led to this frame");
    this.field("return so far", decimal(episode.sums[step + 1]), "Undiscounted, since the episode began");
    const theirs = ghost ? ghost.sums[Math.min(frame, ghost.sums.length - 1)] : null;
    if (ghost || this.fields.has("ghost's return")) {
      this.field("ghost's return", ghost ? decimal(theirs) : null, "The ghost's return as far as this frame");
    }
    for (const [name, values] of episode.terms) this.field(name, decimal(at(values)));
    this.agents.forEach(({ values, discrete }, i) => {
      const taken = episode.actions[i];
      values.forEach(({ bar, value, low, high }, k) => {
        const number = step < 0 ? NaN : taken[step * values.length + k];
        value.textContent = discrete && Number.isFinite(number) ? String(number) : decimal(number);
        if (discrete) return;
        const share = Number.isFinite(number) ? (Math.min(Math.max(number, low), high) - low) / (high - low) : 0.5;
        const zero = (Math.min(Math.max(0, low), high) - low) / (high - low);
        bar.style.setProperty("--from", Math.min(zero, share));
        bar.style.setProperty("--size", Math.abs(share - zero));
      });
    });
  }
}
