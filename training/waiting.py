"""Shard records that are committed and neither trained nor held: what the trainer has yet to learn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError, NotFound, SettingsError
from headrace.log import Follower
from headrace.shard import ShardRecord, read_shard
from headrace.version import difference
from training.examples import COLUMNS, Examples, examples_of

if TYPE_CHECKING:
    from headrace.log import Cursor, Entry, Log
    from headrace.schema import Schema
    from headrace.version import Ranges, VersionRecord


AT_ONCE = 32
"""Records that are in memory whole: 75 KB each in a busy loop."""


class Waiting:
    """Follows the shard log from `cursor` (None: from its first record) on.

    rows: of all that wait. A trigger may let a day of records wait, so that only what is learned of each is kept.

    A lineage that has learned nothing yet leaves out the records with other features that stand before its first own
    one: they were made for the lineage before it. Later ones are not left out: `examples_in` refuses them.
    """

    def __init__(self, log: Log, cursor: Cursor | None, schema: Schema) -> None:
        self._follower = Follower(log, cursor)
        self._cursors: dict[int, Cursor] = {}
        self._records: list[ShardRecord] = []
        self._own_first = None if cursor is not None else schema.fingerprint
        self.left_out = self.rows = 0

    def poll(self) -> list[ShardRecord]:
        """All records that wait, in order of the log. LogRewritten, DamagedFile, NewerFormat."""
        some = False
        while True:
            try:
                entries = self._follower.poll(AT_ONCE)
            except HeadraceError:
                if some:  # what stands before it comes first
                    return self._records
                raise
            for entry in entries:
                self._take(entry)
            some = len(entries) == AT_ONCE
            if not some:
                return self._records

    def _take(self, entry: Entry) -> None:
        record = _light(ShardRecord.from_entry(entry))
        if self._own_first is not None and record.schema != self._own_first:
            self.left_out += 1
            return
        self._own_first = None
        self._cursors[entry.seq] = entry.cursor()
        self._records.append(record)
        self.rows += record.rows

    def cursor_of(self, record: ShardRecord) -> Cursor:
        return self._cursors[record.seq]

    def drop(self, until: Cursor) -> None:
        """Records up to `until` were trained or held."""
        self._records = [record for record in self._records if record.seq > until.seq]
        self.rows = sum(record.rows for record in self._records)
        self._cursors = {seq: cursor for seq, cursor in self._cursors.items() if seq > until.seq}


def _light(record: ShardRecord) -> ShardRecord:
    """Without what only the pipeline needs: its runs, ranges and counts."""
    return replace(record, pending=(), ranges=(), counts={}, quarantine=(), lost=(), declared={}, requests={})


def releasable(log: Log, head: VersionRecord, shards: Ranges, schema: Schema) -> tuple[list[ShardRecord], str]:
    """The records of `shards` that `head` holds, and why they cannot be released; empty if they can."""
    others = difference(shards, head.held_now)
    if others:
        return [], f"shard record {others[0][0]} is not held"
    try:
        records = [ShardRecord.from_entry(log.read(seq)) for low, high in shards for seq in range(low, high)]
    except NotFound as gone:
        return [], f"{gone.message}: it was held longer than retention.held_s"
    foreign = [record.seq for record in records if record.schema != schema.fingerprint]
    return records, f"shard record {foreign[0]} has other features" if foreign else ""


def examples_in(log: Log, record: ShardRecord, schema: Schema) -> Examples:
    """The rows of a record in training order. DamagedFile, NotFound; SettingsError if it has other features."""
    if record.schema != schema.fingerprint:
        raise SettingsError(
            f"shard record {record.seq} has the features {record.schema}, the settings those of {schema.fingerprint}",
            hint="the pipeline runs with other [features] than this trainer: start both with the same settings; where "
            "they change, the trainer begins a new lineage",
            seq=record.seq,
        )
    columns = [*COLUMNS, *(feature.name for feature in schema.features)]
    tables = [read_shard(log.store, shard, columns) for shard in record.shards]
    return examples_of(tables, schema)


def examples_at(log: Log, seq: int, schema: Schema) -> Examples:
    """The rows of shard record `seq`."""
    return examples_in(log, ShardRecord.from_entry(log.read(seq)), schema)
