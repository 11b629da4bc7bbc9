"""id -> row number: open addressing in two flat numpy arrays, looked up and built without a Python loop over ids.

`keys` (int64, a power of two long, -1 = empty) holds ids at or after their home slot; `rows` (int32, -1 = no row)
holds the row number of the key in the same slot. Collisions go to the next slot. At most half of the slots are in use.

`updated` gives a new index and leaves the old one as it was, for readers that still hold it: it copies `rows` and
shares `keys`. Sharing is safe because a key is only ever put into an empty slot and never taken out: where an older
index meets a key of a newer one, its own `rows` says -1 there, which is the answer "no row". One thread at a time may
update the indexes that share keys; any number may look up.

The `rows` of an index that nobody has any more are kept, two at most, for the next copy of one that shares its keys. If
the copy is of one that came from it not long ago, only what changed since is copied (134 MB for 32 M slots otherwise).
Else its memory serves: writing to what the process has already is several times as fast as to new memory, which costs a
page fault for each page.

    1 M ids: build 0.1 s, 500 ids looked up in 20-60 us (`benchmarks/bench_server.py`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
Array = TypeVar("Array", Ids, Rows)
Spare = tuple[object, Rows]
"""`rows` that nobody reads any more, and the state that they are in."""

_EMPTY = -1
_ABSENT = np.int32(-1)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing
_LEAST_SLOTS = 64
_STEP = np.arange(1, 2)
_STEPS = np.arange(1, 17)
_FEW = 4096
_MOST_SPARES = 2
_STEPS_BACK = 4  # changes that an index remembers
_DEAR = 16  # a slot copied alone costs as much as so many in a row
_BLOCK = 8192  # written at a time: numpy lets no other thread work meanwhile


class IdIndex:
    """Ids (unique, >= 0) and the row number of each. Start from `IdIndex.empty()`, go on with `updated`."""

    def __init__(self, keys: Ids, rows: Rows, used: list[int], spares: list[Spare] | None = None) -> None:
        self._keys = keys
        self._rows = rows
        self._mark = object()  # of this state of `rows`
        self._changes: tuple[tuple[object, Ids], ...] = ()  # the states it came from, oldest first, and what came next
        self._spares: list[Spare] = [] if spares is None else spares  # shared like the keys
        self._used = used  # [slots taken], shared like the keys: an index on an older branch must count newer keys too
        self._mask = np.int64(len(keys) - 1)
        self._shift = np.uint64(64 - len(keys).bit_length() + 1)

    @classmethod
    def empty(cls, ids: int = 0) -> Self:
        """An index with room for `ids` ids."""
        slots = max(_LEAST_SLOTS, 1 << (2 * ids - 1).bit_length()) if ids else _LEAST_SLOTS
        return cls(np.full(slots, _EMPTY, np.int64), np.full(slots, _ABSENT, np.int32), [0])

    def __del__(self) -> None:
        if len(self._spares) < _MOST_SPARES:
            self._spares.append((self._mark, self._rows))

    def __len__(self) -> int:
        """How many ids have a row."""
        return int(np.count_nonzero(self._rows >= 0))

    @property
    def size(self) -> int:
        """Slots, used and empty."""
        return len(self._keys)

    def beside(self) -> IdIndex:
        """An empty index that shares its keys with this one: `slots` of one are those of the other."""
        return IdIndex(self._keys, np.full(len(self._rows), _ABSENT, np.int32), self._used, self._spares)

    def shares(self, other: IdIndex) -> bool:
        """Whether `slots` of one are those of the other."""
        return self._keys is other._keys

    def find(self, ids: Ids) -> Rows:
        """Row numbers int32 [n] of `ids` int64 [n]; -1 where there is none."""
        return self.at(self.slots(ids))

    def at(self, slots: Ids) -> Rows:
        """Row numbers int32 [n] at `slots` int64 [n]; -1 where there is none."""
        return self._rows.take(slots)

    def slots(self, ids: Ids) -> Ids:
        """Where `ids` int64 [n] stand, or an empty slot: int64 [n]."""
        slots = self._home(ids)
        keys = self._keys.take(slots)
        open_ = ((keys != ids) & (keys != _EMPTY)).nonzero()[0]
        while len(open_):  # few go on, some of them far: several slots at a time
            steps = _STEPS if len(open_) <= _FEW else _STEP
            at = (slots.take(open_)[:, None] + steps) & self._mask
            keys = self._keys.take(at)
            line, step = (keys == ids.take(open_)[:, None]).nonzero()  # a key never stands behind an empty slot
            slots[open_] = at[:, -1]
            slots[open_.take(line)] = at[line, step]
            if len(line) == len(open_):
                break
            empty = keys == _EMPTY
            ended = empty.any(axis=1)
            ended[line] = False
            absent = ended.nonzero()[0]
            slots[open_.take(absent)] = at[absent, empty[absent].argmax(axis=1)]
            ended[line] = True
            open_ = open_[~ended]
        return slots

    def updated(self, ids: Ids, rows: Rows, gone: Ids | None = None) -> Self:
        """A new index in which `ids` have `rows` and `gone` have none. Ids within one call are unique."""
        if not self.has_room(len(ids)) and not self.has_room(fresh := int((self.find(ids) < 0).sum())):
            live = self.items()
            after = self.empty(2 * (len(live[0]) + fresh))
            after.put(*live)
        else:
            after = type(self)(self._keys, self._copied(), self._used, self._spares)
        slots = np.concatenate([after.put(*some) for some in zip(_blocks(ids), _blocks(rows), strict=True)])
        if gone is not None and len(gone):
            slots = np.concatenate([slots, after.drop(gone)])
        return after.came_from(self, slots) if after.shares(self) else after

    def came_from(self, before: Self, slots: Ids) -> Self:
        """This one, which differs from `before` in `slots`."""
        self._changes = (*before._changes[1 - _STEPS_BACK :], (before._mark, slots))
        return self

    def _copied(self) -> Rows:
        """`rows` for the next index. Others may append to the spares meanwhile, nobody else takes from them."""
        for place in range(len(self._spares)):
            behind = self._changed_since(self._spares[place][0])
            if behind is not None and _DEAR * sum(map(len, behind)) < len(self._rows):
                _, rows = self._spares.pop(place)
                for slots in behind:
                    for some in _blocks(slots):
                        rows[some] = self._rows.take(some)
                return rows
        if not self._spares:
            return self._rows.copy()
        _, rows = self._spares.pop(0)
        np.copyto(rows, self._rows)
        return rows

    def _changed_since(self, mark: object) -> list[Ids] | None:
        """The slots that changed since that state; None if it is not known any more, or was another's."""
        marks = [one for one, _ in self._changes]
        return [slots for _, slots in self._changes[marks.index(mark) :]] if mark in marks else None

    def items(self) -> tuple[Ids, Rows]:
        """All ids that have a row, with their rows, in no particular order."""
        slots = np.flatnonzero(self._rows >= 0)
        return self._keys[slots], self._rows[slots]

    def rows(self, slots: int) -> Iterator[Rows]:
        """The rows that ids have, in no particular order, of so many slots at a time."""
        for start in range(0, len(self._rows), slots):
            some = self._rows[start : start + slots]
            yield some[some >= 0]

    def has_room(self, ids: int) -> bool:
        """Whether `ids` more can be put. Ids that were dropped take room until the index is made anew."""
        return 2 * (self._used[0] + ids) <= len(self._keys)

    def _home(self, ids: Ids) -> Ids:
        return ((ids.view(np.uint64) * _MULTIPLIER) >> self._shift).view(np.int64)

    def put(self, ids: Ids, rows: Rows) -> Ids:
        """In place, for an index that nobody else reads and that has the room (`empty(n)`). The slots int64 [n]."""
        slots = self._home(ids)
        self._mark, self._changes = object(), ()
        open_ = np.arange(len(ids))
        while len(open_):
            at = slots[open_]
            free = self._keys[at] == _EMPTY
            self._keys[at[free]] = ids[open_[free]]  # of several for one slot the last wins, the others go on
            settled = self._keys[at] == ids[open_]
            self._rows[at[settled]] = rows[open_[settled]]
            self._used[0] += int(np.count_nonzero(settled & free))
            open_ = open_[~settled]
            slots[open_] = (slots[open_] + 1) & self._mask
        return slots

    def drop(self, ids: Ids) -> Ids:
        """In place, for an index that nobody else reads. The slots int64 [n]; an empty one for an id without a row."""
        slots = self._home(ids)
        self._mark, self._changes = object(), ()
        open_ = np.arange(len(ids))
        while len(open_):
            at = slots[open_]
            keys = self._keys[at]
            self._rows[at[keys == ids[open_]]] = _ABSENT
            open_ = open_[(keys != ids[open_]) & (keys != _EMPTY)]
            slots[open_] = (slots[open_] + 1) & self._mask
        return slots


def _blocks(values: Array) -> list[Array]:
    """At least one."""
    return [values[start : start + _BLOCK] for start in range(0, max(1, len(values)), _BLOCK)]
