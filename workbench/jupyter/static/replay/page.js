// Stands in for the widget's model, whose kernel is not there: what it would send lies in the page.

const from64 = async (text) =>
  new DataView(await (await fetch(`data:application/octet-stream;base64,${text}`)).arrayBuffer());
const held = (id) => document.getElementById(id).textContent;
const state = {
  spec: JSON.parse(held("spec")),
  block: await from64(held("block")),
  pictures: await from64(held("pictures")),
  at: JSON.parse(held("at")),
};
const model = { get: (name) => state[name], set() {}, save_changes() {}, send() {}, on() {}, off() {} };
if (state.spec.scene) page.scripts.k3d = from64(held("k3d")).then((data) => runScript("k3d", data));
render({ model, el: document.getElementById("player") });
