"""The only place that reads the wall clock.

Event times and all times in records are int64 microseconds since 1970 UTC, in names that end in `_us`. Logic takes
`now_us` as an argument; a process passes `clock.now_us`, a test its own function.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Now = Callable[[], int]

SECOND_US = 1_000_000


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1_000


def iso(time_us: int) -> str:
    """ISO 8601 in UTC, to the second.

    >>> iso(1_388_534_399_000_000)
    '2013-12-31T23:59:59Z'
    """
    return datetime.fromtimestamp(time_us / SECOND_US, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """A span of time for people.

    >>> duration(4.24), duration(42), duration(700), duration(400_000_000)
    ('4.2 s', '42 s', '12 minutes', '4,630 days')
    """
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
