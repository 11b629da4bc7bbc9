"""The next version record, made from the newest one: what it repeats, and what each kind of version changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headrace import __version__, clock, lines, version
from headrace.log import Cursor
from headrace.version import VersionRecord, difference, union

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.log import Entry
    from headrace.shard import ShardRecord
    from headrace.version import Kept, Ranges


def following(
    head: VersionRecord, kind: str, asked: Sequence[Entry], outcome: str, *, named: Mapping[str, Kept], now_us: int
) -> VersionRecord:
    """The next record as far as it repeats the head's. asked: requests that it answers with `outcome`.

    named: "snapshot", "checkpoint": those that became durable since.
    """
    record = replace(
        version.following(head, kind, now_us=now_us, code=__version__),
        snapshot=named.get("snapshot", head.snapshot),
        checkpoint=named.get("checkpoint", head.checkpoint),
    )
    if not asked:
        return record
    outcomes = [{"seq": request.seq, "outcome": outcome} for request in asked]
    return replace(record, requests={"cursor": asked[-1].cursor().to_json(), "outcomes": outcomes})


def trained(record: VersionRecord, records: Sequence[ShardRecord], cursor: Cursor) -> VersionRecord:
    """`record`, after it trained `records`, the newest of which is at `cursor`."""
    return replace(
        record,
        cursor=cursor,
        trained=_ranges(records),
        watermark_us=records[-1].watermark_us,
        max_emit_us=_newest_label(records, record.max_emit_us),
    )


def held(record: VersionRecord, records: Sequence[ShardRecord], cursor: Cursor) -> VersionRecord:
    """`record`, after it held `records`."""
    ranges = _ranges(records)
    return replace(record, cursor=cursor, held=ranges, held_now=union(record.held_now, ranges))


def released(record: VersionRecord, records: Sequence[ShardRecord], shards: Ranges) -> VersionRecord:
    """`record`, after it released and trained `records`, whose numbers are `shards`; the cursor stays."""
    return replace(
        record,
        trained=shards,
        released=shards,
        held_now=difference(record.held_now, shards),
        max_emit_us=_newest_label(records, record.max_emit_us),
    )


def decided_us(records: Sequence[VersionRecord], before: int | None) -> int | None:
    """When the last of `records` that trained or held something was made; `before` if none did."""
    return next((one.created_at_us for one in reversed(records) if one.trained or one.held), before)


def answered(record: VersionRecord) -> Cursor | None:
    """Up to where requests were answered."""
    cursor = record.requests.get("cursor")
    return Cursor.from_json(cursor) if cursor else None


def unanswered(record: VersionRecord, asked: Sequence[Entry]) -> list[Entry]:
    """Those of `asked` that came after what was answered."""
    cursor = answered(record)
    return [request for request in asked if cursor is None or request.seq > cursor.seq]


def _ranges(records: Sequence[ShardRecord]) -> Ranges:
    return ((records[0].seq, records[-1].seq + 1),)


def _newest_label(records: Sequence[ShardRecord], before: int | None) -> int | None:
    times = [shard.max_emit_us for record in records for shard in record.shards]
    return max([*times, *([before] if before is not None else [])], default=None)


def tell(record: VersionRecord) -> None:
    """A line for a version that was committed."""
    if record.kind == "hold":
        lines.VERSION_HELD("; ".join(record.gate.get("reasons", ())), version=record.version)
        return
    idle = record.kind == "delta" and not record.trained
    lines.VERSION_COMMITTED(
        f"nothing new to learn: the parameters are those of version {record.base}" if idle else "",
        version=record.version,
        kind=record.kind,
        rows=record.digest.get("rows", 0),
        until=clock.iso(record.watermark_us) if record.watermark_us else None,
    )
