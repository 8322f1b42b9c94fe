"""``python -m workbench``: what needs no notebook."""

from __future__ import annotations

import argparse
import sys

from workbench.bench import TASKS, as_json, bench
from workbench.errors import UnknownNameError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workbench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    benching = commands.add_parser("bench", help="how fast this machine is: raw physics, stepping, training")
    benching.add_argument("tasks", nargs="*", default=list(TASKS), help=f"some of: {', '.join(TASKS)}")
    benching.add_argument("--rounds", type=int, default=5, help="alternating rounds of which medians are taken")
    benching.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    try:
        quiet = options.json
        measured = bench(options.tasks, rounds=options.rounds, say=(lambda _: None) if quiet else print)
    except UnknownNameError as error:
        parser.error(str(error))
    if quiet:
        print(as_json(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
