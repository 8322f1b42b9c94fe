// What is no scene of solids: an episode as a row of pictures, for environments that draw themselves (the ghost's lie
// over them, half transparent), and a game of states, drawn here.

class PictureStage {
  constructor(host, pictures) {
    this.host = host;
    this.blob = pictures;
    this.decoded = new Map();
    this.canvas = document.createElement("canvas");
    host.append(this.canvas);
    this.alive = true;
    this.ready = true;
  }

  // A picture is decoded when it is first shown; the last two hundred are kept.
  picture([offset, length]) {
    if (!this.decoded.has(offset)) {
      const data = this.blob.slice(offset, offset + length);
      this.decoded.set(offset, createImageBitmap(new Blob([data], { type: "image/png" })));
      if (this.decoded.size > 200) {
        const [oldest, image] = this.decoded.entries().next().value;
        this.decoded.delete(oldest);
        image.then((bitmap) => bitmap.close());
      }
    }
    return this.decoded.get(offset);
  }

  show(episode, frame, ghost) {
    const nearest = (one) => one.pictures[Math.min(Math.round(frame), one.frames - 1)];
    const wanted = [nearest(episode), ...(ghost ? [nearest(ghost)] : [])];
    const key = String(wanted);
    if (key === this.wanted) return;
    this.wanted = key;
    Promise.all(wanted.map((place) => this.picture(place))).then(([image, over]) => {
      if (!this.alive || this.wanted !== key) return; // overtaken by a later frame
      const { canvas } = this;
      if (canvas.width !== image.width) canvas.width = image.width;
      if (canvas.height !== image.height) canvas.height = image.height;
      const context = canvas.getContext("2d");
      context.globalAlpha = 1;
      context.drawImage(image, 0, 0);
      if (over) {
        context.globalAlpha = 0.4;
        context.drawImage(over, 0, 0);
      }
      canvas.dataset.shown = key;
    });
  }

  setMode() {}
  retheme() {}
  steer() {}
  resetCamera() {}

  dispose() {
    this.alive = false;
    for (const image of this.decoded.values()) image.then((bitmap) => bitmap.close());
    this.decoded.clear();
    this.host.replaceChildren();
  }
}

// States on a circle, the one that the team is in filled, and an arrow from the one before.
class GameStage {
  constructor(host, states) {
    this.host = host;
    this.states = states;
    this.canvas = document.createElement("canvas");
    host.append(this.canvas);
    this.alive = true;
  }

  place(state) {
    const { width, height } = this.canvas;
    const reach = this.states > 1 ? 0.38 * Math.min(width, height) : 0;
    const angle = (2 * Math.PI * state) / this.states - Math.PI / 2;
    return [width / 2 + reach * Math.cos(angle), height / 2 + reach * Math.sin(angle)];
  }

  show(episode, frame, ghost) {
    this.last = [episode, frame, ghost];
    const scale = globalThis.devicePixelRatio || 1;
    this.canvas.width = this.host.clientWidth * scale;
    this.canvas.height = this.host.clientHeight * scale;
    const context = this.canvas.getContext("2d");
    const style = getComputedStyle(this.host);
    const ink = (name) => style.getPropertyValue(name);
    const radius = Math.min(0.06, 0.9 / this.states) * Math.min(this.canvas.width, this.canvas.height);
    const at = Math.min(Math.floor(frame + 1e-6), episode.frames - 1);
    const here = episode.states[at];
    const there = ghost ? ghost.states[Math.min(Math.floor(frame + 1e-6), ghost.frames - 1)] : -1;
    context.font = `${Math.round(Math.max(radius * 0.7, 9 * scale))}px sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 1.5 * scale;
    for (let state = 0; state < this.states; state++) {
      const [x, y] = this.place(state);
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fillStyle = ink(state === here ? "--wb-accent" : "--wb-ground");
      context.fill();
      context.strokeStyle = ink("--wb-line");
      context.stroke();
      if (state === there) {
        context.beginPath();
        context.arc(x, y, radius * 1.3, 0, 2 * Math.PI);
        context.setLineDash([4 * scale, 3 * scale]);
        context.stroke();
        context.setLineDash([]);
      }
      context.fillStyle = state === here ? "#fff" : ink("--wb-muted");
      if (this.states <= 60) context.fillText(`s${state}`, x, y);
    }
    if (at > 0 && episode.states[at - 1] !== here) this.arrow(context, episode.states[at - 1], here, radius, ink("--wb-muted"));
    this.canvas.dataset.shown = here;
  }

  arrow(context, from, to, radius, color) {
    const [a, b] = this.place(from);
    const [c, d] = this.place(to);
    const length = Math.hypot(c - a, d - b);
    const [x, y] = [(c - a) / length, (d - b) / length];
    const [tip, tail] = [[c - 1.2 * radius * x, d - 1.2 * radius * y], [a + 1.2 * radius * x, b + 1.2 * radius * y]];
    context.strokeStyle = context.fillStyle = color;
    context.beginPath();
    context.moveTo(...tail);
    context.lineTo(...tip);
    context.stroke();
    const head = 0.4 * radius;
    context.beginPath();
    context.moveTo(...tip);
    context.lineTo(tip[0] - head * (x + 0.5 * y), tip[1] - head * (y - 0.5 * x));
    context.lineTo(tip[0] - head * (x - 0.5 * y), tip[1] - head * (y + 0.5 * x));
    context.fill();
  }

  retheme() {
    if (this.last) this.show(...this.last);
  }

  setMode() {}
  steer() {}
  resetCamera() {}

  dispose() {
    this.alive = false;
    this.host.replaceChildren();
  }
}
