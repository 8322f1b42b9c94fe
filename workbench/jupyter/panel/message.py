"""What a panel says in one line, with a traceback, or code, to be folded under it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """A line of the panel; ``traceback``, of an error, or code, is folded under it."""

    text: str = ""
    error: bool = False
    traceback: str = ""

    @classmethod
    def of(cls, text: str, error: BaseException) -> Message:
        """What is said of an error."""
        return cls(text, error=True, traceback="".join(traceback.format_exception(error)))


def one_line(error: BaseException) -> str:
    """The type of an error and the first line of what it says.

    >>> one_line(ValueError("no figure.\\nsecond line")), one_line(KeyError())
    ('ValueError: no figure', 'KeyError')
    """
    first = next(iter(str(error).splitlines()), "").rstrip(".")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
