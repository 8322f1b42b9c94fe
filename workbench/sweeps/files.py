"""JSON in files that are whole or not there, and lines that grow while others read them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench.running.atomic import write_atomically

MOST_BYTES = 45  # of a value in a file's name, which may hold several and 255 in all

Json = dict[str, Any]  # an object as it was read; its keys are known to the code that wrote it


def file_name(value: object) -> str:
    """A value as (a part of) a file's name, one for each value: never a path, never hidden, never too long.

    What is plain stays as it is; anything else loses the characters that mean something to some system, and gains a
    digest that keeps it apart from its like.

    >>> file_name("Ant-4x2"), file_name("../../Ant")
    ('Ant-4x2', 'Ant-fd192fa1')
    """
    text = str(value)
    plain = re.sub(r"[^\w.+=-]+", "-", text).strip(".-").encode()[:MOST_BYTES].decode(errors="ignore")
    if plain and plain == text:
        return plain
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
    return f"{plain}-{digest[:8]}".lstrip("-")


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(text.encode())


def json_value(value: object, *, name_infinities: bool = False) -> Any:
    """A value as strict JSON has it: tuples as lists, NumPy's numbers as Python's, NaN and infinities as null.

    With ``name_infinities`` an infinity stays apart from other values: where values are compared.

    >>> json_value({"a": (1, float("inf"))}), json_value(float("inf"), name_infinities=True)
    ({'a': [1, None]}, {'float': 'inf'})
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)} if name_infinities and math.isinf(value) else None
    if isinstance(value, Mapping):
        return {str(name): json_value(item, name_infinities=name_infinities) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, name_infinities=name_infinities) for item in value]
    return value


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Replace a file by one object."""
    write_text(path, json.dumps(json_value(value), indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Json | None:
    """The object in a file; None where there is none, or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def append_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Append rows, one JSON object a line, in one write."""
    with open(path, "ab") as file:
        file.write(_lines(rows).encode())


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Replace a file by rows."""
    write_text(path, _lines(rows))


def read_lines(path: Path, last_bytes: int | None = None) -> list[Json]:
    """The rows of a file that may be growing, or those in its last bytes; a line without its newline is not read."""
    try:
        with open(path, "rb") as file:
            if last_bytes is not None:
                file.seek(max(0, file.seek(0, os.SEEK_END) - last_bytes))
            content = file.read()
    except OSError:
        return []
    rows = []
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def last_line(path: Path) -> Json:
    """The newest row of a file, without reading all of it; {} where there is none."""
    return next(reversed(read_lines(path, last_bytes=1 << 14)), {})


def _lines(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(json_value(row), ensure_ascii=False) + "\n" for row in rows)
