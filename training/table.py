"""Sparse parameters: a collisionless map id -> row, and one packed table per width with its optimiser slots.

Row 0 is the first id that was seen, row 1 the second, and so on: `ids[:used]` is the whole map, and rebuilding it from
that array gives the same rows. An id gets its row at first sight. A new row starts from `init_rows(id)`, a function of
the id and the seed alone, so that it does not matter when, or in which replay, an id appears.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.idindex import IdIndex, Ids, Rows
from training.runtime import tf

Floats = npt.NDArray[np.float32]

FIRST_CAPACITY = 1024

INIT_SCALE = 0.02
ACCUMULATOR = 1.0
"""Adagrad's start. With Keras' 0.1 rare rows take steps that are too large, with a mean loss none at all."""


class RowIndex:
    """id -> row, and row -> id (`ids`: int64 [used], in row order)."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._ids = np.empty(FIRST_CAPACITY, np.int64)
        self._index = IdIndex.empty(FIRST_CAPACITY)
        self.used = 0
        self.kept: int | None = None  # rows that were there when the journal began; None: there is no journal

    def begin(self) -> None:
        """From here on `undo` can give back what is admitted."""
        self.kept = self.used

    def undo(self) -> None:
        """As it was at `begin`."""
        assert self.kept is not None
        self._index.drop(self._ids[self.kept : self.used])
        self.used, self.kept = self.kept, None

    def settle(self) -> None:
        """Forgets the journal."""
        self.kept = None

    @property
    def ids(self) -> Ids:
        return self._ids[: self.used]

    def find(self, ids: Ids) -> Rows:
        """ids: int64 [n] -> rows: int32 [n], -1 where the id has none."""
        return self._index.find(ids)

    def admit(self, ids: Ids) -> Rows:
        """Like `find`, after giving a row to each id that has none, in the order of `ids`; each at most once there."""
        rows = self._index.find(ids)
        new = np.flatnonzero(rows < 0)
        if len(new):
            rows[new] = np.arange(self.used, self.used + len(new), dtype=np.int32)
            self._append(ids[new], rows[new])
        return rows

    def restore(self, ids: Ids) -> None:
        """Becomes the map whose `ids` these are."""
        if not np.array_equal(self.ids, ids):
            self._clear()
            self.admit(ids)

    def _append(self, ids: Ids, rows: Rows) -> None:
        needed = self.used + len(ids)
        if needed > len(self._ids) or not self._index.has_room(len(ids)):  # ids that were given back leave their slots
            room = _doubled(len(self._ids), needed)
            self._ids = np.concatenate([self.ids, np.empty(room - self.used, np.int64)])
            self._index = IdIndex.empty(room)
            self._index.put(self.ids, np.arange(self.used, dtype=np.int32))
        self._ids[self.used : needed] = ids
        self._index.put(ids, rows)
        self.used = needed


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

    def read(self, rows: Rows) -> Floats:
        """rows: int32 [n] -> weights float32 [n, width]. Never copies the table."""
        values: Floats = tf.gather(self.weights, rows).numpy()
        return values

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps, in row order: ids int64 [used], weights and slots float32 [used, width]."""
        used = self.index.used
        return {
            "ids": self.index.ids.copy(),
            "weights": self.weights[:used].numpy(),
            "slots": self.slots[:used].numpy(),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """The inverse of `state`."""
        self.index.restore(state["ids"])
        rows = self.index.used
        self._reserve(rows)
        self.settle()
        for variable, fill, name in ((self.weights, 0.0, "weights"), (self.slots, ACCUMULATOR, "slots")):
            spare = np.full((len(self.touched) - rows, self.width), fill, np.float32)
            variable.assign(np.concatenate([state[name], spare]))
        self.touched[:] = False
        self._started[:] = np.arange(len(self._started)) < rows

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
