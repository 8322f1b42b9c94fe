"""Which browser the tests and the measurements drive."""

from __future__ import annotations

import os
import shutil

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


def find_chromium() -> str | None:
    """The browser named by ``WORKBENCH_CHROMIUM``, else the first Chromium or Chrome that is installed."""
    if named := os.environ.get("WORKBENCH_CHROMIUM"):
        return named
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)
