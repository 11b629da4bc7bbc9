"""The newest version that a trainer knows, and what the versions before it say: read once, then kept up to date.

Steps 7 and 8 of the commit order (training/trainer.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace import metrics
from headrace.failpoints import hit
from headrace.version import VersionRecord
from training import records as record_of
from training.history import History
from training.surprise import RECENT, Past

if TYPE_CHECKING:
    from headrace.log import Entry, Log


class Head:
    """entry, record: the newest version; past: how surprising the newest ones were; decided_us: when one last trained
    or held something. surprise: `gate.surprise`."""

    entry: Entry
    record: VersionRecord
    past: Past
    decided_us: int | None

    def __init__(self, log: Log, surprise: float) -> None:
        self.history = History(log)
        self._log, self._surprise = log, surprise

    @property
    def version(self) -> int:
        return self.entry.seq

    def read(self) -> None:
        """As of the newest version of the log, which is durable from here on."""
        entry = self._log.head()
        assert entry is not None
        self._log.sync(entry.seq)
        self.entry, self.record = entry, VersionRecord.from_entry(entry)
        newest = self.history.newest(self.record, 2 * RECENT)
        self.past = Past(self._surprise).after(newest)
        self.decided_us = record_of.decided_us(newest, None)

    def append(self, record: VersionRecord) -> None:
        """Steps 7 and 8. LostRace."""
        hit("trainer.before_commit")
        entry = self._log.append(record.kind, record.to_body(), self.entry)
        hit("trainer.committed")
        self.entry, self.record = entry, record
        self.past = self.past.after([record])
        self.decided_us = record_of.decided_us([record], self.decided_us)
        metrics.HOLDS_IN_A_ROW.set(self.past.row)
        metrics.VERSIONS.labels(record.kind).inc()
        record_of.tell(record)
