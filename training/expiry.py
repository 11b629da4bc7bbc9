"""Which rows go: those that no event has touched for their feature's `ttl`, and the stalest where there are too many.

Times are event times, never the clock, so that a backfill, a live loop and a replay drop the same rows at the same
record. A row is kept until t + ttl, t = the time of the newest event that had its id. After each record, with T = the
time of the newest event learned so far:

    rows with until < T go                                whenever T enters another `STEPS`-th of the shortest ttl
    the rows with the smallest until go, down to 15/16    whenever a table has more than `max_rows` that may go

so that the look through all rows is rare, and costs nothing for a loop that sets neither. Rows of categories, buckets
and times, which have small vocabularies, are kept for good. An id that comes back is a new id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

Rows = npt.NDArray[np.int32]
Times = npt.NDArray[np.int64]

OPEN_KINDS: Final = ("id", "ids", "cross")
"""Kinds of features whose ids may expire."""

FOR_GOOD: Final = np.iinfo(np.int64).max
"""Until when rows are kept that never go."""

LONG_US: Final = 100 * 365 * 86_400 * 10**6
"""The ttl, in effect, of an open feature that has none: its rows go only where there are too many."""

STEPS: Final = 64


@dataclass(frozen=True)
class Expiry:
    """ttl_us: of each feature whose rows may go; max_rows: of a table, None = as many as there are ids."""

    ttl_us: Mapping[str, int]
    max_rows: int | None = None

    def gone(self, until_us: Times, live: int, before_us: int, now_us: int) -> Rows:
        """Rows that go, ascending, when a record moves T from `before_us` to `now_us`.

        until_us: int64 [rows], of which `live` have an id; `FOR_GOOD` for the others.
        """
        gone = np.empty(0, np.int32)
        if self._due(before_us, now_us):
            gone = np.flatnonzero(until_us < now_us).astype(np.int32)
        if self.max_rows is None or live - len(gone) <= self.max_rows:
            return gone
        may_go = np.flatnonzero(until_us != FOR_GOOD).astype(np.int32)
        if len(may_go) - len(gone) <= self.max_rows:
            return gone
        many = len(may_go) - self.max_rows + self.max_rows // 16
        stalest = np.argsort(until_us[may_go], kind="stable")[:many]
        return np.union1d(gone, may_go[stalest]).astype(np.int32)

    def _due(self, before_us: int, now_us: int) -> bool:
        step = max(min(self.ttl_us.values(), default=LONG_US) // STEPS, 1)
        return before_us // step != now_us // step
