"""Which rows go: those that no event has touched for their feature's `ttl`, and the stalest where there are too many.

Times are event times, never the clock, so that a backfill, a live loop and a replay drop the same rows at the same
record. Of each row are known t, the time of the newest event that had its id, and its feature, whatever the settings
are: so a setting that changes holds for all rows at the next look. After each record, with T = the time of the newest
event learned so far:

    rows with t + ttl < T go             whenever T enters another `STEPS`-th of the shortest ttl
    rows with the smallest t go,         whenever a table has more than `max_rows` that may go
    down to 15/16 of `max_rows`

so that the look through all rows is rare. Rows of categories, buckets and times, which have small vocabularies, are
kept for good. An id that comes back is a new id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int32]
Times = npt.NDArray[np.int64]
Features = npt.NDArray[np.int16]

OPEN_KINDS: Final = ("id", "ids", "cross")
"""Kinds of features whose ids may expire."""

FOR_GOOD: Final = -1
"""In the place of a feature: the row never goes."""

LONG_US: Final = 100 * 365 * 86_400 * 10**6
"""The ttl, in effect, of an open feature that has none: its rows go only where there are too many."""

STEPS: Final = 64


@dataclass(frozen=True)
class Expiry:
    """ttl_us: of each open feature, by its number; max_rows: of a table, None = as many as there are ids."""

    ttl_us: tuple[int, ...]
    max_rows: int | None = None

    def gone(self, newest_us: Times, feature: Features, live: int, before_us: int, now_us: int) -> Rows:
        """Rows that go, ascending, when a record moves T from `before_us` to `now_us`.

        newest_us: int64 [rows]; feature: int16 [rows], a number, or `FOR_GOOD`; live: how many rows have an id.
        """
        gone = np.empty(0, np.int32)
        if self._due(before_us, now_us):
            kept_us = np.array([*self.ttl_us, LONG_US])[feature]  # FOR_GOOD is the last
            gone = np.flatnonzero((newest_us + kept_us < now_us) & (feature != FOR_GOOD)).astype(np.int32)
        if self.max_rows is None or live - len(gone) <= self.max_rows:
            return gone
        left = feature != FOR_GOOD
        left[gone] = False
        may_go = np.flatnonzero(left).astype(np.int32)
        if len(may_go) <= self.max_rows:
            return gone
        many = len(may_go) - self.max_rows + self.max_rows // 16
        stalest = np.argsort(newest_us[may_go], kind="stable")[:many]
        return np.union1d(gone, may_go[stalest]).astype(np.int32)

    def _due(self, before_us: int, now_us: int) -> bool:
        step = max(min(self.ttl_us, default=LONG_US) // STEPS, 1)
        return before_us // step != now_us // step
