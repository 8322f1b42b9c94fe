"""A table that says how it was made."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from html import escape

import pandas as pd


@dataclass(frozen=True)
class Report:
    """A table and the lines below it, which belong to it: what was taken, what left out, by which method.

    table  the numbers, to go on with
    how    one line each
    """

    table: pd.DataFrame
    how: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join([self.table.to_string(index=False, float_format=_short, na_rep="–"), *self.how])

    def _repr_html_(self) -> str:
        table = self.table.to_html(index=False, float_format=_short, na_rep="–", border=0)
        lines = "<br>".join(map(escape, self.how))
        return f"{table}<p style='font-size: 85%; opacity: 0.8; margin: 0.3em 0 0 0'>{lines}</p>"


def _short(value: float) -> str:
    return f"{value:.4g}"


def counted(n: int, noun: str, plural: str = "") -> str:
    """A number and its noun.

    >>> counted(1, "run"), counted(3, "run")
    ('1 run', '3 runs')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def span(numbers: Collection[float]) -> str:
    """The numbers of a collection in words: one, or from the least to the largest.

    >>> span([5, 5]), span([3, 10])
    ('5', '3 to 10')
    """
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
