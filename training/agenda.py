"""What is learned next: records of the shard log that wait, once a trigger is due.

When a trigger is due, all that is ready then is learned, in as many candidates as that takes (training/schedule.py).
The records of a candidate that was refused are tried one by one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace.triggers import due
from training import schedule
from training.reading import ahead
from training.waiting import Waiting, examples_at, examples_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headrace.config.sections import TrainSettings
    from headrace.log import Cursor, Log
    from headrace.schema import Schema
    from headrace.shard import ShardRecord
    from training.examples import Examples

NEXT_S = 0.05  # between two looks for a record


class Agenda:
    """Of the shard log `log`. train: which records make a candidate, and what triggers one."""

    _waiting: Waiting

    def __init__(self, log: Log, schema: Schema, train: TrainSettings) -> None:
        self._log, self._schema, self._train = log, schema, train
        self._singly_until = self._due_until = -1

    def begin(self, cursor: Cursor | None, due_until: int | None) -> None:
        """What waits is from `cursor` on; due_until: the last record that a trigger said to learn, if it waits yet."""
        self._waiting = Waiting(self._log, cursor, self._schema)
        self._due_until = max(self._due_until, -1 if due_until is None else due_until)

    def due(self, decided_us: int | None, now_us: int, *, asked: bool) -> list[ShardRecord]:
        """The records of the next candidate, in order; empty while none is due. asked: no trigger is waited for.

        decided_us: when something was last trained or held.
        """

        def is_due(rows: int) -> bool:
            return asked or due(self._train.triggers, rows=rows, decided_us=decided_us, now_us=now_us)

        waiting, on = self._waiting.poll(), self._train.on
        decided = bool(waiting) and waiting[0].seq <= self._due_until
        if not waiting or not (decided or is_due(self._waiting.rows)):  # before a look at each: a day of them may wait
            return []
        records = schedule.candidate(waiting, on=on)
        if not records:
            return []
        if records[0].seq > self._due_until:
            ready = schedule.ready(waiting, on=on)
            if not is_due(sum(record.rows for record in ready)):
                return []
            self._due_until = ready[-1].seq
        return schedule.smallest(records) if records[0].seq <= self._singly_until else records

    def due_behind(self, cursor: Cursor | None) -> int | None:
        """The last record that a trigger said to learn, if some of that waits behind `cursor`."""
        learned = cursor.seq if cursor is not None else -1
        return self._due_until if self._due_until > learned else None

    def alone(self, refused: Sequence[ShardRecord]) -> list[ShardRecord]:
        """The first part of a refused candidate, each of which is tried alone; empty if it cannot be split."""
        first = schedule.smallest(refused)
        if len(first) == len(refused):
            return []
        self._singly_until = refused[-1].seq
        return first

    def examples(self, records: Sequence[ShardRecord]) -> Iterator[Examples]:
        """The rows of each record, the next one read while one is learned. DamagedFile, NotFound, SettingsError."""
        return ahead(records, lambda record: examples_in(self._log, record, self._schema))

    def examples_at(self, seq: int) -> Examples:
        """The rows of the record with number `seq`."""
        return examples_at(self._log, seq, self._schema)

    def later(self, than: ShardRecord, within_s: float, stop: Callable[[], bool]) -> Examples | None:
        """The rows of the first record that has some after `than`, if one comes `within_s` and before `stop()`."""
        until_s = time.monotonic() + within_s
        while True:
            after = (record for record in self._waiting.poll() if record.seq > than.seq and record.rows)
            record = next(after, None)
            if record is not None:
                rows = examples_in(self._log, record, self._schema)
                return rows if len(rows) else None
            if time.monotonic() >= until_s or stop():
                return None
            time.sleep(NEXT_S)

    def cursor_of(self, record: ShardRecord) -> Cursor:
        """The place of a record that waits."""
        return self._waiting.cursor_of(record)

    def done(self, until: Cursor | None) -> None:
        """What waited up to there was trained or held."""
        if until is not None:
            self._waiting.drop(until)
