"""An executed notebook as one page: opens in any browser, with its figures, without a kernel or a network."""

from __future__ import annotations

import functools
import re
import threading
from typing import TYPE_CHECKING

import nbformat
import traitlets.config

if TYPE_CHECKING:
    from nbconvert.exporters import HTMLExporter

_LOCK = threading.Lock()

# Scripts that nbconvert's page fetches from elsewhere; nothing in a report needs them.
FETCHED = re.compile(r'<script[^>]*src="https?://[^"]*"[^>]*>\s*</script>')


def page(content: str, title: str) -> str:
    """The notebook, given as JSON, as HTML: figures as pictures, no script from outside."""
    notebook = nbformat.reads(content, as_version=4)
    with _LOCK:
        html, _ = _exporter().from_notebook_node(notebook, resources={"metadata": {"name": title}})
    return FETCHED.sub("", html)


@functools.cache
def _exporter() -> HTMLExporter:
    """Made once a process: its templates take longer to compile than to fill."""
    from nbconvert.exporters import HTMLExporter  # half a second, owed only where a report is made

    config = traitlets.config.Config()
    config.HTMLExporter.mathjax_url = ""
    exporter = HTMLExporter(config=config, template_name="lab")
    exporter.embed_images = True
    return exporter
