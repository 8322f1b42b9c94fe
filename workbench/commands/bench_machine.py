"""What a speed depends on beside the code: the processor, which library does the products, and who else computes."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import numpy as np
import threadpoolctl

from workbench.envs.workers import usable_cpus
from workbench.networks import kernels
from workbench.networks.gradients import torch_threads
from workbench.sweeps import provenance

SIDE = 512
PRODUCTS = 8


def machine_lines() -> list[str]:
    """Processor and versions; what does the products, and how fast; clock and caches where they are told."""
    import mujoco
    import torch

    about = (
        f"{provenance.processor()}, {usable_cpus()} cores, {torch.get_num_threads()} torch threads; "
        f"Python {platform.python_version()}, torch {torch.__version__}, MuJoCo {mujoco.__version__}"
    )
    speed = f"products of compiled code: {product_rate():,.0f} Gflop/s a core by {'; '.join(libraries())}"
    return [about, speed, *([caches()] if caches() else [])]


def product_rate() -> float:
    """Billions of float32 operations a second of one core in products of 512 × 512, by what compiled code calls."""
    a = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    out = np.empty_like(a)
    with torch_threads(1):
        _multiply(a, out)
        seconds = []
        for _ in range(PRODUCTS):
            started = time.perf_counter()
            _multiply(a, out)
            seconds.append(time.perf_counter() - started)
    return 2 * SIDE**3 / min(seconds) / 1e9


@kernels.compiled
def _multiply(a: kernels.Array, out: kernels.Array) -> None:
    np.dot(a, a, out)


def libraries() -> list[str]:
    """The BLAS that are loaded, with the processor that each takes this one for."""
    found = (each for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas")
    names = (f"{each['internal_api']} {each['version']} ({each.get('architecture') or '?'})" for each in found)
    return list(dict.fromkeys(names))


def caches() -> str:
    """Sizes of the first core's caches, and its clock; empty where the system does not tell."""
    sizes = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            sizes.append(f"L{level} {size}")
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    clocks = [f"{float(line.split(':')[1]):,.0f} MHz" for line in lines if line.startswith("cpu MHz")][:1]
    return ", ".join([*sizes, *clocks])


class Neighbours:
    """How much of the cores' time went to other processes, or to another system on the same machine, since it began."""

    def __init__(self) -> None:
        self._before = self._spent()

    @staticmethod
    def _spent() -> tuple[float, float, float]:
        """Seconds of all cores: in all, busy or stolen, and this process's own with its children's that have ended."""
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        stat = Path("/proc/stat")
        if not stat.exists():
            return float("nan"), float("nan"), own
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in stat.read_text().split("\n", 1)[0].split()[1:9]]
        idle = ticks[3] + ticks[4]
        return sum(ticks), sum(ticks) - idle, own

    def share(self) -> float:
        """In [0, 1]; NaN where the system does not tell."""
        total, busy, own = (now - then for now, then in zip(self._spent(), self._before, strict=True))
        return max(0.0, busy - own) / total if total else 0.0
