"""The player as a page of its own: everything inlined, nothing fetched, plays from disk."""

from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING

from workbench.jupyter.assets import packed, script, style
from workbench.jupyter.replay.player_widget import SCRIPTS

if TYPE_CHECKING:
    from workbench.jupyter.replay.viewer import Replay

# JupyterLab's own colours of text and ground, for a page that has none.
THEME = """
:root { color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root {
    --jp-ui-font-color1: #e4e6ea;
    --jp-ui-font-color2: #a6adb8;
    --jp-layout-color1: #111;
    --jp-layout-color2: #212225;
    --jp-border-color1: #4a4d52;
    --jp-brand-color1: #2f8ee0;
    --jp-error-color1: #ef5350;
  }
}
body { margin: 16px; background: var(--jp-layout-color1, #fff); }
.wb-replay { margin: 0 auto; }
"""

# Stands in for the widget's model, whose kernel is not there: what it would send lies in the page.
MODEL = """
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
"""


def page(replay: Replay) -> str:
    """The HTML of a page that plays ``replay``."""
    spec, block, pictures = replay.data()
    spec["startable"] = False
    at = {"take": replay.take, "episode": replay.episode, "frame": replay.frame}
    library = packed("k3d") if spec["kind"] == "poses" else b""
    code = script("page", *SCRIPTS).replace("export default { render };", MODEL)
    data = {"spec": _json(spec), "at": _json(at), "block": _base64(block), "pictures": _base64(pictures)}
    data["k3d"] = _base64(library)
    held = "\n".join(f'<script type="text/plain" id="{name}">{text}</script>' for name, text in data.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{html.escape(repr(replay))}</title>
<style>{THEME}{style("replay/player")}</style>
</head>
<body>
<div id="player"></div>
{held}
<script type="module">
{code}
</script>
</body>
</html>
"""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _json(value: object) -> str:
    return json.dumps(value).replace("<", "\\u003c")
