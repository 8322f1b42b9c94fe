"""What a worker process of a local cluster does when it starts."""

from __future__ import annotations

import signal


def dask_setup(worker: object) -> None:
    """Leave a terminal's interrupt to the client, which stops the runs where they can be taken up again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
