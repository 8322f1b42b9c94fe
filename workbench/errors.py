"""The errors users meet, and the one way in which unknown names are refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WorkbenchError(Exception):
    """Base of the errors that are the workbench's own, beside ``ValueError`` and ``TypeError`` for bad arguments."""


class NonFiniteError(WorkbenchError):
    """NaN or inf came from an environment, a reward or a loss; the last good state was kept."""


class CheckpointError(WorkbenchError):
    """A file that is no checkpoint, or not one that fits: truncated, altered, foreign, of another version."""


class SnapshotUnsupported(WorkbenchError):  # noqa: N818 - it names a missing ability, not a failure
    """The environment cannot be copied, so what needs a copy (fork, rewind, exact resume) is not possible."""


class UnknownNameError(ValueError, AttributeError):
    """A name that is none of those known. Also an ``AttributeError``, since options are set as attributes."""


def unknown_name(kind: str, name: object, known: Iterable[object], remedy: str = "") -> UnknownNameError:
    """The error for a name that is none of ``known``, with the nearest known one suggested.

    >>> str(unknown_name("option", "clip_epsilion", ["clip_epsilon", "epochs"]))
    "unknown option 'clip_epsilion'; did you mean 'clip_epsilon'? Known: clip_epsilon, epochs."
    """
    names = [str(option) for option in known]
    # Case differs more often than letters do, so compare without it and answer with the real spelling.
    folded = {option.casefold(): option for option in names}
    near = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.5)
    suggestion = f"; did you mean {folded[near[0]]!r}?" if near else "."
    message = f"unknown {kind} {name!r}{suggestion} Known: {', '.join(names) or 'none'}."
    return UnknownNameError(f"{message} {remedy}".rstrip())
