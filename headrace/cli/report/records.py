"""What the logs of a loop say of a span of time, as light facts: a day may have 86,400 records of each log.

Logs are read from the newest record back. What is collected meanwhile ends the reading, as the end of the span does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from headrace import status
from headrace.errors import NotFound
from headrace.shard import ShardRecord
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headrace.log import Entry, Log
    from headrace.loop import Loop
    from headrace.version import Ranges

WORKERS: Final = ("pipeline", "trainer", "server")
"""Roles whose life makes time go on: without any of them, a report ends with the last record."""


@dataclass(frozen=True)
class Version:
    """Of a version record; evaluation, verdicts and (what is told of it) gate are as there.

    held_now: how many shard records are held after it.
    """

    seq: int
    kind: str
    committed_us: int
    watermark_us: int | None
    served: int
    lineage: int
    to: int | None
    cursor: int | None
    trained: Ranges
    held: Ranges
    released: Ranges
    held_now: int
    changed: bool  # has a delta
    evaluation: Mapping[str, Any]
    gate: Mapping[str, Any]
    verdicts: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, entry: Entry) -> Version:
        record = VersionRecord.from_entry(entry)
        gate = {name: record.gate[name] for name in ("action", "reasons", "by", "reason", "g3") if name in record.gate}
        return cls(
            record.version,
            record.kind,
            record.created_at_us,
            record.watermark_us,
            record.served,
            record.lineage,
            record.to,
            record.cursor.seq if record.cursor else None,
            record.trained,
            record.held,
            record.released,
            sum(high - low for low, high in record.held_now),
            record.delta is not None,
            record.evaluation,
            gate,
            record.verdicts,
        )


@dataclass(frozen=True)
class Shards:
    """Of a shard record. read: events since the loop began, by stream; refused: {reason: events} of this tick."""

    seq: int
    committed_us: int
    watermark_us: int
    files: int
    rows: int
    positives: int
    refused: Mapping[str, int]
    read: Mapping[str, int]

    @classmethod
    def of(cls, entry: Entry) -> Shards:
        record = ShardRecord.from_entry(entry)
        refused: dict[str, int] = {}
        for file in record.quarantine:
            for reason, count in file.reasons.items():
                refused[reason] = refused.get(reason, 0) + count
        read: dict[str, int] = {}
        for key, counts in record.counts.items():
            stream = key.partition("/")[0]
            read[stream] = read.get(stream, 0) + counts.get("read", 0)
        return cls(
            record.seq,
            record.committed_at_us,
            record.watermark_us,
            len(record.shards),
            record.rows,
            sum(window["positives"] for shard in record.shards for window in shard.windows),
            refused,
            read,
        )


Fact = TypeVar("Fact", Version, Shards)


@dataclass(frozen=True)
class Records:
    """All of a span `[from_us, until_us)`, ascending. `before_*`: the newest record before it, if that is kept.

    counts: of the newest shard record, {"<stream>/<partition>": {class: events}} since the loop began.
    kept: {"versions" | "shards": (oldest, newest number that the root holds)}. running: roles of living processes.
    """

    name: str
    from_us: int
    until_us: int
    versions: list[Version]
    before_version: Version | None
    shards: list[Shards]
    before_shards: Shards | None
    counts: Mapping[str, Mapping[str, int]]
    kept: Mapping[str, tuple[int, int]]
    running: list[status.Heartbeat]

    @property
    def newest(self) -> Version | None:
        return self.versions[-1] if self.versions else self.before_version

    @property
    def newest_shards(self) -> Shards | None:
        return self.shards[-1] if self.shards else self.before_shards


def read_records(
    loop: Loop, *, span_us: int | None, now_us: int, advance: Callable[[int], None] = lambda _: None
) -> Records:
    """The records of the last `span_us` (None = all that are kept). advance: told how many were read so far."""
    running = [beat for beat in status.heartbeats(loop.store) if beat.living(now_us)]
    version_log, shard_log = loop.version_log(), loop.shard_log()
    seqs = {"versions": version_log.seqs(), "shards": shard_log.seqs()}  # shards last: they have what versions name
    until_us = now_us
    if not any(beat.role in WORKERS for beat in running):
        until_us = max(_newest_us(version_log, seqs["versions"]), _newest_us(shard_log, seqs["shards"]))
    from_us = until_us - span_us if span_us is not None else 0
    versions, before_version = _back(version_log, seqs["versions"], Version.of, from_us, advance)
    done = len(versions)
    shards, before_shards = _back(shard_log, seqs["shards"], Shards.of, from_us, lambda read: advance(done + read))
    if before_version is None and before_shards is None:
        times = [*(one.committed_us for one in versions), *(one.committed_us for one in shards)]
        from_us = max(from_us, min(times, default=until_us))
    newest = shards[-1] if shards else before_shards
    return Records(
        loop.name,
        from_us,
        until_us,
        versions,
        before_version,
        shards,
        before_shards,
        shard_log.read(newest.seq).body["counts"] if newest else {},
        {name: (found[0], found[-1]) for name, found in seqs.items() if found},
        running,
    )


def total_of(loop: Loop) -> int:
    """How many records there are to read at most."""
    return len(loop.version_log().seqs()) + len(loop.shard_log().seqs())


def _newest_us(log: Log, seqs: Sequence[int]) -> int:
    body = log.read(seqs[-1]).body if seqs else {}
    return int(body.get("created_at_us", body.get("committed_at_us", 0)))


def _back(
    log: Log, seqs: Sequence[int], of: Callable[[Entry], Fact], from_us: int, advance: Callable[[int], None]
) -> tuple[list[Fact], Fact | None]:
    """Facts at or after `from_us`, ascending, and the one before them."""
    found: list[Fact] = []
    for seq in reversed(seqs):
        try:
            one = of(log.read(seq))
        except NotFound:  # collected while we read
            break
        if one.committed_us < from_us:
            return found[::-1], one
        found.append(one)
        advance(len(found))
    return found[::-1], None
