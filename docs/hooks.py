"""What building the documentation adds: docstrings shaped for Markdown, and the colours of code, light and dark."""

from __future__ import annotations

import re
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pygments.formatters import HtmlFormatter

# "name   meaning" at the left edge: a table of symbols, as docstrings here have them.
SYMBOLS = re.compile(r"\S.*?\S {2,}\S|\S {2,}\S")
UNDERLINE = re.compile(r"(?m)^(\w[\w ]*)\n-{3,}\n")


def as_markdown(text: str) -> str:
    """A docstring as Markdown: examples, and tables of symbols, are shown as they are written."""
    text = UNDERLINE.sub(r"**\1**\n\n", text.replace("``", "`"))
    return "\n\n".join(map(_block, re.split(r"\n\s*\n", text)))


def _block(block: str) -> str:
    first = block.split("\n", 1)[0]
    if first.startswith(">>> "):
        return f"```python\n{block}\n```"
    if SYMBOLS.match(first) and not first.startswith(("- ", "* ", "    ")):
        return f"```text\n{block.replace('`', '')}\n```"
    return block


class Docstrings(griffe.Extension):
    """Shapes every docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = as_markdown(obj.docstring.value)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the style sheet that highlighted code needs."""
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs("[data-bs-theme=dark] .highlight")
    plain = ".highlight, .highlight pre { background: transparent; }"
    css = "\n".join((light, dark, plain, plain.replace(".highlight", "[data-bs-theme=dark] .highlight")))
    files.append(File.generated(config, "highlight.css", content=css))
    return files
