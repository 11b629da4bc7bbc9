"""The shard record and the shard file: what pipelines hand to training.

Shard record: an entry of kind `shard` in `shards/log`. Body:

    ranges              [{stream, partition, identity, from, to, watermark_us, idle_since_us, aside: null or {path,
                        sha256, bytes}: more that the source must remember, in a file]: every known partition,
                        also one that was not read (from = to). A partition keeps its place in this list for ever:
                        its number in pending runs is that place, and new ones, sorted among themselves, come after
                        those of the record before. Positions and identities are JSON values that the source defines;
                        here they are only compared
    now_us              the `now` of every decision in this tick
    declared            {"complete_until_us": int, "drain": bool}: what the caller declared about the streams
    watermark_us        of the loop, after this tick; 0 = nothing is known yet
    closed_us           windows that end at or before it are closed
    open_until_us       end of the newest window for which rows were ever emitted
    shards              [{part, path, sha256, bytes, rows, windows: [{start, rows, positives}], max_emit_us}]
    pending             what the joiner needs next time: its runs and its state, as it defines them
    counts              {"<stream>/<partition>": {class: n}} since the loop began. Per partition every event read is in
                        exactly one class, see SUMS
    corrections         correction rows since the loop began
    lost                [{stream, partition, from, to}]: ranges that an operator accepted as lost
    quarantine          [{path, sha256, rows, reasons: {code: n}}] of this tick
    parts               number of parts; it stays while events are pending
    policy              {mode, wait_us, attribution_us, lateness_us, window_us, disorder_us, idle_us, future_us,
                        record_bytes}: by what this tick decided. The first five stay while anything is pending
    requests            {"cursor": {seq, sha256} | null: up to where requests were answered or passed over,
                        "outcomes": [{"seq", "outcome", "kept": {reason: n}}] of this tick}
    schema, code        fingerprint of the features; version of headrace
    committed_at_us     wall clock at the commit; nothing is decided by it

Shard file: one immutable Parquet file with all rows that one tick emitted for one part, columns

    impression_id string | event_time_us int64 | emit_time_us int64 | window int64 (start, us) | label float32
    row_kind string (observed, correction) | delay_us int64 or null | sample_rate float32 | then the features: int64 id,
    list<int64> ids, or float32 number

sorted by (window, emit_time_us, event_time_us, impression_id, row_kind, label), zstd, page checksums, file metadata
`headrace` = {"format": 1, "schema": fingerprint}. A reader checks the SHA-256 that the record names before it looks.

A reader passes over keys that it does not know, at any depth; what changes the meaning of the others is another kind of
record, another `format` of it, or of a file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.errors import AccountingError, DamagedFile, NewerFormat
from headrace.record import read_verified, sha256_of
from headrace.window import PartitionClock, window_start_us

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.log import Entry
    from headrace.store import Store

__all__ = [
    "BLANK",
    "COLUMNS",
    "SUMS",
    "Policy",
    "Quarantine",
    "Range",
    "Shard",
    "ShardRecord",
    "arrange",
    "known",
    "read_shard",
    "write_shard",
]

KIND = "shard"
FORMAT = 1
ROW_GROUP = 1 << 17
TIMES = ("event_time_us", "emit_time_us", "delay_us")

COLUMNS = pa.schema(
    [
        ("impression_id", pa.string()),
        ("event_time_us", pa.int64()),
        ("emit_time_us", pa.int64()),
        ("window", pa.int64()),
        ("label", pa.float32()),
        ("row_kind", pa.string()),
        ("delay_us", pa.int64()),
        ("sample_rate", pa.float32()),
    ]
)
ORDER = ("window", "emit_time_us", "event_time_us", "impression_id", "row_kind", "label")

SUMS = {  # read = the sum of these; `pending` is a level, the rest are totals
    "impression": ("emitted", "duplicate", "late", "invalid", "expired", "sampled_out", "pending"),
    "feedback": ("joined", "superseded", "duplicate", "late", "invalid", "expired", "pending"),
}


def known(kind: type, body: Mapping[str, Any]) -> dict[str, Any]:
    """What of a JSON object the fields of a dataclass take; a later headrace may have written more."""
    return {one.name: body[one.name] for one in fields(kind) if one.name in body}


@dataclass(frozen=True)
class Policy:
    """By what one tick decided: the settings of labels and times in microseconds, and the limits of an event."""

    mode: Literal["implicit", "explicit"] = "implicit"
    wait_us: int = 0
    attribution_us: int = 0
    lateness_us: int = 0
    window_us: int = 60_000_000
    disorder_us: int = 5_000_000
    idle_us: int = 10_000_000
    future_us: int = 300_000_000
    record_bytes: int = 65_536

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Policy:
        return Policy(**known(Policy, body))


@dataclass(frozen=True)
class Range:
    """What one tick read of one partition, `[start, end)`, and how far the partition's clock is after it."""

    stream: str
    partition: str
    identity: Any
    start: Any
    end: Any
    watermark_us: int = 0
    idle_since_us: int | None = None
    aside: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        return f"{self.stream}/{self.partition}"

    @property
    def clock(self) -> PartitionClock:
        return PartitionClock(self.watermark_us, self.idle_since_us)

    def to_json(self) -> dict[str, Any]:
        body = asdict(self)
        body["from"], body["to"] = body.pop("start"), body.pop("end")
        return body

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Range:
        return Range(**known(Range, {**body, "start": body["from"], "end": body["to"]}))


@dataclass(frozen=True)
class Shard:
    """One shard file as a record names it. `windows`: [{start, rows, positives}], rising by start."""

    part: int
    path: str
    sha256: str
    bytes: int
    rows: int
    windows: tuple[Mapping[str, int], ...]
    max_emit_us: int

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "windows": [dict(window) for window in self.windows]}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Shard:
        return Shard(**{**known(Shard, body), "windows": tuple(body["windows"])})


@dataclass(frozen=True)
class Quarantine:
    """A file of refused events as a record names it."""

    path: str
    sha256: str
    rows: int
    reasons: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "sha256": self.sha256, "rows": self.rows, "reasons": dict(self.reasons)}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Quarantine:
        return Quarantine(**known(Quarantine, body))


@dataclass(frozen=True)
class ShardRecord:
    """One entry of the shard log. See the module's docstring for the fields."""

    seq: int
    ranges: tuple[Range, ...]
    now_us: int
    watermark_us: int
    closed_us: int
    open_until_us: int
    shards: tuple[Shard, ...]
    pending: tuple[Mapping[str, Any], ...]
    counts: Mapping[str, Mapping[str, int]]
    schema: str
    code: str
    committed_at_us: int
    policy: Policy = Policy()
    declared: Mapping[str, Any] = field(default_factory=lambda: {"complete_until_us": 0, "drain": False})
    parts: int = 1
    corrections: int = 0
    lost: tuple[Mapping[str, Any], ...] = ()
    quarantine: tuple[Quarantine, ...] = ()
    requests: Mapping[str, Any] = field(default_factory=lambda: {"cursor": None, "outcomes": []})

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def to_body(self) -> dict[str, Any]:
        body = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "seq"}
        for name in ("ranges", "shards", "quarantine"):
            body[name] = [item.to_json() for item in body[name]]
        return {**body, "policy": self.policy.to_json(), "pending": list(self.pending), "lost": list(self.lost)}

    @staticmethod
    def from_entry(entry: Entry) -> ShardRecord:
        """The record that an entry of the shard log is. `NewerFormat` for a kind that this headrace does not know."""
        if entry.kind != KIND:
            raise NewerFormat(
                f"record {entry.seq} of the shard log is of the kind '{entry.kind}', which this headrace does not know",
                hint="upgrade headrace in this environment; what is already loaded goes on serving",
                seq=entry.seq,
                kind=entry.kind,
            )
        wanted = ShardRecord.__dataclass_fields__.keys() - {"seq"}
        if not wanted <= entry.body.keys():
            raise DamagedFile(
                f"record {entry.seq} of the shard log has no field {min(wanted - entry.body.keys())!r}",
                hint="run `headrace log verify --deep`; a root that another headrace made needs that headrace",
                seq=entry.seq,
            )
        body = {name: entry.body[name] for name in wanted}
        return ShardRecord(
            seq=entry.seq,
            **{
                **body,
                "ranges": tuple(Range.from_json(item) for item in body["ranges"]),
                "shards": tuple(Shard.from_json(item) for item in body["shards"]),
                "quarantine": tuple(Quarantine.from_json(item) for item in body["quarantine"]),
                "policy": Policy.from_json(body["policy"]),
                "pending": tuple(body["pending"]),
                "lost": tuple(body["lost"]),
            },
        )

    def check(self, previous: ShardRecord, roles: Mapping[str, str]) -> None:
        """Raise AccountingError unless ranges go on where `previous` stopped and the sums of every partition hold.

        `previous`: BLANK before the first; `roles`: stream name -> "impression" or "feedback".
        """
        before = {part.key: part for part in previous.ranges}
        missing = before.keys() - {part.key for part in self.ranges}
        if missing:
            raise AccountingError(f"record {self.seq} forgets the partitions {sorted(missing)}", seq=self.seq)
        if [part.key for part in self.ranges[: len(before)]] != list(before):
            raise AccountingError(f"record {self.seq} gives partitions other numbers than pending rows", seq=self.seq)
        for part in self.ranges:
            earlier = before.get(part.key)
            if earlier is not None and earlier.end != part.start:
                raise AccountingError(
                    f"record {self.seq} reads {part.key} from {part.start}, but {earlier.end} was committed",
                    hint="this is a defect of headrace: nothing was committed; please report it",
                    seq=self.seq,
                )
            self._check_sum(part, roles[part.stream])
        if self.watermark_us < previous.watermark_us:
            raise AccountingError(f"record {self.seq} would move the watermark back", seq=self.seq)

    def _check_sum(self, part: Range, role: str) -> None:
        count = self.counts.get(part.key, {})
        classes = sum(count.get(name, 0) for name in SUMS[role])
        if count.get("read", 0) != classes or min(count.values(), default=0) < 0:
            raise AccountingError(
                f"record {self.seq}: {part.key} read {count.get('read', 0)} events, its classes add up to {classes}",
                hint="this is a defect of headrace: nothing was committed; please report it",
                seq=self.seq,
                counts=dict(count),
            )


BLANK: Final = ShardRecord(
    seq=-1,
    ranges=(),
    now_us=0,
    watermark_us=0,
    closed_us=0,
    open_until_us=0,
    shards=(),
    pending=(),
    counts={},
    schema="",
    code="",
    committed_at_us=0,
)
"""What the first record goes on from: nothing was read, nothing is pending."""


def arrange(rows: pa.Table, window_us: int) -> pa.Table:
    """Example rows of the joiner -> the columns and the order of a shard file."""
    window = window_start_us(rows.column("event_time_us").to_numpy(), window_us)
    rows = rows.append_column("window", pa.array(window, pa.int64()))
    features = [name for name in rows.column_names if name not in COLUMNS.names]
    return rows.select([*COLUMNS.names, *features]).sort_by([(name, "ascending") for name in ORDER])


def write_shard(store: Store, rows: pa.Table, *, path: str, part: int, fingerprint: str) -> Shard:
    """Write arranged rows as one durable shard file."""
    meta = json.dumps({"format": FORMAT, "schema": fingerprint}, sort_keys=True)
    sink = pa.BufferOutputStream()
    rows = rows.replace_schema_metadata(None)
    with pq.ParquetWriter(
        sink,
        rows.schema,
        compression="zstd",
        write_page_checksum=True,
        store_schema=False,
        use_dictionary=_repeating(rows.schema),
        column_encoding=dict.fromkeys(TIMES, "DELTA_BINARY_PACKED"),
    ) as writer:
        writer.write_table(rows, row_group_size=ROW_GROUP)
        writer.add_key_value_metadata({"headrace": meta})  # kept although the Arrow schema is not stored
    data = sink.getvalue()
    store.write(path, memoryview(data))
    return Shard(
        part=part,
        path=path,
        sha256=sha256_of(memoryview(data)),
        bytes=data.size,
        rows=rows.num_rows,
        windows=tuple(_windows_of(rows)),
        max_emit_us=int(rows.column("emit_time_us").to_numpy().max()),
    )


def _repeating(schema: pa.Schema) -> list[str]:
    """Columns worth a dictionary; to build one for numbers, times and event ids would double the time of writing."""
    ids = [field.name for field in schema if field.name not in COLUMNS.names and field.type == pa.int64()]
    lists = [f"{field.name}.list.element" for field in schema if pa.types.is_list(field.type)]
    return ["window", "label", "row_kind", "sample_rate", *ids, *lists]


def _windows_of(rows: pa.Table) -> list[dict[str, int]]:
    starts, first = np.unique(rows.column("window").to_numpy(), return_index=True)
    positive = (rows.column("label").to_numpy() > 0).astype(np.int64)
    sizes = np.diff(np.r_[first, rows.num_rows])
    sums = np.add.reduceat(positive, first)
    return [
        {"start": int(start), "rows": int(size), "positives": int(total)}
        for start, size, total in zip(starts, sizes, sums, strict=True)
    ]


def read_shard(store: Store, shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of a shard after checking its hash (a default Parquet file returns wrong data for most single bit flips)."""
    data = read_verified(store, shard.path, shard.sha256)
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    meta = json.loads((file.metadata.metadata or {}).get(b"headrace", b"{}"))
    if meta.get("format") != FORMAT:
        raise NewerFormat(f"{shard.path} has format {meta.get('format')}, known is {FORMAT}", path=shard.path)
    return file.read(columns=list(columns) if columns is not None else None)
