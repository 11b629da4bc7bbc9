"""The settings of a loop on the feed."""

from __future__ import annotations

import importlib.resources
from pathlib import Path


def settings_file() -> Path:
    """examples/feed/headrace.toml, in the installed package or in the checkout."""
    place = "examples/feed/headrace.toml"
    installed = Path(str(importlib.resources.files("headrace"))) / place
    return installed if installed.exists() else Path(__file__).parents[2] / place
