"""A generation: one version in memory, whole and immutable.

A call reads the reference to the current one once, a swap is one assignment: no answer can mix two versions.

    ServingTable   rows of one table, decoded: an index id -> line, and a slab of lines
    Tables         all tables, the tower and the statistics of numbers: what the fold of a snapshot and deltas gives
    Generation     Tables + the record of the version + its schema: ready to score

A change leaves the old table as it was: changed rows are appended to the slab that old and new share, and only the
index (4 bytes for each slot) is copied. A line of the slab is written once, before any index names it. A full slab is
replaced by one with the live lines and as much room again, so a table that changes for ever takes at most about twice
the memory of its live rows, besides what older generations still hold.

The digest of the encoded rows is kept beside them (8 bytes a row) to be compared with the version's record.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from headrace.delta import Change, Delta, Digest, Numbers, TableSpec, hash_sum, row_hashes
from headrace.errors import DamagedFile
from headrace.idindex import IdIndex
from headrace.scoring import Scorer, TableView
from headrace.tower import Tower

if TYPE_CHECKING:
    from headrace.schema import Schema
    from headrace.version import VersionRecord

Floats = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int32]

_LEAST_LINES = 1024


class _Slab:
    """Lines that are appended and never changed; line 0 is zeros. One thread at a time appends."""

    def __init__(self, lines: int, width: int) -> None:
        self.values = np.zeros((lines, width), np.float32)
        self.hashes = np.zeros(lines, np.uint64)
        self.used = 1

    def has_room(self, lines: int) -> bool:
        return self.used + lines <= len(self.hashes)

    def append(self, values: Floats, hashes: Hashes) -> Rows:
        """The numbers of the new lines."""
        start, end = self.used, self.used + len(values)
        self.values[start:end] = values
        self.hashes[start:end] = hashes
        self.used = end
        return np.arange(start, end, dtype=np.int32)


@dataclass(frozen=True)
class ServingTable:
    """One table of a generation. `count` rows, whose hashes add up to `sum` mod 2^64."""

    spec: TableSpec
    index: IdIndex
    slab: _Slab
    count: int = 0
    sum: int = 0

    @classmethod
    def empty(cls, spec: TableSpec, rows: int = 0) -> Self:
        """With room for twice `rows`."""
        return cls(spec, IdIndex.empty(rows), _Slab(max(_LEAST_LINES, 2 * rows + 1), spec.width))

    def changed(self, change: Change) -> ServingTable:
        """The table after `change`; this one stays as it is."""
        table = self if self.slab.has_room(len(change.ids)) else self._compacted(len(change.ids))
        hashes = row_hashes(change.spec.name, change.ids, change.scale, change.rows)
        before = table.index.find(change.ids)
        gone = table.index.find(change.tombstones)
        lines = table.slab.append(change.decoded(), hashes)
        old = table.slab.hashes[np.concatenate([before[before >= 0], gone[gone >= 0]])]
        index = table.index.updated(change.ids, lines, change.tombstones)
        count = self.count + int((before < 0).sum()) - int((gone >= 0).sum())
        return ServingTable(self.spec, index, table.slab, count, (self.sum + hash_sum(hashes) - hash_sum(old)) % 2**64)

    def view(self) -> TableView:
        return TableView(self.spec, self.index, self.slab.values)

    def _compacted(self, more: int) -> ServingTable:
        ids, lines = self.index.items()
        table = ServingTable.empty(self.spec, len(ids) + more)
        table.index.put(ids, table.slab.append(self.slab.values[lines], self.slab.hashes[lines]))
        return ServingTable(self.spec, table.index, table.slab, self.count, self.sum)


@dataclass(frozen=True)
class Tables:
    """What the fold of a snapshot and deltas gives."""

    tables: tuple[ServingTable, ...] = ()
    tower: Tower | None = None
    numbers: Numbers = field(default_factory=Numbers)

    def changed(self, delta: Delta) -> Tables:
        """The tables after `delta`. DamagedFile if it has other tables, TowerRefused if LiteRT cannot run its tower."""
        if delta.is_snapshot or not self.tables:
            tables = tuple(ServingTable.empty(change.spec, len(change.ids)) for change in delta.changes)
        else:
            tables = self.tables
        if [table.spec for table in tables] != [change.spec for change in delta.changes]:
            raise DamagedFile(f"delta {delta.of} has other tables than the version it changes", of=delta.of)
        changed = tuple(table.changed(change) for table, change in zip(tables, delta.changes, strict=True))
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
