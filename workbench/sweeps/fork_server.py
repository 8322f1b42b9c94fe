"""A process that has imported what a sweep's kernels need, and forks one for each run.

Started by path with a socket's descriptor and the modules to import; ``kernels.py`` has the other end. A forked kernel
is what a freshly started one would be after its first imports: nothing has run in it, and what imports seed at random
is seeded anew. A process with other threads cannot be forked safely, so one that has any after its imports says that it
is unfit, and kernels are then started the ordinary way.

Each request is one packet: ``{"fork": {argv, environment, directory, keep}}`` with descriptors for the output and to
keep open, or ``{"signal": number, "pid": pid}``. Answers: ``{"ready": true}`` or ``{"unfit": why}`` once, ``{"forked":
pid}``, and ``{"ended": pid, "status": status}`` for every child. When the other end hangs up, all children are killed.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder, where scripts look first: no kernel would

import ctypes
import gc
import importlib
import json
import operator
import os
import select
import signal
import socket
from typing import Any

PACKET = 1 << 20  # the largest request: an environment and a command line
DESCRIPTORS = 4
DIE_WITH_PARENT = 1  # Linux: PR_SET_PDEATHSIG


class Job(dict[str, Any]):
    """What a forked child is to become."""


def serve(line: socket.socket) -> Job | None:
    """Fork a child for each request until the line goes dead; returns the job in a child, None in the server."""
    children: set[int] = set()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        while True:
            ready, _, _ = select.select([line.fileno(), woken], [], [])
            if woken in ready:
                os.read(woken, 512)
                bury(line, children)
            if line.fileno() not in ready:
                continue
            packet, descriptors, _, _ = socket.recv_fds(line, PACKET, DESCRIPTORS)
            if not packet:
                return None
            request = json.loads(packet)
            if "signal" in request:
                if request["pid"] in children:
                    send_signal(request["pid"], request["signal"])
                continue
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for inherited in (woken, wake, line.fileno()):
                    os.close(inherited)
                return Job(request["fork"], descriptors=descriptors)
            children.add(pid)
            for descriptor in descriptors:
                os.close(descriptor)
            line.send(json.dumps({"forked": pid}).encode())
    except (BrokenPipeError, ConnectionResetError):
        return None
    finally:
        if os.getpid() == SERVER:
            for pid in children:
                send_signal(pid, signal.SIGKILL)


def send_signal(pid: int, number: int) -> None:
    """A signal to a child that nobody has waited for, so that the number is its own; a kill to its whole group."""
    try:
        (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)
    except ProcessLookupError:  # so young that it leads no group yet
        os.kill(pid, number)


def bury(line: socket.socket, children: set[int]) -> None:
    """Tell of every child that has ended."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        children.discard(pid)
        line.send(json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}).encode())


def become_kernel(job: Job) -> None:
    """Turn a forked child into the kernel that was asked for."""
    os.setsid()
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != SERVER:
        os._exit(1)  # the server died before the line above
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output, *keep = job["descriptors"]
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    for descriptor in keep:  # the claim on the run, released when nobody holds it open any more
        os.set_inheritable(descriptor, False)
    os.environ.clear()
    os.environ.update(job["environment"], JPY_PARENT_PID=str(SERVER))
    os.chdir(job["directory"])
    sys.argv = job["argv"]
    for name, seed in (("numpy", "random.seed"), ("torch", "seed")):
        if name in sys.modules:  # its global stream was seeded when it was imported, once for all children
            operator.attrgetter(seed)(sys.modules[name])()
    importlib.import_module("ipykernel.kernelapp").launch_new_instance()


def imported(modules: list[str]) -> str:
    """Import what can be; why this process is unfit to fork afterwards, or nothing."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # the notebook will fail on it too, and say so where it belongs
            continue
    threads = [name for name in os.listdir("/proc/self/task") if int(name) != SERVER]
    return f"its imports started {len(threads)} threads" if threads else ""


SERVER = os.getpid()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["JPY_PARENT_PID"] = str(SERVER)  # read by ipykernel when it is imported
    end = socket.socket(fileno=int(sys.argv[1]))
    unfit = imported(["ipykernel.kernelapp", *sys.argv[2].split(",")])
    end.send(json.dumps({"unfit": unfit} if unfit else {"ready": True}).encode())
    gc.freeze()
    found = None if unfit else serve(end)
    if found is not None:
        become_kernel(found)
