"""Whether a script would start its sweep again in each of its worker processes, which import it."""

from __future__ import annotations

import ast
import multiprocessing.process
import sys
import threading
from pathlib import Path

from workbench.errors import WorkbenchError


class SweepError(WorkbenchError):
    """The cluster cannot do this sweep: it cannot be started or reached, or its workers lack what they need."""


def refuse_without_guard() -> None:
    """``SweepError`` in a script that starts its sweep without a guard, and in a process that imports such a one."""
    if getattr(multiprocessing.process.current_process(), "_inheriting", False) or _is_unguarded():
        raise SweepError(
            "this script starts its sweep when it is imported, and its worker processes import it. Put what it does "
            "under `if __name__ == '__main__':`."
        )


def _is_unguarded() -> bool:
    main = sys.modules["__main__"]
    path, frame = getattr(main, "__file__", None), sys._current_frames().get(threading.main_thread().ident or 0)
    if path is None:
        return False  # a notebook, or an interactive Python: nothing that could be imported
    while frame is not None and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(main)):
        frame = frame.f_back
    if frame is None:
        return False
    try:
        statements = ast.parse(Path(path).read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return False
    around = [each for each in statements if each.lineno <= frame.f_lineno <= (each.end_lineno or each.lineno)]
    tests = [ast.unparse(each.test) for each in around if isinstance(each, ast.If)]
    return not any("__name__" in test or "process" in test for test in tests)
