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


def page(replay: Replay) -> str:
    """The HTML of a page that plays ``replay``."""
    spec, block, pictures = replay.data()
    spec["startable"] = False
    library = packed("k3d") if spec["kind"] == "poses" else b""
    code = script("page", *SCRIPTS, "replay/page").replace("export default { render };", "")
    data = {"spec": _json(spec), "at": _json(replay._shown), "block": _base64(block), "pictures": _base64(pictures)}
    data["k3d"] = _base64(library)
    held = "\n".join(f'<script type="text/plain" id="{name}">{text}</script>' for name, text in data.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{html.escape(repr(replay))}</title>
<style>{style("replay/page", "replay/player")}</style>
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
