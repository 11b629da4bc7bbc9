"""Sparse parameters: a collisionless map id -> row, and one packed table per width with its optimiser slots.

Row 0 is the first id that was seen, row 1 the second, and so on: `ids[:used]` is the whole map, and rebuilding it from
that array gives the same rows. An id gets its row at first sight. A new row starts from `init_rows(id)`, a function of
the id and the seed alone, so that it does not matter when, or in which replay, an id appears. A row whose id was
dropped is as if it had never been in use, until the next new id takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from headrace.idindex import IdIndex, Ids, Rows
from training.expiry import FOR_GOOD
from training.runtime import tf

if TYPE_CHECKING:
    from collections.abc import Callable

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.int64]
Features = npt.NDArray[np.int16]

FIRST_CAPACITY = 1024

FREE: Final = -1
"""In the place of an id: the row has none."""

INIT_SCALE = 0.02
ACCUMULATOR = 1.0
"""Adagrad's start. With Keras' 0.1 rare rows take steps that are too large, with a mean loss none at all."""


class RowIndex:
    """id -> row, and row -> id (`ids`: int64 [used], in row order, `FREE` where an id was dropped).

    newest_us: int64 [used], feature: int16 [used]: training/expiry.py; 0 and `FOR_GOOD` where nothing is known. Free
    rows are taken again, the lowest first, so that these three are the whole state. dropped: what lost its row since
    `publish`.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._ids = np.empty(FIRST_CAPACITY, np.int64)
        self._newest_us = np.zeros(FIRST_CAPACITY, np.int64)
        self._feature = np.full(FIRST_CAPACITY, FOR_GOOD, np.int16)
        self._index = IdIndex.empty(FIRST_CAPACITY)
        self._free = np.empty(0, np.int32)  # ascending
        self.used = 0
        self.dropped: list[Ids] = []
        self.kept: int | None = None  # rows that were in use when the journal began; None: there is no journal
        self._journal: list[Callable[[], None]] = []

    def begin(self) -> None:
        """From here on `undo` can give back what is admitted, seen and dropped."""
        self.kept, self._journal = self.used, []

    def undo(self) -> None:
        """As it was at `begin`."""
        assert self.kept is not None
        for taken_back in reversed(self._journal):
            taken_back()
        self.used = self.kept
        self.settle()

    def settle(self) -> None:
        """Forgets the journal."""
        self.kept, self._journal = None, []

    @property
    def ids(self) -> Ids:
        return self._ids[: self.used]

    @property
    def newest_us(self) -> Times:
        return self._newest_us[: self.used]

    @property
    def feature(self) -> Features:
        return self._feature[: self.used]

    @property
    def live(self) -> int:
        """Rows that have an id."""
        return self.used - len(self._free)

    def find(self, ids: Ids) -> Rows:
        """ids: int64 [n] -> rows: int32 [n], -1 where the id has none."""
        return self._index.find(ids)

    def admit(self, ids: Ids) -> Rows:
        """Like `find`, after giving a row to each id that has none, in the order of `ids`; each at most once there."""
        rows = self._index.find(ids)
        new = np.flatnonzero(rows < 0)
        if len(new):
            rows[new] = self._take(len(new))
            self._put(ids[new], rows[new])
            given, where = ids[new], rows[new]
            self._note(lambda: self._take_back(given, where))
        return rows

    def see(self, rows: Rows, newest_us: Times, feature: int) -> None:
        """Events of a feature had the ids of `rows`, the newest of each at `newest_us`."""
        before = self._newest_us[rows], self._feature[rows]
        self._newest_us[rows], self._feature[rows] = np.maximum(before[0], newest_us), feature
        self._note(lambda: self._unsee(rows, *before))

    def drop(self, rows: Rows) -> None:
        """Takes their ids from `rows`, which are free then."""
        ids, newest_us, feature, free = self._ids[rows], self._newest_us[rows], self._feature[rows], self._free
        self._index.drop(ids)
        self._ids[rows] = FREE
        self._unsee(rows, 0, FOR_GOOD)
        self._free = np.union1d(free, rows).astype(np.int32)
        self.dropped.append(ids)
        self._note(lambda: self._give_back(ids, rows, newest_us, feature, free))

    def publish(self) -> None:
        """Everybody knows what was dropped."""
        self.dropped = []

    def restore(self, ids: Ids, newest_us: Times, feature: Features) -> None:
        """Becomes the map whose state these are; `dropped` is empty then, and there is no journal."""
        now = (self.ids, ids), (self.newest_us, newest_us), (self.feature, feature)
        if not self.dropped and all(np.array_equal(one, other) for one, other in now):
            self.settle()  # a table that shares this index was restored before
            return
        self._clear()
        self._grow(len(ids))
        self.used = len(ids)
        self._ids[: self.used], self._newest_us[: self.used], self._feature[: self.used] = ids, newest_us, feature
        self._free = np.flatnonzero(ids == FREE).astype(np.int32)
        self._rebuild(0)

    def _note(self, taken_back: Callable[[], None]) -> None:
        if self.kept is not None:
            self._journal.append(taken_back)

    def _take(self, rows: int) -> Rows:
        """The lowest free rows, then rows that were never in use."""
        again, before = self._free[:rows], self._free
        self._free = self._free[rows:]
        start, self.used = self.used, self.used + rows - len(again)
        self._grow(self.used)
        self._ids[start : self.used] = FREE
        self._note(lambda: self._free_again(before))
        return np.concatenate([again, np.arange(start, self.used, dtype=np.int32)])

    def _grow(self, rows: int) -> None:
        more = _doubled(len(self._ids), rows) - len(self._ids)
        if more:
            self._ids = np.concatenate([self._ids, np.full(more, FREE, np.int64)])
            self._newest_us = np.concatenate([self._newest_us, np.zeros(more, np.int64)])
            self._feature = np.concatenate([self._feature, np.full(more, FOR_GOOD, np.int16)])

    def _put(self, ids: Ids, rows: Rows) -> None:
        if not self._index.has_room(len(ids)):  # ids that were dropped leave their slots
            self._rebuild(len(ids))
        self._ids[rows] = ids
        self._index.put(ids, rows)

    def _rebuild(self, more: int) -> None:
        rows = np.flatnonzero(self.ids != FREE).astype(np.int32)
        self._index = IdIndex.empty(max(len(self._ids), 2 * (len(rows) + more)))
        self._index.put(self._ids[rows], rows)

    def _unsee(self, rows: Rows, newest_us: Times | int, feature: Features | int) -> None:
        self._newest_us[rows], self._feature[rows] = newest_us, feature

    def _free_again(self, free: Rows) -> None:
        self._free = free

    def _take_back(self, ids: Ids, rows: Rows) -> None:
        self._index.drop(ids)
        self._ids[rows] = FREE

    def _give_back(self, ids: Ids, rows: Rows, newest_us: Times, feature: Features, free: Rows) -> None:
        self._put(ids, rows)
        self._unsee(rows, newest_us, feature)
        self._free = free
        self.dropped.pop()


@dataclass(frozen=True)
class _Saved:
    """rows: int32 [n]; weights, slots: tensors float32 [n, width]; touched, started: bool [n]."""

    rows: Rows
    weights: Any
    slots: Any
    touched: npt.NDArray[np.bool_]
    started: npt.NDArray[np.bool_]


class Table:
    """Rows of one width: weights and Adagrad slots as TensorFlow variables that double when full.

    index: its own, or one that it shares with other tables.
    touched: bool [capacity], set for rows that a step may have changed, cleared by whoever publishes them.

    The journal keeps the old values of rows when they are touched for the first time after `begin`; of rows that are
    new since then it keeps nothing, since what they were is known: zeros, and slots at `ACCUMULATOR`.
    """

    def __init__(self, name: str, width: int, *, seed: int, scale: float, index: RowIndex | None = None) -> None:
        self.name, self.width = name, width
        self._seed, self._scale = seed, scale
        self.index = RowIndex() if index is None else index
        self._started = np.zeros(FIRST_CAPACITY, bool)  # rows that have their start
        self.touched = np.zeros(FIRST_CAPACITY, bool)
        self._saved = np.zeros(FIRST_CAPACITY, bool)  # rows that stand in the journal
        self._journal: list[_Saved] = []
        shape = tf.TensorShape([None, width])
        self.weights = tf.Variable(tf.zeros([FIRST_CAPACITY, width]), shape=shape, trainable=False, name=name)
        self.slots = tf.Variable(tf.fill([FIRST_CAPACITY, width], ACCUMULATOR), shape=shape, trainable=False)

    def rows_of(self, ids: Ids) -> Rows:
        """ids: int64 [n], each at most once -> rows: int32 [n]; new ids get a row. Marks them all as touched."""
        rows = self.index.admit(ids)
        self.touch(rows)
        return rows

    def touch(self, rows: Rows) -> None:
        """Marks `rows` of the index as touched, once they stand in the journal and those that are new have a start."""
        self._reserve(self.index.used)
        if self.index.kept is not None:
            self._save(rows[(rows < self.index.kept) & ~self._saved[rows]])
        new = rows[~self._started[rows]]
        if len(new):
            self._started[new] = True
            if self._scale:
                start = init_rows(self.index.ids[new], self.width, self._seed, self._scale)
                self._scatter(self.weights, new, start)
        self.touched[rows] = True

    def forget(self, rows: Rows) -> None:
        """`rows` lose what they learned: as if they had never been in use. To be called before the index drops them."""
        rows = rows[rows < len(self.touched)]
        if self.index.kept is not None:
            self._save(rows[(rows < self.index.kept) & ~self._saved[rows]])
        self._clear(rows)
        self.touched[rows] = self._started[rows] = False

    def undo(self) -> None:
        """As it was when the index began its journal; to be called before the index undoes."""
        kept = self.index.kept
        assert kept is not None
        for saved in self._journal:
            self._scatter(self.weights, saved.rows, saved.weights)
            self._scatter(self.slots, saved.rows, saved.slots)
            self.touched[saved.rows], self._started[saved.rows] = saved.touched, saved.started
        new = np.arange(kept, min(self.index.used, len(self.touched)), dtype=np.int32)
        self._clear(new)
        self.touched[new] = self._started[new] = False
        self.settle()

    def settle(self) -> None:
        """Forgets the journal."""
        for saved in self._journal:
            self._saved[saved.rows] = False
        self._journal = []

    def _save(self, rows: Rows) -> None:
        if len(rows):
            self._saved[rows] = True
            weights, slots = tf.gather(self.weights, rows), tf.gather(self.slots, rows)
            self._journal.append(_Saved(rows, weights, slots, self.touched[rows], self._started[rows]))

    def _clear(self, rows: Rows) -> None:
        """As rows are that never were in use."""
        self._scatter(self.weights, rows, np.zeros((len(rows), self.width), np.float32))
        self._scatter(self.slots, rows, np.full((len(rows), self.width), ACCUMULATOR, np.float32))

    def assign(self, rows: Rows, values: Floats) -> None:
        """Sets the weights of `rows`, which have a start, to `values` float32 [n, width]."""
        self._scatter(self.weights, rows, values)

    def read(self, rows: Rows) -> Floats:
        """rows: int32 [n] -> weights float32 [n, width]. Never copies the table."""
        values: Floats = tf.gather(self.weights, rows).numpy()
        return values

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps, in row order: the index's `ids`, `newest_us` and `feature`; weights and slots:
        float32 [used, width].
        """
        used = self.index.used
        return {
            "ids": self.index.ids.copy(),
            "newest_us": self.index.newest_us.copy(),
            "feature": self.index.feature.copy(),
            "weights": self.weights[:used].numpy(),
            "slots": self.slots[:used].numpy(),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """The inverse of `state`."""
        self.index.restore(state["ids"], state["newest_us"], state["feature"])
        rows = self.index.used
        self._reserve(rows)
        self.settle()
        for variable, fill, name in ((self.weights, 0.0, "weights"), (self.slots, ACCUMULATOR, "slots")):
            spare = np.full((len(self.touched) - rows, self.width), fill, np.float32)
            variable.assign(np.concatenate([state[name], spare]))
        self.touched[:] = False
        self._started[:] = False
        self._started[:rows] = self.index.ids != FREE

    def _reserve(self, rows: int) -> None:
        if rows <= len(self.touched):
            return
        more = _doubled(len(self.touched), rows) - len(self.touched)
        self.weights.assign(tf.concat([self.weights, tf.zeros([more, self.width])], 0))
        self.slots.assign(tf.concat([self.slots, tf.fill([more, self.width], ACCUMULATOR)], 0))
        flags = np.zeros(more, bool)
        self.touched, self._started, self._saved = (
            np.concatenate([old, flags]) for old in (self.touched, self._started, self._saved)
        )

    @staticmethod
    def _scatter(variable: Any, rows: Rows, values: Any) -> None:
        tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=values)


def init_rows(ids: Ids, width: int, seed: int, scale: float = INIT_SCALE) -> Floats:
    """Where a row starts: nearly normal with deviation `scale`, a function of id, column and seed alone.

    Four 16-bit parts of splitmix64(id, column, seed) are summed (Irwin-Hall), in integers, so that every machine
    gives the same bits. ids: int64 [n] -> float32 [n, width].
    """
    with np.errstate(over="ignore"):
        column = np.arange(1, width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        salt = _splitmix(np.uint64(seed % 2**64) + np.uint64(0x632BE59BD9B4E019))
        bits = _splitmix(ids.astype(np.uint64)[:, None] ^ salt ^ column[None, :])
    parts = sum((bits >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48))
    centred = np.asarray(parts).astype(np.int64) - 2 * 0xFFFF
    deviation = ((65536.0**2 - 1) / 3) ** 0.5
    rows: Floats = (centred * (scale / deviation)).astype(np.float32)
    return rows


def _splitmix(value: Any) -> Any:
    """Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014, figure 15."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _doubled(size: int, needed: int) -> int:
    while size < needed:
        size *= 2
    return size
