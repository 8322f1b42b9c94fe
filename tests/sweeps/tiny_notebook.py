"""A notebook for tests of sweeps: a run of a moment that can be killed anywhere and goes on from its last step."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

PARAMETERS = """\
seed: int = 0  # ≥ 0: which run
order: str = "random"  # one of random, fixed, reversed: of nothing in particular
rate: float = 0.1  # in (0, 1]: how steep
sizes: tuple[int, ...] = (4, 4)  # of anything
env_steps: int = 20  # ≥ 1: how many lines it writes
pause: float = 0.0  # ≥ 0: seconds before each line
fails: bool = False  # whether it fails in the middle
directory: str | None = None  # where the results go
"""

WORK = '''\
import hashlib, json, os, pathlib, time

place = pathlib.Path(directory)
(place / "checkpoints").mkdir(exist_ok=True)
done = sorted(int(file.name) for file in (place / "checkpoints").iterdir())
begun_at = done[-1] if done else 0
metrics = place / "metrics.jsonl"
lines = metrics.read_bytes().splitlines(keepends=True) if metrics.exists() else []
metrics.write_bytes(b"".join(lines[:begun_at]))


def value(step):
    """The same on every machine: pseudo-random, rising, and different for every parameter."""
    key = json.dumps([seed, order, rate, list(sizes), step]).encode()
    noise = int.from_bytes(hashlib.sha256(key).digest()[:6], "big") / 2**48
    return rate * step + noise


for step in range(begun_at + 1, env_steps + 1):
    time.sleep(pause)
    if fails and step > env_steps / 2:
        raise ValueError(f"seed {seed} fails at step {step}")
    row = {"iteration": step - 1, "env_steps": step, "return": value(step), "seconds": time.perf_counter()}
    with open(metrics, "ab") as file:
        file.write(json.dumps(row).encode() + b"\\n")
    (place / "checkpoints" / f"{step:06d}").touch()
'''

END = """\
(place / "summary.json").write_text(json.dumps({"return": value(env_steps), "steered": False, "begun_at": begun_at}))
with open(place / "completed", "a") as file:
    file.write("once\\n")
"""


def cell(source: str, *tags: str) -> dict:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"tags": list(tags)} if tags else {},
        "outputs": [],
        "source": source,
    }


def write_notebook(path: Path, *sources: str, parameters: str | None = PARAMETERS) -> Path:
    """A notebook of these cells after its parameters; without sources, the tiny experiment."""
    first = [] if parameters is None else [cell(parameters, "parameters")]
    content = {
        "cells": [*first, *map(cell, sources or (WORK, END))],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def value_of(seed: int, step: int, order: str = "random", rate: float = 0.1, sizes: tuple[int, ...] = (4, 4)) -> float:
    """The return that the tiny experiment writes."""
    key = json.dumps([seed, order, rate, list(sizes), step]).encode()
    return rate * step + int.from_bytes(hashlib.sha256(key).digest()[:6], "big") / 2**48
