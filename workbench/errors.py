"""The errors users meet, and the one way in which unknown names, and what is no path, are refused."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


class WorkbenchError(Exception):
    """Base of the errors that are the workbench's own, beside ``ValueError`` and ``TypeError`` for bad arguments."""


class NonFiniteError(WorkbenchError):
    """NaN or inf came from an environment, a reward or a loss; the last good state was kept."""


class CheckpointError(WorkbenchError):
    """A file that is no checkpoint, or not one that fits: truncated, altered, foreign, of another version."""


class SnapshotUnsupported(WorkbenchError):  # noqa: N818 - it names a missing ability, not a failure
    """The environment cannot be copied, so what needs a copy (fork, rewind, exact resume) is not possible."""


class EnvironmentFailedError(WorkbenchError):
    """An environment's own code raised an error; the message names what was asked of it, and the error is the cause."""


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


def file_to_write(path: object, suffix: str) -> Path:
    """``path`` as one of a file of that kind in a directory that is there, made if need be."""
    place = path_of("path", path)
    if place.suffix.lower() != suffix:
        raise ValueError(f"path is {str(place)!r}; expected the name of a file that ends in {suffix}.")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def path_of(name: str, value: object) -> Path:
    """``value`` as a path, ``~`` being the home; ``TypeError`` or ``ValueError`` by the argument's name for none.

    >>> path_of("directory", None)
    Traceback (most recent call last):
    TypeError: directory is None; expected a path, such as 'runs/ant' or a pathlib.Path.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{name} is {value!r}; expected a path, such as 'runs/ant' or a pathlib.Path.")
    if not os.fspath(value).strip():
        raise ValueError(f"{name} is {value!r}; expected a path, such as 'runs/ant'; '.' is the current directory.")
    return Path(value).expanduser()
