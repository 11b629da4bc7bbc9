"""Windows and watermarks: when a row is due, when a window is closed. Pure functions of recorded numbers.

    partition watermark   its greatest accepted event time minus the disorder bound; 0 before its first event
    loop watermark        the minimum over partitions that are not idle. It never falls, and a partition that appears
                          later joins at it: it can hold the watermark where it is, not pull it back
    idle                  the end of the partition is known and equal to the committed position for `idle_us`.
                          An outage is not idleness: while the end is unknown, `idle_since_us` is None
    all idle              the watermark moves on from the newest partition by the time idle beyond `idle_us`, never to
                          `now` (a pause in a replay of last year must not make the rest of it late)
    declared              a drain, or a caller that knows (the backtest), declares all streams complete

`now_us` is an argument and stands in every shard record, so a restart and a replay decide alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

__all__ = ["Horizon", "PartitionClock", "advance", "closed_us", "drained_us", "idle_since", "newest", "window_start_us"]


@dataclass(frozen=True)
class Horizon:
    """The durations of a loop, in microseconds."""

    window_us: int
    disorder_us: int
    idle_us: int
    attribution_us: int
    lateness_us: int = 0


@dataclass(frozen=True)
class PartitionClock:
    """How far one partition of one stream is, as its range in a shard record says."""

    watermark_us: int = 0
    idle_since_us: int | None = None

    def idle(self, now_us: int, idle_us: int) -> bool:
        return self.idle_since_us is not None and now_us - self.idle_since_us >= idle_us


def window_start_us(times_us: np.ndarray, window_us: int) -> np.ndarray:
    """Start of the window of each event time: int64 [n] -> int64 [n].

    >>> import numpy as np
    >>> window_start_us(np.array([0, 59_999_999, 60_000_000]), 60_000_000).tolist()
    [0, 0, 60000000]
    """
    starts: np.ndarray = times_us - times_us % window_us
    return starts


def newest(watermark_us: int, event_time_us: int | None, disorder_us: int) -> int:
    """Watermark of a partition after its newest accepted event.

    >>> newest(0, 10_000_000, 5_000_000), newest(7_000_000, 10_000_000, 5_000_000), newest(7_000_000, None, 5_000_000)
    (5000000, 7000000, 7000000)
    """
    return watermark_us if event_time_us is None else max(watermark_us, event_time_us - disorder_us)


def idle_since(previous_us: int | None, *, caught_up: bool, moved: bool, now_us: int) -> int | None:
    """Since when a partition has nothing more. `caught_up`: its end is known and is where this tick stops reading.

    A time after now is of a clock that was set back since: else the partition would hold the loop for so long.
    """
    if not caught_up:
        return None
    return now_us if moved or previous_us is None else min(previous_us, now_us)


def advance(
    previous_us: int, clocks: Sequence[PartitionClock], *, now_us: int, idle_us: int, complete_until_us: int = 0
) -> int:
    """The loop's watermark after a tick that left the partitions at `clocks`.

    >>> busy, silent = PartitionClock(100), PartitionClock(40, idle_since_us=1_000)
    >>> advance(0, [busy, silent], now_us=1_500, idle_us=1_000)      # silent, but not yet idle: it holds the loop
    40
    >>> advance(40, [busy, silent], now_us=2_000, idle_us=1_000)     # idle
    100
    >>> advance(100, [PartitionClock(100, 1_500), silent], now_us=2_600, idle_us=1_000)   # all idle: 100 us beyond
    200
    """
    holding = [clock.watermark_us for clock in clocks if not clock.idle(now_us, idle_us)]
    if holding:
        reached = min(holding)
    else:
        reached = max((clock.watermark_us for clock in clocks), default=0)
        if reached:
            reached += now_us - idle_us - max(clock.idle_since_us or 0 for clock in clocks)
    return max(previous_us, reached, complete_until_us)


def drained_us(clocks: Sequence[PartitionClock], horizon: Horizon) -> int:
    """The event time by which everything that was read is decided and every window closed: what a drain declares."""
    newest_us = max((clock.watermark_us for clock in clocks), default=0)
    if not newest_us:
        return 0
    return newest_us + horizon.disorder_us + horizon.attribution_us + horizon.lateness_us + horizon.window_us


def closed_us(watermark_us: int, horizon: Horizon) -> int:
    """Windows that end at or before this time are closed: nothing more comes for them."""
    return max(0, watermark_us - horizon.attribution_us - horizon.lateness_us)
