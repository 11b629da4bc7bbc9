"""The published table: what replicas hold. The fold of a snapshot and the deltas after it, rows as they were encoded.

The trainer keeps one to measure what a new row would change against (`lookup`), to write snapshots (`snapshot`: the
same bytes as folding the deltas gives, not a fresh export) and to name the digest in each record. Replicas hold the
same content decoded (`paramserver/generation.py`); the digests must agree.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from headrace.delta import Change, Delta, Digest, Numbers, TableSpec, hash_sum, load_delta, row_hashes
from headrace.errors import DamagedFile
from headrace.idindex import IdIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.delta import Bytes, Floats, Ids
    from headrace.store import Store
    from headrace.version import Path

_LEAST_ROWS = 64


class PublishedTable:
    """Empty at first; `apply` a snapshot or the deltas from the start. Not for several threads."""

    def __init__(self, specs: Sequence[TableSpec] = ()) -> None:
        self.version: int | None = None
        self.tower: bytes | None = None
        self.numbers = Numbers()
        self._tables = [_Table(spec) for spec in specs]

    @property
    def specs(self) -> tuple[TableSpec, ...]:
        return tuple(table.spec for table in self._tables)

    def apply(self, delta: Delta) -> None:
        """Make this the published table of version `delta.of`. DamagedFile if the delta has other tables."""
        if delta.is_snapshot or not self._tables:
            self._tables = [_Table(change.spec) for change in delta.changes]
            self.tower = None
        if self.specs != tuple(change.spec for change in delta.changes):
            raise DamagedFile(f"delta {delta.of} has other tables than version {self.version}", of=delta.of)
        for table, change in zip(self._tables, delta.changes, strict=True):
            table.apply(change)
        if delta.tower is not None:
            self.tower = delta.tower
        self.version, self.numbers = delta.of, delta.numbers

    def inverse(self, delta: Delta) -> Delta:
        """What takes back `delta`; to be asked for before `delta` is applied.

        Applied after it, gives the same rows, tower, numbers and digest as before: rows that it sets get their old
        bytes, or a tombstone where there was none, rows that it takes come back. The inverse of a snapshot, or of the
        first delta, is a snapshot.
        """
        if delta.is_snapshot or not self._tables or (delta.tower is not None and self.tower is None):
            return self.snapshot(delta.base if delta.base is not None else self.version or 0)
        assert delta.base is not None
        changes = tuple(table.inverse(change) for table, change in zip(self._tables, delta.changes, strict=True))
        return Delta(delta.base, delta.of, changes, self.tower if delta.tower is not None else None, self.numbers)

    def digest(self) -> Digest:
        """Kept up to date by `apply`: costs nothing here."""
        total = sum(table.sum for table in self._tables) % 2**64
        tower = hashlib.sha256(self.tower).hexdigest() if self.tower is not None else ""
        return Digest(sum(table.count for table in self._tables), total, tower, self.numbers.fingerprint())

    def lookup(self, table_name: str, ids: Ids) -> tuple[Floats, Bytes, np.ndarray]:
        """(scale float32 [n], rows uint8 [n, row_bytes], found bool [n]) of `ids`; 0 where not found."""
        return next(table for table in self._tables if table.spec.name == table_name).lookup(ids)

    def ids(self, table_name: str) -> Ids:
        """int64 [n], all ids that have a row, in no particular order."""
        return next(table for table in self._tables if table.spec.name == table_name).ids()

    def snapshot(self, of: int) -> Delta:
        """All rows and the tower, as version `of`."""
        return self.copied(of)()

    def copied(self, of: int) -> Callable[[], Delta]:
        """What gives `snapshot(of)` later, on any thread, whatever is applied meanwhile; costs a copy of the rows."""
        tables, tower, numbers = [table.copied() for table in self._tables], self.tower, self.numbers
        return lambda: Delta(of, None, tuple(all_rows() for all_rows in tables), tower, numbers)


def folded(store: Store, path: Path, each: Callable[[int, int], None] = lambda *_: None) -> PublishedTable:
    """The published table that `path` leads to. each: called as (files read, of how many). DamagedFile, NotFound."""
    table = PublishedTable()
    files = [file for file in (path.snapshot, *(record.delta for record in path.deltas)) if file is not None]
    for number, file in enumerate(files, 1):
        table.apply(load_delta(store, file.path, file.sha256))
        each(number, len(files))
    return table


def digest_of(snapshot: Delta) -> Digest:
    """The digest of a snapshot's content from scratch."""
    total = sum(hash_sum(row_hashes(c.spec.name, c.ids, c.scale, c.rows)) for c in snapshot.changes) % 2**64
    tower = hashlib.sha256(snapshot.tower).hexdigest() if snapshot.tower is not None else ""
    return Digest(sum(len(c.ids) for c in snapshot.changes), total, tower, snapshot.numbers.fingerprint())


class _Table:
    """Rows of one table in growing arrays; a row that lost its id is taken by the next new one."""

    def __init__(self, spec: TableSpec) -> None:
        self.spec = spec
        self.count = 0  # rows that have an id
        self.sum = 0  # of their hashes, mod 2^64
        self._used = 0
        self._free = np.empty(0, np.int32)
        self._index = IdIndex.empty()
        self._scale = np.zeros(_LEAST_ROWS, np.float32)
        self._rows = np.zeros((_LEAST_ROWS, spec.row_bytes), np.uint8)

    def apply(self, change: Change) -> None:
        at = self._index.find(change.ids)
        known = at >= 0
        gone_at = self._index.find(change.tombstones)
        gone, gone_at = change.tombstones[gone_at >= 0], gone_at[gone_at >= 0]
        self.sum -= self._hash_sum(change.ids[known], at[known]) + self._hash_sum(gone, gone_at)
        fresh = np.flatnonzero(~known)
        at[fresh] = self._take(len(fresh))
        self._scale[at] = change.scale
        self._rows[at] = change.rows
        self._index = self._index.updated(change.ids[fresh], at[fresh], gone)
        self._free = np.concatenate([self._free, gone_at])
        self.count += len(fresh) - len(gone)
        self.sum = (self.sum + hash_sum(row_hashes(self.spec.name, change.ids, change.scale, change.rows))) % 2**64

    def inverse(self, change: Change) -> Change:
        named = np.concatenate([change.ids, change.tombstones])
        at = self._index.find(named)
        known, at = at >= 0, at[at >= 0]
        unknown = change.ids[~known[: len(change.ids)]]
        return Change(self.spec, named[known], self._scale[at], self._rows[at], unknown)

    def lookup(self, ids: Ids) -> tuple[Floats, Bytes, np.ndarray]:
        at = self._index.find(ids)
        found = at >= 0
        scale, rows = self._scale[at], self._rows[at]
        scale[~found] = 0
        rows[~found] = 0
        return scale, rows, found

    def ids(self) -> Ids:
        return self._index.items()[0]

    def copied(self) -> Callable[[], Change]:
        """What gives all rows as they are now, in the order of ids."""
        spec, (ids, at) = self.spec, self._index.items()
        scale, rows = self._scale[: self._used].copy(), self._rows[: self._used].copy()

        def all_rows() -> Change:
            order = np.argsort(ids)
            places = at[order]
            return Change(spec, ids[order], scale[places], rows[places])

        return all_rows

    def _take(self, rows: int) -> np.ndarray:
        again, self._free = self._free[:rows], self._free[rows:]
        start, self._used = self._used, self._used + rows - len(again)
        if self._used > len(self._scale):
            size = max(2 * len(self._scale), self._used)
            self._scale = np.concatenate([self._scale[:start], np.zeros(size - start, np.float32)])
            self._rows = np.concatenate([self._rows[:start], np.zeros((size - start, self.spec.row_bytes), np.uint8)])
        return np.concatenate([again, np.arange(start, self._used, dtype=np.int32)])

    def _hash_sum(self, ids: Ids, at: np.ndarray) -> int:
        return hash_sum(row_hashes(self.spec.name, ids, self._scale[at], self._rows[at]))
