"""Deltas and snapshots: how the parameters of a version travel from the trainer to replicas.

A *delta* holds what changed from one published table to the next, a *snapshot* all of it; both are the same file, an
Arrow IPC file (not the streaming form) named `models/<model>/params/<version, 12 digits>-delta-<nonce>.arrow` or
`…-snapshot-<nonce>.arrow`. Its columns:

    id     int64     not null   id >= 0
    scale  float32   not null   what the row is multiplied by (0 in a tombstone)
    row    binary               the encoded row, the same number of bytes throughout a table; null = tombstone: the id
                                has no row any more. large_binary in all batches if one table has 2 GiB of rows or more

One record batch per table, in the order of `tables` below: first the rows, ascending by id, then the tombstones,
ascending by id; an id occurs once. If the tower changed (always, in a snapshot that has one) one more batch follows, of
one line: id 0, scale 1, row = the LiteRT flatbuffer. No compression, so a mapped file is used without a copy.

The schema's metadata has the key `headrace`: JSON, keys sorted, no spaces:

    {"format": 1, "of": version, "base": version whose published table this changes | null (snapshot),
     "tables": [{"name": "linear", "width": 1, "encoding": "f32", "features": ["carrier", …],
                 "rows": number of rows, "tombstones": number of tombstones}, …],
     "tower": whether the last batch is a tower,
     "numbers": {"mean": […], "scale": […]}}       one entry per number feature: see headrace/scoring.py

Encodings: `int8` q = round(row / scale), scale = max |row| / 127; `f16` (within +-65504), `f32` little endian, scale 1.
Decoded: q * scale in float32. Tables of width 1 are f32.

Same content, same bytes: metadata has no time or nonce. The SHA-256 of the file stands in the version record and is
checked before anything else; the reader then checks the structure and refuses a file that breaks a rule above.

**Digest** of a published table: per row a 64-bit hash of (table name, id, scale, encoded bytes); the digest is the sum
mod 2^64 over all rows of all tables, so it depends on no order and is kept up to date by subtracting the old row and
adding the new one. `{"rows": number of rows, "sum": 16 hex digits, "tower": SHA-256 of the tower or "",
"numbers": FP of [mean, scale] as JSON in 16 hex digits or ""}`. With words
w_1 … w_m = little-endian uint64 of the encoded row padded with zero bytes, s = bits of scale, all mod 2^64:

    h_0 = mix(mix(id ^ FP(table name)) + s),   h_j = mix(h_(j-1) ^ w_j),   hash = h_m
    mix(x): x ^= x >> 32; x *= 0xD6E8FEB86659FD93; x ^= x >> 32

FP = farmhash Fingerprint64.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import farmhash
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.errors import DamagedFile, HeadraceError, NewerFormat, NotFound
from headrace.record import check_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.store import Store

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]

FORMAT: Final = 1
ENCODINGS: Final[Mapping[str, np.dtype[Any]]] = {"int8": np.dtype("i1"), "f16": np.dtype("<f2"), "f32": np.dtype("<f4")}
_LARGE_BYTES = 2**31
_LARGEST_F16 = np.float32(65504)
_NO_IDS = np.empty(0, np.int64)


@dataclass(frozen=True)
class TableSpec:
    """One table: rows of `width` numbers; `features` are those whose ids live in it, in schema order."""

    name: str
    width: int
    encoding: str
    features: tuple[str, ...]

    @property
    def row_bytes(self) -> int:
        return self.width * ENCODINGS[self.encoding].itemsize


@dataclass(frozen=True)
class Change:
    """Rows of one table that are set, and ids that lose theirs.

    `ids` int64 [n], `scale` float32 [n], `rows` uint8 [n, row_bytes], `tombstones` int64 [k].
    """

    spec: TableSpec
    ids: Ids
    scale: Floats
    rows: Bytes
    tombstones: Ids = field(default_factory=_NO_IDS.copy)

    @classmethod
    def nothing(cls, spec: TableSpec) -> Change:
        return cls(spec, _NO_IDS, np.empty(0, np.float32), np.empty((0, spec.row_bytes), np.uint8))

    @classmethod
    def of_rows(cls, spec: TableSpec, ids: Ids, rows: Floats, tombstones: Ids = _NO_IDS) -> Change:
        """Encodes float `rows` [n, width]."""
        scale, encoded = encode_rows(rows, spec.encoding)
        return cls(spec, ids, scale, encoded, tombstones)

    def decoded(self) -> Floats:
        """float32 [n, width]."""
        return decode_rows(self.scale, self.rows, self.spec)


@dataclass(frozen=True)
class Numbers:
    """Running statistics that standardise number features: clip((x - mean) * scale, -5, 5). One entry per number."""

    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def fingerprint(self) -> str:
        """16 hex digits for the digest; "" without numbers."""
        text = json.dumps([self.mean, self.scale], separators=(",", ":"))
        return f"{farmhash.fingerprint64(text):016x}" if self.mean else ""


@dataclass(frozen=True)
class Delta:
    """Version `of` = the published table of version `base` with `changes`; a snapshot has no `base`.

    `tower`: None = unchanged; in a snapshot, there is none.
    """

    of: int
    base: int | None
    changes: tuple[Change, ...]
    tower: bytes | None = None
    numbers: Numbers = Numbers()

    @property
    def is_snapshot(self) -> bool:
        return self.base is None


@dataclass(frozen=True)
class Digest:
    """Order-free digest of a published table; equal digests = equal parameters.

    `offset` and `prior`, which are also part of a score, stand in the version record itself.
    """

    rows: int = 0
    sum: int = 0
    tower: str = ""
    numbers: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "sum": f"{self.sum:016x}", "tower": self.tower, "numbers": self.numbers}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Digest:
        return cls(int(value["rows"]), int(value["sum"], 16), str(value["tower"]), str(value.get("numbers", "")))


def encode_rows(rows: Floats, encoding: str) -> tuple[Floats, Bytes]:
    """(scale float32 [n], bytes uint8 [n, row_bytes]) of finite `rows` float32 [n, width].

    >>> scale, encoded = encode_rows(np.array([[1.27, -0.5]], np.float32), "int8")
    >>> float(scale[0]).__round__(4), encoded.view(np.int8).tolist()
    (0.01, [[127, -50]])
    """
    rows = np.ascontiguousarray(rows, np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("rows must be finite")
    if encoding != "int8":
        if encoding == "f16":
            rows = rows.clip(-_LARGEST_F16, _LARGEST_F16)
        return np.ones(len(rows), np.float32), rows.astype(ENCODINGS[encoding]).view(np.uint8)
    scale = (np.abs(rows).max(axis=1, initial=0) / np.float32(127)).astype(np.float32)
    divisor = np.where(scale == 0, np.float32(1), scale)
    quotient = np.rint(rows / divisor[:, None]).clip(-127, 127)
    quotient[scale == 0] = 0
    return scale, quotient.astype(np.int8).view(np.uint8)


def decode_rows(scale: Floats, rows: Bytes, spec: TableSpec) -> Floats:
    """float32 [n, width] of encoded `rows` uint8 [n, row_bytes]; a view of them where the encoding is f32."""
    values = rows.view(ENCODINGS[spec.encoding])
    if spec.encoding != "int8":
        return values.astype(np.float32, copy=False)
    return values.astype(np.float32) * scale[:, None]


def row_hashes(table_name: str, ids: Ids, scale: Floats, rows: Bytes) -> Hashes:
    """uint64 [n], one per row: the `hash` of the module's docstring."""
    seed = np.uint64(farmhash.fingerprint64(table_name))
    hashes = _mix(_mix(ids.astype(np.uint64) ^ seed) + scale.astype("<f4").view("<u4"))
    width = rows.shape[1]
    for start in range(0, width, 8):
        hashes = _mix(hashes ^ _word(rows, start, min(start + 8, width)))
    return hashes


def _word(rows: Bytes, start: int, end: int) -> Hashes:
    if end - start == 8 and rows.flags.c_contiguous and rows.shape[1] % 8 == 0:
        return rows.view("<u8")[:, start // 8]
    padded = np.zeros((len(rows), 8), np.uint8)
    padded[:, : end - start] = rows[:, start:end]
    return padded.view("<u8")[:, 0]


def _mix(x: Hashes) -> Hashes:
    x = x ^ (x >> np.uint64(32))
    x *= np.uint64(0xD6E8FEB86659FD93)
    x ^= x >> np.uint64(32)
    return x


def hash_sum(hashes: Hashes) -> int:
    """Sum mod 2^64."""
    return int(hashes.sum(dtype=np.uint64))


def write_delta(delta: Delta) -> bytes:
    """The bytes of the file. Rows come in any order; an id that occurs twice in a table is a ValueError."""
    changes = tuple(_canonical(change) for change in delta.changes)
    large = any(change.rows.nbytes >= _LARGE_BYTES for change in changes)
    row_type = pa.large_binary() if large else pa.binary()
    columns = [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("scale", pa.float32(), nullable=False),
        pa.field("row", row_type),
    ]
    schema = pa.schema(columns, metadata={"headrace": _metadata(delta, changes)})
    batches = [_batch(change, schema) for change in changes]
    if delta.tower is not None:
        tower = [pa.array([0]), pa.array([1.0], pa.float32()), pa.array([delta.tower], row_type)]
        batches.append(pa.record_batch(tower, schema=schema))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def _canonical(change: Change) -> Change:
    order = np.argsort(change.ids, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        change = Change(change.spec, change.ids[order], change.scale[order], change.rows[order], change.tombstones)
    change = Change(change.spec, change.ids, change.scale, change.rows, np.sort(change.tombstones))
    problem = _problem(change)
    if problem:
        raise ValueError(f"table {change.spec.name}: {problem}")
    return change


def _problem(change: Change) -> str:
    """What breaks the rules of a table's batch; "" if nothing does."""
    ids, gone = change.ids, change.tombstones
    if change.rows.shape != (len(ids), change.spec.row_bytes) or change.scale.shape != ids.shape:
        return "rows, scales and ids do not fit together"
    if (np.diff(ids) <= 0).any() or (np.diff(gone) <= 0).any() or _overlap(ids, gone):
        return "an id occurs twice"
    if (len(ids) and ids[0] < 0) or (len(gone) and gone[0] < 0):
        return "a negative id"
    return "" if np.isfinite(change.scale).all() else "a scale that is not finite"


def _overlap(ids: Ids, others: Ids) -> bool:
    """Whether two ascending sets share an id."""
    if not len(ids):
        return False
    at = np.minimum(np.searchsorted(ids, others), len(ids) - 1)
    return bool((ids[at] == others).any())


def _metadata(delta: Delta, changes: Sequence[Change]) -> str:
    tables = [
        {
            "name": change.spec.name,
            "width": change.spec.width,
            "encoding": change.spec.encoding,
            "features": list(change.spec.features),
            "rows": len(change.ids),
            "tombstones": len(change.tombstones),
        }
        for change in changes
    ]
    numbers = {"mean": list(delta.numbers.mean), "scale": list(delta.numbers.scale)}
    value = {
        "format": FORMAT,
        "of": delta.of,
        "base": delta.base,
        "tables": tables,
        "tower": delta.tower is not None,
        "numbers": numbers,
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _batch(change: Change, schema: pa.Schema) -> pa.RecordBatch:
    rows, gone = len(change.ids), len(change.tombstones)
    large = pa.types.is_large_binary(schema.field("row").type)
    offsets = np.empty(rows + gone + 1, np.int64 if large else np.int32)
    offsets[: rows + 1] = np.arange(rows + 1) * change.spec.row_bytes
    offsets[rows + 1 :] = change.rows.nbytes
    valid = None
    if gone:
        valid = pa.array(np.arange(rows + gone) < rows).buffers()[1]
    data = pa.py_buffer(np.ascontiguousarray(change.rows))
    row = pa.Array.from_buffers(schema.field("row").type, rows + gone, [valid, pa.py_buffer(offsets), data])
    ids = np.concatenate([change.ids, change.tombstones])
    scale = np.concatenate([change.scale, np.zeros(gone, np.float32)])
    return pa.record_batch([pa.array(ids), pa.array(scale), row], schema=schema)


def read_delta(data: bytes | memoryview | pa.Buffer, *, name: str = "delta") -> Delta:
    """The delta in `data`, as views of it: `data` must not change. `name` is for errors: DamagedFile, NewerFormat.

    Check the SHA-256 first: this checks the rules of the format, not the values of the rows.
    """
    try:
        reader = pa.ipc.open_file(pa.py_buffer(data))
        return _delta_of(reader, name)
    except HeadraceError:
        raise
    except (pa.ArrowException, ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise DamagedFile(f"{name} is not a delta or snapshot: {error}", hint=_DAMAGED_HINT, path=name) from error


_DAMAGED_HINT = "run `headrace log verify --deep`; replicas keep serving the version before"


def _delta_of(reader: pa.RecordBatchFileReader, name: str) -> Delta:
    meta = json.loads(reader.schema.metadata[b"headrace"])
    if meta["format"] > FORMAT:
        raise NewerFormat(
            f"{name} has format {meta['format']}, this headrace reads up to {FORMAT}",
            hint="upgrade headrace on this machine",
            path=name,
        )
    batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    if len(batches) != len(meta["tables"]) + meta["tower"]:
        raise ValueError(f"{len(batches)} batches, {len(meta['tables'])} tables")
    changes = tuple(_change_of(batch, table) for batch, table in zip(batches, meta["tables"], strict=False))
    tower = batches[-1].column("row")[0].as_py() if meta["tower"] else None
    numbers = Numbers(tuple(meta["numbers"]["mean"]), tuple(meta["numbers"]["scale"]))
    return Delta(meta["of"], meta["base"], changes, tower, numbers)


def _change_of(batch: pa.RecordBatch, table: dict[str, Any]) -> Change:
    spec = TableSpec(table["name"], table["width"], table["encoding"], tuple(table["features"]))
    rows, gone = table["rows"], table["tombstones"]
    row = batch.column("row")
    if batch.num_rows != rows + gone or row.null_count != gone:
        raise ValueError(f"table {spec.name}: {batch.num_rows} lines for {rows} rows and {gone} tombstones")
    _, offsets_buffer, data = row.buffers()
    wide = np.int64 if pa.types.is_large_binary(row.type) else np.int32
    offsets = np.frombuffer(offsets_buffer, wide)[: rows + 1]
    if not np.array_equal(offsets, np.arange(rows + 1) * spec.row_bytes):
        raise ValueError(f"table {spec.name}: rows that are not {spec.row_bytes} bytes")
    encoded = np.frombuffer(data, np.uint8, rows * spec.row_bytes) if rows else np.empty(0, np.uint8)
    ids = batch.column("id").to_numpy()
    scale = batch.column("scale").to_numpy()[:rows]
    change = Change(spec, ids[:rows], scale, encoded.reshape(rows, spec.row_bytes), ids[rows:])
    problem = _problem(change)
    if problem:
        raise ValueError(f"table {spec.name}: {problem}")
    return change


def load_delta(store: Store, path: str, sha256: str) -> Delta:
    """The verified delta or snapshot at `path`: mapped where the store is local. NotFound, DamagedFile, NewerFormat."""
    from headrace.arrow import buffer_at  # not needed where there is no store (headrace/pyfunc.py)

    try:
        data = buffer_at(store, path)
    except NotFound as error:
        raise NotFound(
            f"{path} is missing",
            hint="replicas serve the version before until it is restored from a copy of the root, or a later snapshot "
            "leads past it",
            path=path,
        ) from error
    check_sha256(memoryview(data), sha256, path)
    return read_delta(data, name=path)
