"""``python -m workbench``: what needs no notebook."""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path
from typing import Any

from workbench.commands import run_sweep, tutorials
from workbench.commands.bench import TASKS, bench
from workbench.commands.train import train
from workbench.errors import WorkbenchError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workbench", description=__doc__)
    commands = parser.add_subparsers(required=True)

    benching = commands.add_parser("bench", help="how fast this machine is: raw physics, stepping, training")
    some = ", ".join(repr(task) for task in TASKS)
    benching.add_argument("tasks", nargs="*", help=f"some of {some}; by default all, and memory, imports, two seeds")
    benching.add_argument("--rounds", type=_positive, default=5, help="alternating rounds of which medians are taken")
    benching.add_argument("--json", action="store_true", help="print JSON instead of a table")
    benching.set_defaults(act=_bench)

    training = commands.add_parser("train", help="train some seeds, resumably; histories as CSV")
    training.add_argument("method", help="such as happo")
    training.add_argument("scenario", help="such as HalfCheetah")
    training.add_argument("agent_conf", help="such as 2x3")
    training.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED")
    training.add_argument("--env-steps", type=_positive, default=1_000_000, help="of each seed (default: 1,000,000)")
    training.add_argument("--directory", required=True, help="where checkpoints and history.csv go; resumed if there")
    training.add_argument("--reference", action="store_true", help="start from the settings tuned for this task")
    training.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, repeatable")
    training.set_defaults(act=_train)

    sweeping = commands.add_parser("sweep", help="run a notebook many times; status 0 tells that all finished")
    run_sweep.add_arguments(sweeping)
    sweeping.set_defaults(act=run_sweep.sweep)

    studying = commands.add_parser("study", help="do what a study lacks; what has finished is kept and never repeated")
    run_sweep.add_study_arguments(studying)
    studying.set_defaults(act=run_sweep.study)

    copying = commands.add_parser("notebooks", help="copy the tutorials, and the data that they read, to a directory")
    copying.add_argument("directory", help="made if it is not there; files there that differ are left alone")
    copying.set_defaults(act=_notebooks)

    options = parser.parse_args(arguments)
    try:
        return options.act(options) or 0
    except (ValueError, OSError, WorkbenchError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept, and the same command goes on from there.", file=sys.stderr)
        return run_sweep.INTERRUPTED


def _bench(options: argparse.Namespace) -> None:
    found = bench(options.tasks, rounds=options.rounds, say=(lambda _: None) if options.json else print)
    if options.json:
        print(found.as_json())


def _train(options: argparse.Namespace) -> None:
    train(
        options.method,
        options.scenario,
        options.agent_conf,
        seeds=options.seeds,
        env_steps=options.env_steps,
        directory=options.directory,
        reference=options.reference,
        settings=dict(map(_setting, options.set)),
    )


def _notebooks(options: argparse.Namespace) -> None:
    copied, kept = tutorials.copy(options.directory)
    for path in kept:
        print(f"left alone, since it was changed: {path}")
    print(f"{sum(path.suffix == '.ipynb' for path in copied)} notebooks copied. Begin with")
    print(f'  jupyter lab "{Path(options.directory) / tutorials.FIRST}"')


def _positive(text: str) -> int:
    """A whole number above 0; 1e6 is one, too."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value < 1 or not value.is_integer():
        raise argparse.ArgumentTypeError(f"{text!r}; expected an integer ≥ 1, such as 1000000 or 1e6")
    return int(value)


def _setting(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``: the value as a Python literal where it is one, else as text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text!r}: expected NAME=VALUE, such as --set clip_epsilon=0.1")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    sys.exit(main())
