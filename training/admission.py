"""Which new ids get a row: those of which enough events came lately. The others share the unknown row of their feature.

Most ids of an open vocabulary come once and never again: a row for each would fill the table with what nobody asks for.
So with `admission` k an id of a feature has no row before its k-th event, and what its events teach goes to the row of
`unknown_id(feature)`, which answers for every id without a row (headrace/scoring.py).

Events of ids without a row are counted in a count-min sketch (Cormode, Muthukrishnan: An improved data stream summary,
J. Algorithms 55, 2005): `DEPTH` rows of `WIDTH` counters, an id adds to one of each row, its count is at most the
smallest of them. Counts of others can only raise it: at worst an id is admitted early. Two sketches, the present and
the one before, share the work: after `WIDTH` / 2 ids the present one becomes the one before, so that memory is fixed
and "lately" is the last 131,072 to 262,144 ids without a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from headrace.ids import unknown_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.ids import Ids

Counts = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int64]

DEPTH: Final = 4
WIDTH: Final = 1 << 18


class Sketch:
    """Counts of ids. Equal sketches that count the same stay equal; `undo` goes back to `begin`."""

    def __init__(self) -> None:
        self._now, self._before = _zeros(), _zeros()
        self._ids = 0
        self._journal: list[Callable[[], None]] | None = None

    def count(self, ids: Ids, events: Places) -> Places:
        """Adds `events` int64 [n] of `ids` int64 [n], each once -> their counts int64 [n], not less than they are."""
        some = WIDTH // 2
        parts = [self._count(ids[at : at + some], events[at : at + some]) for at in range(0, len(ids), some)]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _count(self, ids: Ids, events: Places) -> Places:
        if self._ids >= WIDTH // 2:
            self._turn()
        places = _places(ids)
        added = events.astype(np.uint32)
        for row, at in enumerate(places):
            np.add.at(self._now[row], at, added)
        self._ids += len(ids)
        self._note(lambda: self._subtract(places, added))
        counts = [self._now[row, at].astype(np.int64) + self._before[row, at] for row, at in enumerate(places)]
        smallest: Places = np.min(counts, axis=0)
        return smallest

    def begin(self) -> None:
        """From here on `undo` can take back what is counted."""
        self._journal = []

    def undo(self) -> None:
        """As it was at `begin`."""
        for taken_back in reversed(self._journal or []):
            taken_back()
        self.settle()

    def settle(self) -> None:
        """Forgets the journal."""
        self._journal = None

    def arrays(self) -> dict[str, np.ndarray]:
        """now, before: uint32 [DEPTH, WIDTH]; ids: int64 [1]."""
        return {"now": self._now.copy(), "before": self._before.copy(), "ids": np.array([self._ids])}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The inverse of `arrays`; empty for an empty mapping."""
        self._now, self._before = (np.array(arrays.get(name, _zeros())) for name in ("now", "before"))
        self._ids = int(arrays["ids"][0]) if arrays else 0

    def _turn(self) -> None:
        before = self._now, self._before, self._ids
        self._now, self._before, self._ids = _zeros(), self._now, 0
        self._note(lambda: self._again(*before))

    def _again(self, now: Counts, before: Counts, ids: int) -> None:
        self._now, self._before, self._ids = now, before, ids

    def _subtract(self, places: list[Places], events: Counts) -> None:
        for row, at in enumerate(places):
            np.subtract.at(self._now[row], at, events)
        self._ids -= len(places[0])

    def _note(self, taken_back: Callable[[], None]) -> None:
        if self._journal is not None:
            self._journal.append(taken_back)


def _zeros() -> Counts:
    return np.zeros((DEPTH, WIDTH), np.uint32)


def _places(ids: Ids) -> list[Places]:
    """Per row of a sketch, the counters of `ids`: bits of their hash, mixed once more for each row."""
    mixed, places = ids.astype(np.uint64), []
    for _ in range(DEPTH):
        mixed = mixed * np.uint64(0xD6E8FEB86659FD93)  # odd: a permutation
        mixed = mixed ^ (mixed >> np.uint64(32))
        places.append((mixed >> np.uint64(7)).astype(np.int64) & (WIDTH - 1))
    return places


@dataclass(frozen=True)
class Asked:
    """ids: int64 [k], each once, that are to have a row; places: int64 [u], the position there of each id of a column.

    own: how many of `ids`, the first ones, are of the column: one more is the unknown id.
    """

    ids: Ids
    places: Places
    own: int


@dataclass(frozen=True)
class Admission:
    """events: from how many on an id has a row, of each feature for which that is more than one."""

    events: Mapping[str, int]

    def asked(self, feature: str, ids: Ids, events: Places, known: npt.NDArray[np.bool_], sketch: Sketch) -> Asked:
        """What a record asks rows for. ids, events: int64 [u], of how many events each is; known: bool [u], has one."""
        least = self.events.get(feature, 1)
        if least == 1 or known.all():
            return everything(ids)
        new = np.flatnonzero(~known)
        refused = new[sketch.count(ids[new], np.minimum(events[new], least)) < least]
        if not len(refused):
            return everything(ids)
        kept = np.delete(np.arange(len(ids)), refused)
        places = np.full(len(ids), len(kept), np.int64)
        places[kept] = np.arange(len(kept))
        return Asked(np.append(ids[kept], unknown_id(feature)), places, len(kept))


def everything(ids: Ids) -> Asked:
    """Every id of a column has a row."""
    return Asked(ids, np.arange(len(ids)), len(ids))


def admission_of(lines: Mapping[str, Any], kinds: tuple[str, ...], usual: int) -> Admission | None:
    """From the settings of features; usual: where a feature says nothing. None if every id has a row at first sight."""
    events = {name: line.admission or usual for name, line in lines.items() if line.kind in kinds}
    more = {name: least for name, least in events.items() if least > 1}
    return Admission(more) if more else None
