"""The sources of a loop as commands look at them: where they are, and what becomes of their events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.config import Settings
    from pipelines.events import Parsed

NOW_UNKNOWN_US = 1 << 62
"""A backtest has no now: nothing lies in its future."""


def places(settings: Settings) -> dict[str, Path | None]:
    """Where each stream's source is; None = not a local file or folder."""
    found: dict[str, Path | None] = {}
    for name, stream in settings.streams.items():
        source = stream.source.removeprefix("file://")
        found[name] = Path(source) if "://" not in source else None
    return found
