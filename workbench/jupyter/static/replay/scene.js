// A scene of solids in three dimensions, drawn by k3d: geometry, light, the mouse's orbiting are k3d's. Here: poses of
// any frame, a floor without end, shadows, a ghost, and a camera that follows.

const IDENTITY = new Float32Array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
const TILES = 16; // from the middle of the floor to where it has faded
const SLOW = 36; // milliseconds from one frame to the next, beyond which fewer pixels are drawn while it plays
const POSE = 7; // numbers of a pose: position, then rotation (w, x, y, z)
const INKS = {
  light: { floor: 0xf3f5f8, tile: 0.93, shadow: 0.22, nobody: 0xb4bac4 },
  dark: { floor: 0x343840, tile: 0.8, shadow: 0.55, nobody: 0x9aa1ad },
};

// Without a graphics processor every sample of a pixel costs: then none but the first.
function smoothing() {
  if (page.smoothing === undefined) {
    const context = document.createElement("canvas").getContext("webgl2");
    const info = context?.getExtension("WEBGL_debug_renderer_info");
    const name = info ? context.getParameter(info.UNMASKED_RENDERER_WEBGL) : "";
    page.smoothing = /swiftshader|llvmpipe|software|basic render/i.test(name) ? 0 : 2;
    context?.getExtension("WEBGL_lose_context")?.loseContext();
  }
  return page.smoothing;
}

function array(data, width) {
  return { data, shape: width ? [data.length / width, width] : [data.length] };
}

// A disc of tiles around the origin, each vertex as bright as its tile and fading outwards.
function tiles(size) {
  const vertices = [];
  const triangles = [];
  const shades = [];
  const opacities = [];
  for (let x = -TILES; x < TILES; x++) {
    for (let y = -TILES; y < TILES; y++) {
      const first = vertices.length / 3;
      for (const [right, up] of [[0, 0], [1, 0], [1, 1], [0, 1]]) {
        vertices.push((x + right) * size, (y + up) * size, 0);
        shades.push((x + y) & 1 ? 0xffffff : 0x000000);
        opacities.push(Math.max(0, 1 - Math.hypot(x + right, y + up) / TILES) ** 0.7);
      }
      triangles.push(first, first + 1, first + 2, first, first + 2, first + 3);
    }
  }
  return {
    vertices: array(new Float32Array(vertices), 3),
    indices: array(new Uint32Array(triangles), 3),
    colors: array(new Uint32Array(shades)),
    opacities: array(new Float32Array(opacities)),
  };
}

class SceneStage {
  // library: k3d's; scene: the solids as plain data, its arrays unpacked; ghost: the same of the ghost, or null
  constructor(library, host, scene, ghost) {
    this.library = library;
    this.host = host;
    this.scene = scene;
    this.ghost = ghost;
    this.mode = "follow";
    this.ready = false;
    this.sharpness = 1;
    this.interval = 0;
  }

  async build(dark) {
    const { K3D, ThreeJsProvider } = this.library;
    this.k3d = new K3D(ThreeJsProvider, this.host, {
      antialias: smoothing(),
      menuVisibility: false,
      gridVisible: false,
      gridAutoFit: false,
      cameraAutoFit: false,
      axesHelper: 0,
      logarithmicDepthBuffer: false,
      clearColor: -1,
      cameraMode: "orbit",
      cameraUpAxis: "z",
      cameraFov: 40,
    });
    this.world = this.k3d.getWorld();
    this.host.style.background = "none"; // the page's own, in whatever theme
    const radius = this.scene.radius;
    this.tile = 2 ** Math.round(Math.log2(Math.max(radius, 1e-3) * 0.6));
    const templates = this.scene.shapes.map((shape, i) => ({
      type: "Mesh",
      id: i + 1,
      visible: true,
      vertices: array(shape.vertices, 3),
      normals: array(shape.normals, 3),
      indices: array(Uint32Array.from(shape.triangles), 3),
      flat_shading: false,
      roughness: 0.65,
      model_matrix: array(IDENTITY, 4),
    }));
    const floor = { type: "Mesh", id: templates.length + 1, visible: true, ...tiles(this.tile) };
    // A wireframe's material knows no light; filled, that is what a floor wants.
    Object.assign(floor, { wireframe: true, alpha_mode: "blend", side: "front", model_matrix: array(IDENTITY, 4) });
    await this.k3d.load({ objects: [...templates, floor] });
    if (this.k3d.disabling) return;
    this.templates = templates.map(({ id }) => this.k3d.getObjectById(id));
    this.plain = this.k3d.getObjectById(floor.id);
    this.layFloors();
    this.solids = this.scene.parts.map((part) => this.place(part, 1));
    this.ghosts = this.ghost ? this.ghost.parts.map((part) => this.place(part, 0.38)) : [];
    this.castShadows();
    for (const template of this.templates) template.visible = false;
    this.world.camera.near = 0.02 * radius;
    this.world.camera.far = 60 * radius;
    this.ready = true;
    this.retheme(dark);
  }

  // One solid, in the colour of who moves it.
  place(part, opacity) {
    const mesh = this.templates[part.shape].clone();
    mesh.material = mesh.material.clone();
    mesh.material.transparent = opacity < 1 || part.opacity < 1;
    mesh.material.opacity = opacity * part.opacity;
    if (part.color) mesh.material.color.set(part.color);
    // Where the ghost and what it haunts coincide, the latter is seen.
    if (opacity < 1) Object.assign(mesh.material, { polygonOffset: true, polygonOffsetFactor: 2, polygonOffsetUnits: 2 });
    mesh.userData.part = part;
    if (part.pose) this.turn(mesh, part.pose, 0);
    this.world.scene.add(mesh);
    return mesh;
  }

  layFloors() {
    this.plain.material.wireframe = false;
    this.plain.material.needsUpdate = true;
    this.floors = this.scene.floors.map((floor) => {
      const mesh = this.plain.clone();
      this.turn(mesh, [...floor.position, ...floor.quaternion], 0);
      this.world.scene.add(mesh);
      return mesh;
    });
    this.plain.visible = false;
  }

  // The solids once more, pressed flat onto a level floor; a stencil keeps shadows that overlap from adding up.
  castShadows() {
    const level = this.scene.floors.find((floor) => Math.abs(floor.quaternion[0]) > 0.9999);
    this.shadows = [];
    if (!level) return;
    const z = level.position[2] + 1e-3 * this.scene.radius;
    this.flatten = this.plain.matrix.clone().set(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, z, 0, 0, 0, 1);
    const ink = this.plain.material.clone();
    Object.assign(ink, { vertexColors: false, transparent: true, depthWrite: false, side: 2 });
    Object.assign(ink, { stencilWrite: true, stencilFunc: 517, stencilRef: 1, stencilZPass: 7681 });
    ink.color.set(0x000000);
    this.shadowInk = ink;
    this.shadows = this.solids.map((solid) => {
      const shadow = solid.clone();
      shadow.material = ink;
      shadow.matrixAutoUpdate = false;
      shadow.renderOrder = 1;
      this.world.scene.add(shadow);
      return shadow;
    });
  }

  turn(mesh, poses, at) {
    mesh.position.set(poses[at], poses[at + 1], poses[at + 2]);
    mesh.quaternion.set(poses[at + 4], poses[at + 5], poses[at + 6], poses[at + 3]);
  }

  // Poses between two frames: places in a straight line, turns along the shorter way.
  pose(meshes, episode, frame) {
    const before = Math.max(0, Math.min(Math.floor(frame), episode.frames - 1));
    const share = Math.min(Math.max(frame - before, 0), 1);
    const row = POSE * this.scene.columns;
    const after = Math.min(before + 1, episode.frames - 1);
    for (const mesh of meshes) {
      const column = mesh.userData.part.column;
      if (column < 0) continue;
      const p = episode.poses;
      const a = before * row + column * POSE;
      this.turn(mesh, p, a);
      if (share > 0 && after > before) {
        const b = after * row + column * POSE;
        const q = mesh.quaternion;
        mesh.position.set(
          p[a] + share * (p[b] - p[a]),
          p[a + 1] + share * (p[b + 1] - p[a + 1]),
          p[a + 2] + share * (p[b + 2] - p[a + 2]),
        );
        q.set(
          q.x + share * (p[b + 4] - q.x),
          q.y + share * (p[b + 5] - q.y),
          q.z + share * (p[b + 6] - q.z),
          q.w + share * (p[b + 3] - q.w),
        ).normalize();
      }
      mesh.updateMatrix();
    }
  }

  // The middle of what moves.
  middle(meshes) {
    const sum = [0, 0, 0];
    let count = 0;
    for (const { position, userData } of meshes) {
      if (userData.part.column < 0) continue;
      sum[0] += position.x;
      sum[1] += position.y;
      sum[2] += position.z;
      count += 1;
    }
    return sum.map((value) => value / Math.max(count, 1));
  }

  show(episode, frame, ghost) {
    if (!this.ready || this.k3d.disabling) return;
    this.pose(this.solids, episode, frame);
    for (const mesh of this.ghosts) mesh.visible = Boolean(ghost);
    if (ghost) this.pose(this.ghosts, ghost, frame);
    this.solids.forEach((solid, i) => this.shadows[i]?.matrix.multiplyMatrices(this.flatten, solid.matrix));
    const middle = this.middle(this.solids);
    this.floors.forEach((mesh, i) => this.slide(mesh, this.scene.floors[i], middle));
    const controls = this.world.controls;
    if (!this.middleBefore) this.look(middle);
    else if (this.mode === "follow") {
      for (const [k, axis] of [[0, "x"], [1, "y"]]) {
        const moved = middle[k] - this.middleBefore[k];
        controls.target[axis] += moved;
        controls.object.position[axis] += moved;
      }
    }
    this.middleBefore = middle;
    controls.update();
    this.k3d.render();
  }

  // Endless: the floor goes along by whole pairs of tiles, so that nobody sees it move.
  slide(mesh, floor, middle) {
    const pair = 2 * this.tile;
    const [x, y, z] = floor.position;
    if (Math.abs(floor.quaternion[0]) < 0.9999) return;
    mesh.position.set(x + pair * Math.round((middle[0] - x) / pair), y + pair * Math.round((middle[1] - y) / pair), z);
  }

  // The camera's first place: at the side, so that a robot that runs along x runs to the right.
  look(middle) {
    const away = 3.5 * this.scene.radius;
    const [x, y, z] = middle;
    this.k3d.setCamera([x + 0.3 * away, y - 0.87 * away, z + 0.39 * away, x, y, z, 0, 0, 1]);
  }

  // Told how long the last frame took: where that is too long, motion goes before sharpness.
  pace(milliseconds) {
    this.interval = this.interval ? 0.8 * this.interval + 0.2 * milliseconds : Math.min(milliseconds, SLOW);
    if (this.interval < SLOW || this.sharpness <= 0.5) return;
    this.sharpness -= 0.25;
    this.interval = 0;
    this.sharpen(this.sharpness);
  }

  // What stands still is sharp.
  rest() {
    this.interval = 0;
    if (this.alive && this.sharpness < 1) this.sharpen(1);
  }

  sharpen(sharpness) {
    this.world.renderer.setPixelRatio((globalThis.devicePixelRatio || 1) * sharpness);
  }

  // It plays again, as sharp as it could the last time.
  start() {
    if (this.alive && this.sharpness < 1) this.sharpen(this.sharpness);
  }

  setMode(mode) {
    this.mode = mode;
    if (!this.ready || this.k3d.disabling) return;
    const kind = mode === "free" ? "fly" : "orbit";
    if (this.k3d.parameters.cameraMode !== kind) {
      const camera = this.world.controls.getCameraArray();
      if (kind === "orbit") camera.splice(6, 3, 0, 0, 1);
      this.k3d.setCameraMode(kind);
      this.k3d.setCamera(camera);
    }
    if (mode === "follow" && this.middleBefore) {
      const { target, object } = this.world.controls;
      const [x, y] = this.middleBefore;
      object.position.x += x - target.x;
      object.position.y += y - target.y;
      target.x = x;
      target.y = y;
      this.world.controls.update();
    }
    this.k3d.render();
  }

  // By keyboard: round the target, or, where the camera is free, through the scene.
  steer(right, up, nearer) {
    if (!this.alive) return;
    const { target, object } = this.world.controls;
    const offset = object.position.clone().sub(target);
    if (this.mode === "free") {
      const ahead = offset.clone().negate().normalize();
      const side = ahead.clone().cross(object.up).normalize();
      const step = 0.15 * this.scene.radius;
      const by = side.multiplyScalar(step * right).addScaledVector(ahead, step * (up + nearer));
      object.position.add(by);
      target.add(by);
    } else {
      const length = offset.length() * 0.92 ** nearer;
      const turned = Math.atan2(offset.y, offset.x) + 0.08 * right;
      const steep = Math.asin(offset.z / offset.length()) + 0.06 * up;
      const raised = Math.min(Math.max(steep, -1.5), 1.5);
      offset.set(Math.cos(raised) * Math.cos(turned), Math.cos(raised) * Math.sin(turned), Math.sin(raised));
      object.position.copy(target).addScaledVector(offset, length);
    }
    this.world.controls.update();
    this.k3d.render();
  }

  camera() {
    return this.world.controls.getCameraArray();
  }

  resetCamera() {
    if (!this.alive) return;
    this.setMode(this.mode === "free" ? "follow" : this.mode);
    this.look(this.middleBefore);
    this.k3d.render();
  }

  retheme(dark) {
    if (!this.ready || this.k3d.disabling) return;
    const ink = INKS[dark ? "dark" : "light"];
    this.plain.material.color.set(ink.floor);
    const colors = this.plain.geometry.attributes.color;
    const { shade } = (this.plain.userData.shade ??= { shade: Array.from(colors.array, (v, i) => (i % 4 < 3 ? v : -1)) });
    shade.forEach((v, i) => {
      if (v >= 0) colors.array[i] = v > 0.5 ? 1 : ink.tile;
    });
    colors.needsUpdate = true;
    if (this.shadowInk) this.shadowInk.opacity = ink.shadow;
    for (const mesh of [...this.solids, ...this.ghosts]) {
      if (!mesh.userData.part.color) mesh.material.color.set(ink.nobody);
    }
    this.k3d.render();
  }

  get alive() {
    return this.ready && !this.k3d.disabling;
  }

  // Where each solid is: [name, the four columns of its matrix], as it is drawn.
  matrices() {
    return this.solids.map((mesh) => [mesh.userData.part.column, [...mesh.matrix.elements]]);
  }

  dispose() {
    this.ready = false;
    // three.js lights all scenes of a page by one texture, which holds on to every renderer that ever used it until it is
    // disposed of; those that are alive send it anew.
    const known = this.world?.renderer.properties;
    for (const { material } of this.solids ?? []) known?.get(material).uniforms?.dfgLUT?.value?.dispose();
    if (this.k3d && !this.k3d.disabling) this.k3d.disable();
    forget(this.k3d?.resizeObserver);
    this.host.replaceChildren();
  }
}
