"""A generation: one version in memory, whole and immutable.

A call reads the reference to the current one once, a swap is one assignment: no answer can mix two versions.

    ServingTable   rows of one table, decoded: an index id -> line, and a slab of lines
    Tables         all tables, the tower and the statistics of numbers: what the fold of a snapshot and deltas gives
    Generation     Tables + the record of the version + its schema: ready to score

A change leaves the old table as it was: changed rows go to lines of the slab, which old and new share, that no index
names, and only the index is copied, into that of a generation that is gone (headrace/idindex.py). So a line that a
reader can find never changes. Lines are free again once the last index that names them is gone, with the generations
and the calls that held it: a slab finds them by looking through the indexes that are left, each time it has grown by
half. So a table that changes for ever takes memory for at most 1.5 times the rows that kept generations differ in. Room
for three times the first rows is set aside and costs nothing until it is written to; a slab without room is replaced by
one with the live lines.

The digest of the encoded rows is kept beside them (8 bytes a row) to be compared with the version's record.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from headrace.delta import Change, Delta, Digest, Numbers, TableSpec, decode_rows, hash_sum, row_hashes
from headrace.errors import DamagedFile
from headrace.idindex import IdIndex
from headrace.scoring import Scorer, TableView
from headrace.tower import Tower

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.schema import Schema
    from headrace.version import VersionRecord

Floats = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]

_LEAST_LINES = 1024
_ROOM = 3  # lines set aside for each row that a slab begins with
_BLOCK = 16_384  # rows decoded at a time: numpy lets no other thread work meanwhile


class Slab:
    """Lines of one table, shared by the generations that came from one another; line 0 is zeros. One thread writes."""

    def __init__(self, rows: int, width: int, more: int = 0) -> None:
        lines = max(_LEAST_LINES, _ROOM * rows + more + 1)
        self.values = np.zeros((lines, width), np.float32)
        self.hashes = np.zeros(lines, np.uint64)
        self.used = 1  # lines from here on were never written
        self._free = np.empty(0, np.int32)  # lines before `used` that no index named when it was last looked
        self._look_at = max(_LEAST_LINES, rows + rows // 2)
        self._indexes: weakref.WeakSet[IdIndex] = weakref.WeakSet()

    def hold(self, index: IdIndex) -> None:
        """The lines that `index` names are not written to as long as anybody has it."""
        self._indexes.add(index)

    def take(self, lines: int) -> Rows | None:
        """The numbers of `lines` lines that no index names; None if there is no room."""
        if self.used + lines - len(self._free) > self._look_at:
            self._look()
        fresh = max(0, lines - len(self._free))
        if self.used + fresh > len(self.hashes):
            return None
        reused, self._free = self._free[:lines], self._free[lines:]
        start, self.used = self.used, self.used + fresh
        return np.concatenate([reused, np.arange(start, self.used, dtype=np.int32)])

    def _look(self) -> None:
        named = np.zeros(self.used, bool)
        named[0] = True
        for index in list(self._indexes):
            for rows in index.rows(_BLOCK):
                named[rows] = True
        blocks = range(0, self.used, _BLOCK)
        free = [start + np.flatnonzero(~named[start : start + _BLOCK]) for start in blocks]
        self._free = np.concatenate(free).astype(np.int32)
        live = self.used - len(self._free)
        self._look_at = max(_LEAST_LINES, live + live // 2)


@dataclass(frozen=True)
class ServingTable:
    """One table of a generation. `count` rows, whose hashes add up to `sum` mod 2^64."""

    spec: TableSpec
    index: IdIndex
    slab: Slab
    count: int = 0
    sum: int = 0

    @classmethod
    def empty(cls, spec: TableSpec, rows: int = 0, more: int = 0) -> Self:
        """With room for `rows`, for `more`, and for changes."""
        return cls(spec, IdIndex.empty(rows + more), Slab(rows, spec.width, more))

    def beside(self, other: ServingTable) -> ServingTable:
        """The same table with an index that shares its keys with that of `other`; unchanged if that has no room."""
        if self.index.shares(other.index):
            return self
        ids, lines = self.index.items()
        if not other.index.has_room(int((other.index.find(ids) < 0).sum())):
            return self
        index = other.index.beside()
        index.put(ids, lines)
        self.slab.hold(index)
        return replace(self, index=index)

    def changed(self, change: Change) -> ServingTable:
        """The table after `change`; this one stays as it is."""
        table, lines = self, self.slab.take(len(change.ids))
        if lines is None:
            table = self._moved(len(change.ids))
            lines = table.slab.take(len(change.ids))
            assert lines is not None, "a new slab has room"
        slab = table.slab
        before, gone = table.index.find(change.ids), table.index.find(change.tombstones)
        old = slab.hashes[np.concatenate([before[before >= 0], gone[gone >= 0]])]
        total = _write(slab, lines, change)
        index = table.index.updated(change.ids, lines, change.tombstones)
        slab.hold(index)
        count = self.count + int((before < 0).sum()) - int((gone >= 0).sum())
        return ServingTable(self.spec, index, slab, count, (self.sum + total - hash_sum(old)) % 2**64)

    def rows_of(self, ids: Ids) -> list[Floats | None]:
        """The row float32 [width] of each of `ids` int64 [n]; None where there is none."""
        lines = self.index.find(ids)
        rows = self.slab.values.take(lines, axis=0, mode="clip")
        return [row if line >= 0 else None for line, row in zip(lines.tolist(), rows, strict=True)]

    def view(self) -> TableView:
        return TableView(self.spec, self.index, self.slab.values)

    def _moved(self, more: int) -> ServingTable:
        """The same rows in a slab of their own, with room for `more`."""
        ids, lines = self.index.items()
        table = ServingTable.empty(self.spec, len(ids), more)
        moved = table.slab.take(len(ids))
        assert moved is not None, "a new slab has room"
        table.slab.values[moved] = self.slab.values[lines]
        table.slab.hashes[moved] = self.slab.hashes[lines]
        table.index.put(ids, moved)
        table.slab.hold(table.index)
        return ServingTable(self.spec, table.index, table.slab, self.count, self.sum)


def _write(slab: Slab, lines: Rows, change: Change) -> int:
    """Decode the rows of `change` into `lines`, a block at a time; the sum of their hashes mod 2^64."""
    total = 0
    for start in range(0, len(lines), _BLOCK):
        block = slice(start, start + _BLOCK)
        scale, rows = change.scale[block], change.rows[block]
        hashes = row_hashes(change.spec.name, change.ids[block], scale, rows)
        slab.values[lines[block]] = decode_rows(scale, rows, change.spec)
        slab.hashes[lines[block]] = hashes
        total += hash_sum(hashes)
    return total % 2**64


@dataclass(frozen=True)
class Tables:
    """What the fold of a snapshot and deltas gives."""

    tables: tuple[ServingTable, ...] = ()
    tower: Tower | None = None
    numbers: Numbers = field(default_factory=Numbers)

    def changed(self, delta: Delta) -> Tables:
        """The tables after `delta`. DamagedFile if it has other tables, TowerRefused if LiteRT cannot run its tower."""
        tables = self.tables
        if delta.is_snapshot or not tables:
            tables = _together([ServingTable.empty(change.spec, len(change.ids)) for change in delta.changes])
        if [table.spec for table in tables] != [change.spec for change in delta.changes]:
            raise DamagedFile(f"delta {delta.of} has other tables than the version it changes", of=delta.of)
        changed = tuple(table.changed(change) for table, change in zip(tables, delta.changes, strict=True))
        if not all(after.index.shares(before.index) for after, before in zip(changed, tables, strict=True)):
            changed = _together(changed)  # an index has grown, which is rare
        return Tables(changed, self._tower_after(delta), delta.numbers)

    def digest(self) -> Digest:
        tower = hashlib.sha256(self.tower.content).hexdigest() if self.tower else ""
        total = sum(table.sum for table in self.tables) % 2**64
        return Digest(sum(table.count for table in self.tables), total, tower, self.numbers.fingerprint())

    def _tower_after(self, delta: Delta) -> Tower | None:
        if delta.tower is None:
            return None if delta.is_snapshot else self.tower
        if self.tower is not None and self.tower.content == delta.tower:
            return self.tower
        return Tower(delta.tower, like=self.tower)


def _together(tables: Sequence[ServingTable]) -> tuple[ServingTable, ...]:
    """Tables with the same features have nearly the same ids: they share the keys of the one with most room."""
    largest: dict[tuple[str, ...], ServingTable] = {}
    for table in tables:
        known = largest.setdefault(table.spec.features, table)
        if table.index.size > known.index.size:
            largest[table.spec.features] = table
    return tuple(table.beside(largest[table.spec.features]) for table in tables)


class Generation:
    """Version `record` in memory."""

    def __init__(self, record: VersionRecord, schema: Schema, tables: Tables) -> None:
        self.record = record
        self.schema = schema
        self.tables = tables
        self.scorer = Scorer(
            [table.view() for table in tables.tables],
            tables.tower,
            prior=record.prior,
            offset=record.offset,
            numbers=tables.numbers,
            number_names=schema.numbers,
        )

    @property
    def version(self) -> int:
        return self.record.version

    @property
    def schema_json(self) -> str:
        return json.dumps(self.record.schema, sort_keys=True)

    @property
    def rows(self) -> int:
        return sum(table.count for table in self.tables.tables)

    def check(self) -> None:
        """DamagedFile unless the tables have the digest that the record names."""
        found, named = self.tables.digest(), Digest.from_json(self.record.digest)
        if found != named:
            raise DamagedFile(
                f"the parameters of version {self.version} have digest {found.sum:016x} over {found.rows} rows, "
                f"its record says {named.sum:016x} over {named.rows}",
                hint="run `headrace log verify --deep`; the version before is served until this heals",
                version=self.version,
            )
