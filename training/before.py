"""The published table of an earlier version: the present one, seen through what would take it back there.

`PublishedTable.inverse` of each delta since then is kept (training/judge.py); a look-up takes what the oldest of them
says of an id, else what the present table says. Costs what the deltas hold, not what the table holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from headrace.delta import Bytes, Delta, Floats, Ids, Numbers
    from headrace.published import PublishedTable


@dataclass(frozen=True)
class Before:
    """`table` without its newest deltas; inverses: of these, in the order of versions. None of them is a snapshot."""

    table: PublishedTable
    inverses: tuple[Delta, ...]

    @property
    def tower(self) -> bytes | None:
        return next((delta.tower for delta in self.inverses if delta.tower is not None), self.table.tower)

    @property
    def numbers(self) -> Numbers:
        return self.inverses[0].numbers if self.inverses else self.table.numbers

    def lookup(self, table_name: str, ids: Ids) -> tuple[Floats, Bytes, npt.NDArray[np.bool_]]:
        """As `PublishedTable.lookup`."""
        scale, rows, found = self.table.lookup(table_name, ids)
        for delta in reversed(self.inverses):
            change = next(change for change in delta.changes if change.spec.name == table_name)
            at, known = _places(change.ids, ids)
            scale[known], rows[known], found[known] = change.scale[at], change.rows[at], True
            _, gone = _places(change.tombstones, ids)
            scale[gone], rows[gone], found[gone] = 0, 0, False
        return scale, rows, found


def _places(among: Ids, ids: Ids) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(places in `among` of those of `ids` that stand there, which of `ids` do)."""
    if not len(among):
        return np.empty(0, np.int64), np.zeros(len(ids), bool)
    order = np.argsort(among)
    place = np.searchsorted(among, ids, sorter=order)
    at = order[np.minimum(place, len(among) - 1)]
    known = among[at] == ids
    return at[known], known
