"""Which tables stay in memory after their version was replaced, so that going back to it is an assignment.

Kept are the newest, and about one each of those that were replaced 1, 10 and 60 minutes ago (`kept`): ages fall into
the spans up to 1, up to 10, up to 60 minutes, and beyond; of each span the youngest and the oldest stay, beyond the
last one the youngest. The oldest of a span is the one that becomes the youngest of the next.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paramserver.generation import Tables

SPANS_S: Final = (60.0, 600.0, 3600.0)


def kept(ages_s: Sequence[float]) -> list[int]:
    """The positions, ascending, of the `ages_s` to keep. At most seven.

    >>> kept([0, 20, 40, 70, 300, 650, 2000, 4000, 9000])
    [0, 2, 3, 4, 5, 6, 7]
    """
    spans: dict[int, list[int]] = {}
    for place, age_s in enumerate(ages_s):
        spans.setdefault(bisect.bisect_left(SPANS_S, age_s), []).append(place)
    found: set[int] = set()
    for span, places in spans.items():
        found.add(min(places, key=lambda place: ages_s[place]))
        if span < len(SPANS_S):
            found.add(max(places, key=lambda place: ages_s[place]))
    return sorted(found)


@dataclass(frozen=True)
class _Kept:
    """`tables` are those of version `first`, and of `last`, and of holds and pins between the two."""

    tables: Tables
    first: int
    last: int
    at_s: float  # when they were last the newest


class History:
    """Tables by version, some of them; the newest among them. For one thread."""

    def __init__(self) -> None:
        self._all: list[_Kept] = []  # the newest is the last

    @property
    def versions(self) -> list[int]:
        """What `find` finds."""
        return [version for one in self._all for version in {one.first, one.last}]

    def find(self, version: int | None) -> Tables | None:
        return next((one.tables for one in self._all if version in (one.first, one.last)), None)

    def add(self, version: int, tables: Tables, now_s: float) -> None:
        """`tables` are now the newest; drops those that need not be kept any more."""
        if self._all:
            self._all[-1] = replace(self._all[-1], at_s=now_s)
        known = next((one for one in self._all if one.tables is tables), None)
        if known is not None:
            self._all.remove(known)
        self._all.append(_Kept(tables, known.first if known else version, version, now_s))
        ages_s = [now_s - one.at_s for one in self._all]
        self._all = [one for place, one in enumerate(self._all) if place in (*kept(ages_s), len(self._all) - 1)]

    def clear(self) -> None:
        self._all = []
