// The player of a replay: a stage, a scrubber over the episode, one over training, and the numbers of the frame.

const MOST_STAGES = 8; // that a page draws at once: browsers give up the oldest of more than sixteen
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4, 8];
const CAMERAS = [["follow", "camera follows"], ["orbit", "camera stays"], ["free", "camera flies"]];
const KEYS = [
  ["Space", "play, pause"],
  ["← →", "one frame (Shift: ten)"],
  ["Home End", "first, last frame"],
  ["↑ ↓", "later, earlier in training"],
  ["[ ]", "slower, faster"],
  ["L", "loop"],
  ["G", "ghost"],
  ["C", "next camera"],
  ["W A S D", "turn or move the camera"],
  ["E Q", "nearer, farther"],
  ["R", "camera as it was at first"],
];
const SIGNS = {
  first: "M1 1h2v10H1zM11 1v10L4 6z",
  back: "M10 1v10L3 6z",
  play: "M2 0.500v11l9-5.500z",
  pause: "M2 1h3v10H2zM7 1h3v10H7z",
  on: "M2 1v10l7-5z",
  loop: "M6 1a5 5 0 0 1 4.600 3H12L9.500 7 7 4h1.500A3.300 3.300 0 1 0 9 8l1.300 1A5 5 0 1 1 6 1z",
};

function sign(name) {
  return `<svg viewBox="0 0 12 12" aria-hidden="true"><path d="${SIGNS[name]}"/></svg>`;
}

function pressable(label, content, press) {
  const node = part("", "button");
  node.type = "button";
  node.title = label;
  node.setAttribute("aria-label", label);
  node.innerHTML = content;
  node.addEventListener("click", press);
  return node;
}

function choice(label, options, change) {
  const node = part("", "select");
  node.title = label;
  node.setAttribute("aria-label", label);
  node.append(...options.map(([value, text]) => new Option(text, value)));
  node.addEventListener("change", () => change(node.value));
  return node;
}

function slider(label, max, move) {
  const node = part("", "input");
  Object.assign(node, { type: "range", min: 0, max, step: 1, value: 0 });
  node.setAttribute("aria-label", label);
  node.addEventListener("input", () => move(Number(node.value)));
  return node;
}

// Running sums of the rewards: the return as far as each frame.
function withSums(episode) {
  const sums = [episode.returned];
  episode.rewards.forEach((reward) => sums.push(sums[sums.length - 1] + reward));
  return { ...episode, sums };
}

function unpackSpec(model) {
  const spec = unpack(model.get("spec"), bytes(model.get("block")));
  for (const take of [...spec.takes, ...(spec.ghost ? [spec.ghost] : [])]) take.episodes = take.episodes.map(withSums);
  return spec;
}

class Player {
  constructor(model, el) {
    this.model = model;
    this.spec = unpackSpec(model);
    this.at = { take: this.spec.takes.length - 1, episode: 0, frame: 0 };
    this.playing = false;
    this.loop = false;
    this.speed = 1;
    this.ghostOn = Boolean(this.spec.ghost);
    this.drawn = 0;
    this.onScreen = false;
    this.lay(el);
    this.seek(model.get("at")?.frame ?? 0, model.get("at"));
  }

  get take() {
    return this.spec.takes[this.at.take];
  }

  get episode() {
    return this.take.episodes[this.at.episode];
  }

  get ghost() {
    const { ghost } = this.spec;
    return this.ghostOn && ghost ? ghost.episodes[Math.min(this.at.episode, ghost.episodes.length - 1)] : null;
  }

  get last() {
    return this.episode.frames - 1;
  }

  // --- the page -----------------------------------------------------------------------------------------------------

  lay(el) {
    setUp(el, "wb-replay");
    this.root = el;
    el.player = this;
    this.view = part("wb-stage");
    this.view.tabIndex = 0;
    this.view.setAttribute("role", "img");
    this.host = part("wb-host");
    this.caption = part("wb-caption", "div", this.spec.title);
    this.view.append(this.host, this.caption);
    // The wheel is the notebook's, until the stage is chosen by a click.
    const wheel = (event) => this.view.contains(document.activeElement) || event.stopImmediatePropagation();
    this.view.addEventListener("wheel", wheel, { capture: true });
    this.view.addEventListener("pointerdown", () => this.view.focus({ preventScroll: true }));
    this.numbers = new Numbers(this.spec.agents);
    this.note = part("wb-note");
    this.note.setAttribute("role", "status");
    el.append(this.view, this.transport(), this.settings(), this.numbers.root, this.note);
    this.listening = new AbortController();
    el.addEventListener("keydown", (event) => this.key(event), { signal: this.listening.signal });
  }

  transport() {
    const row = part("wb-row");
    this.playButton = pressable("Play", sign("play"), () => this.toggle());
    this.scrubber = slider("Frame", this.last, (frame) => {
      this.pause();
      this.seek(frame);
    });
    this.clock = part("wb-clock", "span");
    row.append(
      pressable("First frame", sign("first"), () => this.seek(0)),
      pressable("One frame back", sign("back"), () => this.step(-1)),
      this.playButton,
      pressable("One frame on", sign("on"), () => this.step(1)),
      this.scrubber,
      this.clock,
    );
    return row;
  }

  settings() {
    const box = part("");
    if (this.spec.takes.length > 1) {
      const row = part("wb-row");
      this.training = slider("Moment in training", this.spec.takes.length - 1, (take) => this.choose({ take }));
      this.moment = part("wb-clock", "span");
      row.append(part("wb-label", "span", "training"), this.training, this.moment);
      box.append(row);
    }
    const row = part("wb-row");
    this.speeds = choice("Speed", SPEEDS.map((speed) => [speed, `${speed}×`]), (speed) => this.setSpeed(Number(speed)));
    this.loopButton = pressable("Loop", sign("loop"), () => this.setLoop(!this.loop));
    row.append(this.speeds, this.loopButton);
    if (this.spec.kind === "poses") {
      this.cameras = choice("Camera", CAMERAS, (mode) => this.setCamera(mode));
      row.append(this.cameras);
    }
    this.episodes = choice("Episode", [], (episode) => this.choose({ episode: Number(episode) }));
    row.append(this.episodes);
    if (this.spec.ghost) {
      this.ghostButton = pressable(`Ghost: ${this.spec.ghost.label}`, "", () => this.setGhost(!this.ghostOn));
      this.ghostButton.textContent = `Ghost: ${this.spec.ghost.label}`;
      row.append(this.ghostButton);
    }
    if (this.spec.startable) {
      row.append(pressable("Start here: a fork whose environments stand at this frame", "Start here", () => this.start()));
    }
    const help = part("wb-keys", "details");
    help.append(part("", "summary", "Keys"));
    const table = part("", "dl");
    for (const [key, text] of KEYS) table.append(part("", "dt", key), part("", "dd", text));
    help.append(table);
    row.append(help);
    box.append(row);
    this.setSpeed(1);
    this.setLoop(false);
    if (this.ghostButton) this.ghostButton.dataset.on = this.ghostOn;
    return box;
  }

  // --- what is shown ------------------------------------------------------------------------------------------------

  choose({ take = this.at.take, episode = this.at.episode }) {
    this.at.take = Math.min(Math.max(take, 0), this.spec.takes.length - 1);
    this.at.episode = Math.min(Math.max(episode, 0), this.take.episodes.length - 1);
    this.seek(this.at.frame);
  }

  seek(frame, { take = this.at.take, episode = this.at.episode } = {}) {
    this.at.take = Math.min(Math.max(take, 0), this.spec.takes.length - 1);
    this.at.episode = Math.min(Math.max(episode, 0), this.take.episodes.length - 1);
    this.at.frame = Math.min(Math.max(frame, 0), this.last);
    this.label();
    this.draw();
    this.report();
  }

  step(by) {
    this.pause();
    this.seek(Math.round(this.at.frame) + by);
  }

  label() {
    const { take, episode, spec, at } = this;
    const frame = Math.floor(at.frame + 1e-6);
    this.scrubber.max = this.last;
    this.scrubber.value = frame;
    const ended = frame === this.last && episode.end ? ` · ${episode.end}` : "";
    const seconds = spec.seconds ? ` · ${(frame * spec.seconds).toFixed(2)} s` : "";
    const earlier = episode.before ? ` · step ${episode.before + frame} of its episode` : "";
    this.clock.textContent = `${frame} / ${this.last}${seconds}${earlier}${ended}`;
    this.scrubber.setAttribute("aria-valuetext", `frame ${this.clock.textContent}`);
    if (this.training) {
      this.training.value = at.take;
      this.moment.textContent = `${take.label} · return ${decimal(episode.sums[episode.sums.length - 1])}`;
      this.training.setAttribute("aria-valuetext", this.moment.textContent);
    }
    fill(this.episodes, take.episodes.map((_, i) => [String(i), `episode ${i + 1}`]), at.episode);
    this.episodes.hidden = take.episodes.length < 2;
    this.view.setAttribute("aria-label", `${spec.title}, frame ${this.clock.textContent}`);
    this.numbers.show(episode, frame, this.ghost);
  }

  draw() {
    if (!this.stage?.alive || !this.onScreen) return;
    this.stage.show(this.episode, this.at.frame, this.ghost);
    this.drawn += 1;
  }

  // --- time ---------------------------------------------------------------------------------------------------------

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  play() {
    if (this.playing) return;
    if (this.at.frame >= this.last) this.at.frame = 0;
    this.playing = true;
    this.before = undefined;
    this.labelled = 0;
    this.stage?.start?.();
    this.showPlaying();
    requestAnimationFrame((now) => this.tick(now));
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    this.at.frame = Math.floor(this.at.frame + 1e-6);
    this.stage?.rest?.();
    this.showPlaying();
    this.seek(this.at.frame);
  }

  showPlaying() {
    const label = this.playing ? "Pause" : "Play";
    this.playButton.innerHTML = sign(label.toLowerCase());
    this.playButton.title = label;
    this.playButton.setAttribute("aria-label", label);
    this.playButton.dataset.on = this.playing;
  }

  tick(now) {
    if (!this.playing || this.closed) return;
    const since = this.before === undefined ? 0 : Math.min((now - this.before) / 1000, 0.25);
    this.before = now;
    if (this.onScreen && this.stage?.alive) {
      this.at.frame += (since * this.speed) / (this.spec.seconds || 0.2);
      if (this.at.frame >= this.last) {
        if (this.loop && this.last > 0) this.at.frame %= this.last;
        else {
          this.at.frame = this.last;
          this.pause();
          return;
        }
      }
      if (since) this.stage.pace?.(1000 * since);
      this.draw();
      if (now - this.labelled > 90) {
        this.labelled = now;
        this.label();
      }
    }
    requestAnimationFrame((next) => this.tick(next));
  }

  // --- choices ------------------------------------------------------------------------------------------------------

  setSpeed(speed) {
    this.speed = speed;
    this.speeds.value = speed;
  }

  setLoop(on) {
    this.loop = on;
    this.loopButton.dataset.on = on;
    this.loopButton.setAttribute("aria-pressed", on);
  }

  setCamera(mode) {
    this.cameras.value = mode;
    this.stage?.setMode(mode);
  }

  setGhost(on) {
    if (!this.ghostButton) return;
    this.ghostOn = on;
    this.ghostButton.dataset.on = on;
    this.ghostButton.setAttribute("aria-pressed", on);
    this.seek(this.at.frame);
  }

  key(event) {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || target.tagName === "SELECT") return;
    const pressing = ["BUTTON", "SUMMARY"].includes(target.tagName) && [" ", "Enter"].includes(event.key);
    const sliding = target.type === "range" && /^(Arrow|Home|End|Page)/.test(event.key);
    if (pressing || sliding) return;
    const ten = event.shiftKey ? 10 : 1;
    const speed = (by) => SPEEDS[Math.min(Math.max(SPEEDS.indexOf(this.speed) + by, 0), SPEEDS.length - 1)];
    const modes = CAMERAS.map(([mode]) => mode);
    const act = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.step(-ten),
      ArrowRight: () => this.step(ten),
      Home: () => this.seek(0),
      End: () => this.seek(this.last),
      ArrowUp: () => this.choose({ take: this.at.take + 1 }),
      ArrowDown: () => this.choose({ take: this.at.take - 1 }),
      "[": () => this.setSpeed(speed(-1)),
      "]": () => this.setSpeed(speed(1)),
      l: () => this.setLoop(!this.loop),
      g: () => this.setGhost(!this.ghostOn),
      c: () => this.cameras && this.setCamera(modes[(modes.indexOf(this.cameras.value) + 1) % modes.length]),
      a: () => this.stage?.steer(-1, 0, 0),
      d: () => this.stage?.steer(1, 0, 0),
      w: () => this.stage?.steer(0, 1, 0),
      s: () => this.stage?.steer(0, -1, 0),
      e: () => this.stage?.steer(0, 0, 1),
      q: () => this.stage?.steer(0, 0, -1),
      r: () => this.stage?.resetCamera(),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  // --- the kernel ---------------------------------------------------------------------------------------------------

  // Tells the kernel what is shown, once it stands still.
  report() {
    clearTimeout(this.reporting);
    if (this.playing) return;
    this.reporting = setTimeout(() => {
      this.model.set("shown", { ...this.at });
      this.model.save_changes();
    }, 150);
  }

  start() {
    this.pause();
    this.say("A fork is being put there …");
    this.late = setTimeout(() => {
      this.say("The kernel does not answer: it is busy with a cell, or gone. What was asked is done once it answers.", true);
    }, 4000);
    this.model.send({ type: "start", ...this.at });
  }

  hear(message) {
    if (message?.type !== "started") return;
    clearTimeout(this.late);
    this.say(message.text, message.error);
  }

  say(text, error = false) {
    this.note.dataset.kind = error ? "error" : "";
    this.note.textContent = text;
  }

  // --- the stage ----------------------------------------------------------------------------------------------------

  // Builds the stage, or builds it anew where it was given up while out of sight.
  async ensure() {
    if (this.closed || this.building || this.stage?.alive || !this.onScreen || !this.host.clientWidth) return;
    this.building = true;
    const asked = performance.now();
    try {
      this.stage?.dispose();
      if (this.spec.kind === "pictures") this.stage = new PictureStage(this.host, bytes(this.model.get("pictures")));
      else if (this.spec.kind === "game") this.stage = new GameStage(this.host, this.spec.states);
      else {
        if (!this.root.dataset.opened) this.say("Loading the player …");
        const library = await loadScript(this.model, "k3d");
        if (this.closed) return;
        this.makeRoom();
        this.stage = new SceneStage(library, this.host, this.spec.scene, this.spec.ghostScene);
        await this.stage.build(isDark());
        if (this.closed) return this.stage.dispose();
        this.stage.setMode(this.cameras.value);
      }
      this.say("");
      this.draw();
      this.root.dataset.opened ??= Math.round(performance.now() - asked);
    } catch (error) {
      // A kernel that is busy with a cell sends nothing before its end.
      if (error.again) this.retrying = setTimeout(() => this.ensure(), 1000);
      this.say(error.again ? "Waiting for the kernel …" : `The episode cannot be drawn here: ${error.message}`, !error.again);
    } finally {
      this.building = false;
    }
  }

  makeRoom() {
    page.players ??= new Set();
    const others = [...page.players].filter((one) => one !== this && one.stage?.alive);
    const hidden = others.filter((one) => !one.onScreen);
    while (others.length >= MOST_STAGES && hidden.length) {
      const gone = hidden.shift();
      gone.stage.dispose();
      others.splice(others.indexOf(gone), 1);
    }
    page.players.delete(this);
    page.players.add(this);
  }

  close() {
    this.closed = true;
    clearTimeout(this.late);
    clearTimeout(this.reporting);
    clearTimeout(this.retrying);
    page.players?.delete(this);
    this.stage?.dispose();
    // A page may keep the element of a widget that is closed: let go of all else.
    this.listening.abort();
    this.root.replaceChildren();
    delete this.root.player;
  }
}

function render({ model, el }) {
  let player = new Player(model, el);
  let dark = isDark();
  const retheme = () => {
    if (isDark() === dark) return;
    dark = !dark;
    player.stage?.retheme(dark);
  };
  const appear = () => player.ensure().then(() => player?.draw());
  const seen = watchSight(player.view, (now) => {
    player.onScreen = now;
    if (now) appear();
  });
  const resized = new ResizeObserver(appear);
  resized.observe(player.view);
  const forgetTheme = onThemeChange(retheme);
  const hear = (message) => player.hear(message);
  const moved = () => player.seek(model.get("at").frame, model.get("at"));
  model.on("msg:custom", hear);
  model.on("change:at", moved);
  return () => {
    forget(seen);
    forget(resized);
    forgetTheme();
    model.off("msg:custom", hear);
    model.off("change:at", moved);
    player.close();
    player = null;
  };
}

export default { render };
