"""Pending events as immutable sorted runs: the file format, how it is built, opened and searched.

The state of the joiner, per part, is a list of runs of three kinds. No row is ever marked or changed: what became of it
is a function of the runs and the watermark.

**File.** `shards/state/<seq>-<part>-<kind>-<n>-<nonce>.arrow`: an Arrow IPC file with one record batch, read through a
memory map. The shard record names it with its SHA-256, which is checked when a process first opens it. Schema metadata
`headrace` = {"format": 1, "kind": as below, "schema": fingerprint of the features}. Rows stand in the order of arrival;
four index columns come first, 18 bytes a row:

    _key    uint64   Fingerprint64(event id), sorted
    _pos    uint32   the row that _key[i] belongs to
    _byt    uint32   rows sorted by _ts
    _filt   uint16   a filter over _key, two hashes in 16 bits per row: 1.4 % false positives

then the row itself:

    kind         columns, after _event uint64 (the key of this row) and _ts int64
    impression   _hash uint64 (content_hash), _void uint8, _partition int32, _id large_string, the encoded features
    feedback     _label float32 (0 when implicit), _partition int32, _offset as the source gave it
    orphan       _void uint8, then as feedback: feedback that was taken without an impression

`_partition` is the place of the row's partition in `ranges` of the shard record, which it keeps from record to record.

A *void* row says of every row with its (_event, _ts, _hash or _label) that it no longer counts: an impression that
turned out to be a duplicate, an orphan whose impression came after all. It has no features, and lives as long.

**Meta.** What the shard record says of a run: `{kind, part, path, sha256, bytes, rows, min_us, max_us, level, bucket}`;
min_us and max_us are the extremes of _ts; level and bucket are those of `pipelines.compaction`.

**References.** A row of a list of runs is one int64: number of the run in the list << 32 | row.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from headrace.arrow import buffer_at
from headrace.column import plain
from headrace.errors import NewerFormat
from headrace.ids import fingerprints
from headrace.record import check_sha256, sha256_of
from headrace.shard import known
from pipelines.match import among, distinct, order_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.store import Store

__all__ = [
    "NewRun",
    "Run",
    "RunFiles",
    "RunKind",
    "RunMeta",
    "build",
    "content_hash",
    "event_keys",
    "gather",
    "merge",
    "probe",
    "standing",
]

RunKind = Literal["impression", "feedback", "orphan"]
FORMAT = 1
INDEX = ["_key", "_pos", "_byt", "_filt"]
TIE = {"impression": "_hash", "feedback": "_label", "orphan": "_label"}
TYPES: dict[str, Any] = {
    "_event": np.uint64,
    "_ts": np.int64,
    "_hash": np.uint64,
    "_label": np.float32,
    "_void": np.uint8,
    "_partition": np.int32,
}
FILTER_BITS = 16
ROW_BITS = 32
ROW = (1 << ROW_BITS) - 1


@dataclass(frozen=True)
class RunMeta:
    """A run as the shard record names it."""

    kind: RunKind
    rows: int
    min_us: int
    max_us: int
    level: int
    bucket: int
    part: int = 0
    path: str = ""
    sha256: str = ""
    bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> RunMeta:
        return cls(**known(cls, body))


@dataclass(frozen=True)
class NewRun:
    """A run that this tick wants written: `store.write(path, data)`, then `named(part, path, data)` for the record."""

    meta: RunMeta
    table: pa.Table

    def data(self, fingerprint: str) -> pa.Buffer:
        """The bytes of the file. `fingerprint`: of the features."""
        meta = {"format": FORMAT, "kind": self.meta.kind, "schema": fingerprint}
        table = self.table.combine_chunks().replace_schema_metadata({"headrace": json.dumps(meta, sort_keys=True)})
        sized = pa.MockOutputStream()
        _write(table, sized)
        data = pa.allocate_buffer(sized.size())
        _write(table, pa.FixedSizeBufferWriter(data))
        return data

    def named(self, part: int, path: str, data: pa.Buffer | bytes) -> RunMeta:
        bytes_ = memoryview(data)
        return replace(self.meta, part=part, path=path, sha256=sha256_of(bytes_), bytes=len(bytes_))


class Run:
    """An opened run: numpy views of its fixed-width columns, nothing copied."""

    def __init__(self, kind: RunKind, table: pa.Table) -> None:
        self.kind = kind
        self.table = table
        self.rows = table.num_rows
        self._views: dict[str, NDArray[Any]] = {}
        self.key, self.pos, self.by_time = self.column("_key"), self.column("_pos"), self.column("_byt")
        self.filter = self.column("_filt").view(np.uint8)
        self.ts = self.column("_ts")

    def column(self, name: str) -> NDArray[Any]:
        """A fixed-width column; [rows]."""
        if name not in self._views:
            self._views[name] = _view(self.table, name)
        return self._views[name]

    @property
    def min_us(self) -> int:
        return int(self.ts[self.by_time[0]])

    @property
    def max_us(self) -> int:
        return int(self.ts[self.by_time[-1]])

    def between(self, low_us: int, high_us: int) -> NDArray[np.int64]:
        """Rows with low_us <= ts < high_us, in the order of time."""
        low, high = (bisect_left(self.by_time, at, key=self.ts.__getitem__) for at in (low_us, high_us))
        return self.by_time[low:high].astype(np.int64)

    def take(self, rows: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        batch = self.table.select(columns).to_batches()[0]  # its take costs half of a table's
        return pa.Table.from_batches([batch.take(pa.array(rows))])

    def payload(self) -> pa.Table:
        return self.table.drop_columns(INDEX)


class RunFiles:
    """Opens runs of a store, each verified and mapped once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[str, Run] = {}

    def __call__(self, meta: RunMeta) -> Run:
        """DamagedFile when the bytes are not those that the record names; NewerFormat; NotFound when it is gone."""
        run = self._open.get(meta.path)
        if run is None:
            run = self._open[meta.path] = Run(meta.kind, self._read(meta))
        return run

    def keep(self, paths: Collection[str]) -> None:
        """Close every run that is not in `paths`."""
        self._open = {path: run for path, run in self._open.items() if path in paths}

    def _read(self, meta: RunMeta) -> pa.Table:
        table = pa.ipc.open_file(self._verified(meta)).read_all()
        said = json.loads((table.schema.metadata or {}).get(b"headrace", b"{}"))
        if said.get("format") != FORMAT or said.get("kind") != meta.kind:
            raise NewerFormat(
                f"{meta.path} says format {said.get('format')} and kind {said.get('kind')}; this headrace reads format"
                f" {FORMAT}, and the record calls it {meta.kind}",
                hint="upgrade headrace in this environment; nothing was committed",
                path=meta.path,
            )
        return table.replace_schema_metadata(None)

    def _verified(self, meta: RunMeta) -> pa.Buffer:
        data = buffer_at(self._store, meta.path)
        hint = "restore the file from a copy of the loop, or replay the pipeline from an earlier record"
        check_sha256(memoryview(data), meta.sha256, meta.path, hint)
        return data


def event_keys(ids: pa.ChunkedArray | pa.Array) -> NDArray[np.uint64]:
    """Fingerprint64 of every event id; uint64 [n]."""
    return fingerprints(plain(ids))


def content_hash(features: pa.Table) -> NDArray[np.uint64]:
    """Hash of every row of encoded features; uint64 [n]. It breaks ties between impressions with one id and time.

    h = 0; for every column, in order: h = mix(h ^ cell). A cell is the bits of an int64 or float32; of a list, its
    length plus the sum of mix(value ^ mix(place)); of null, 0xA5A5A5A5A5A5A5A5. mix is splitmix64's.
    """
    total = np.zeros(features.num_rows, np.uint64)
    for column in features.combine_chunks().itercolumns():
        total = _mix(total ^ _cells(column.chunk(0) if column.num_chunks else pa.array([], column.type)))
    return total


def build(kind: RunKind, payload: pa.Table) -> Run:
    """Index rows (at least one) in the order of arrival."""
    payload = payload.combine_chunks()
    key = _view(payload, "_event")
    order = order_of(key)
    return Run(kind, _indexed(payload, key[order], order.astype(np.uint32)))


def merge(runs: Sequence[Run]) -> Run:
    """One run with the rows of several, in order. The sorted keys are merged, the rows are only copied."""
    payload = pa.concat_tables([run.payload() for run in runs]).combine_chunks()
    offsets = np.cumsum([0, *(run.rows for run in runs[:-1])])
    key = np.concatenate([run.key for run in runs])
    pos = np.concatenate([run.pos + np.uint32(offset) for run, offset in zip(runs, offsets, strict=True)])
    order = np.argsort(key, kind="stable")  # radix or timsort: fast on presorted stretches
    return Run(runs[0].kind, _indexed(payload, key[order], pos[order]))


def probe(runs: Sequence[Run], key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """References to all rows with one of these keys, in the order of runs. Each costs two filter reads per run; then
    binary search."""
    key = distinct(key) if runs else key  # sorted: half the cache misses
    refs = [np.empty(0, np.int64)]
    for number, run in enumerate(runs if len(key) else ()):
        wanted = key
        for half in (0, 1):
            slot = _slots(wanted, run.rows, half)
            wanted = wanted[(run.filter.take(slot >> 3) >> (slot & 7).astype(np.uint8) & 1).view(bool)]
        at = run.key.searchsorted(wanted)
        hit = run.key.take(at, mode="clip") == wanted
        at, end = at[hit], run.key.searchsorted(wanted[hit], side="right")
        count = end - at  # equal keys lie side by side
        rows = np.repeat(at - np.cumsum(count) + count, count) + np.arange(int(count.sum()))
        refs.append(run.pos[rows].astype(np.int64) | number << ROW_BITS)
    return np.concatenate(refs)


def gather(runs: Sequence[Run], refs: NDArray[np.int64], name: str) -> NDArray[Any]:
    """Values of one of the joiner's own columns at the referenced rows."""
    out = np.empty(len(refs), TYPES[name])
    number = refs >> ROW_BITS
    for which in np.flatnonzero(np.bincount(number)).tolist():
        at = number == which
        out[at] = runs[which].column(name)[refs[at] & ROW]
    return out


def standing(runs: Sequence[Run], refs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the rows count: not void, and no void row with their event, time and tie is among `refs`."""
    void = gather(runs, refs, "_void").astype(bool)
    if not void.any():
        return ~void
    columns = [gather(runs, refs, name) for name in (TIE[runs[0].kind], "_ts", "_event")]
    return ~among(columns, [column[void] for column in columns])


def _write(table: pa.Table, sink: Any) -> None:
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _indexed(payload: pa.Table, key: NDArray[np.uint64], pos: NDArray[np.uint32]) -> pa.Table:
    bits = np.zeros(FILTER_BITS * len(key), bool)
    bits[_slots(key, len(key), 0)] = bits[_slots(key, len(key), 1)] = True
    by_time = order_of(_view(payload, "_ts")).astype(np.uint32)
    columns = [key, pos, by_time, np.packbits(bits, bitorder="little").view(np.uint16)]
    return pa.table([*(pa.array(column) for column in columns), *payload.columns], [*INDEX, *payload.column_names])


def _slots(key: NDArray[np.uint64], rows: int, half: int) -> NDArray[np.int64]:
    """Filter bit of each key, from its upper (0) or lower (1) 32 bits; rises with the key for the upper ones."""
    part = key & np.uint64(0xFFFFFFFF) if half else key >> np.uint64(32)
    return (part * np.uint64(FILTER_BITS * rows) >> np.uint64(32)).view(np.int64)


def _view(table: pa.Table, name: str) -> NDArray[Any]:
    column = table.column(name)
    chunk = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    return np.asarray(chunk.to_numpy())


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _cells(column: pa.Array) -> NDArray[np.uint64]:
    """One word per row of a column; null is a word that no small number has."""
    if pa.types.is_list(column.type):
        cells = _lists(column)
    else:
        width = np.uint64 if column.type.bit_width == 64 else np.uint32
        known = column.fill_null(0) if column.null_count else column
        cells = known.to_numpy(zero_copy_only=False).view(width).astype(np.uint64)
    if column.null_count:
        cells = np.where(np.asarray(column.is_null()), np.uint64(0xA5A5A5A5A5A5A5A5), cells)
    return cells


def _lists(column: pa.ListArray) -> NDArray[np.uint64]:
    """Sum over a list of mix(value ^ mix(place)), plus its length."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    length = np.diff(offsets)
    values = _cells(column.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0])))
    place = np.arange(len(values)) - np.repeat(offsets[:-1] - offsets[0], length)
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mix(values ^ _mix(place.astype(np.uint64))))])
    bounds = offsets - offsets[0]
    return np.asarray(total[bounds[1:]] - total[bounds[:-1]] + length.astype(np.uint64))
