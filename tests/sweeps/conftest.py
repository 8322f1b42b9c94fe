"""One small cluster for all tests of sweeps that do not kill it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from workbench.sweeps.engine import cluster


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """A client of two workers on this machine."""
    with cluster(workers=2) as connected:
        yield connected
