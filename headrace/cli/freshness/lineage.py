"""The proof inside a backtest: no score came from a version that had learned a label from its own future.

For every scored impression

    event time  >=  the greatest time at which any label in its version's lineage was truly known

The right side is taken twice: from the version's record (`max_emit_us`: when the joiner says that it let the labels
out) and from the history itself (`Truth`: when the label stands in the source). The second does not trust the joiner: a
pipeline that takes a label at the time of its impression passes the first and trips over the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.errors import LineageError
from headrace.ids import ids_of
from headrace.shard import ShardRecord, read_shard

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.log import Log
    from headrace.store import Store
    from headrace.version import VersionRecord

Ints = NDArray[np.int64]

_MIX = np.int64(-7046029254386353131)  # 2^64 / golden ratio: spreads the label over the key's bits
_COLUMNS = ["impression_id", "event_time_us", "label"]


def keys_of(event_ids: pa.Array | pa.ChunkedArray, labels: NDArray[np.float32]) -> Ints:
    """One integer per (event id, label): int64 [n]."""
    bits = np.ascontiguousarray(labels, np.float32).view(np.int32).astype(np.int64)
    with np.errstate(over="ignore"):
        mixed: Ints = ids_of("event", event_ids) ^ ((bits + 1) * _MIX)
    return mixed


@dataclass(frozen=True)
class Truth:
    """When each label was known, as the source says it.

    keys: int64 [n] sorted, one for each (event id, label) of the feedback; known_us: int64 [n], its earliest time.
    wait_us: implicit mode: without feedback, an impression is negative this long after it; None = explicit mode.
    """

    keys: Ints
    known_us: Ints
    wait_us: int | None

    @classmethod
    def of(cls, event_ids: pa.ChunkedArray, labels: NDArray[np.float32], times_us: Ints, wait_us: int | None) -> Truth:
        """From all feedback, in any order."""
        keys = keys_of(event_ids, labels)
        order = np.lexsort((times_us, keys))
        first = np.ones(len(keys), bool)
        first[1:] = keys[order][1:] != keys[order][:-1]
        return cls(keys[order][first], times_us[order][first], wait_us)

    def known(self, rows: pa.Table) -> Ints:
        """When the labels of shard rows were known: int64 [n]. LineageError for a label that the source never had."""
        labels = rows.column("label").to_numpy()
        keys = keys_of(rows.column("impression_id"), labels)
        at = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        found = self.keys[at] == keys if len(self.keys) else np.zeros(len(keys), bool)
        known = self.known_us[at] if len(self.keys) else np.zeros(len(keys), np.int64)
        if self.wait_us is not None:
            silent = (labels == 0) & ~found
            known = np.where(silent, rows.column("event_time_us").to_numpy() + self.wait_us, known)
            found = found | silent
        if not found.all():
            invented = rows.column("impression_id").filter(pa.array(~found)).slice(0, 5).to_pylist()
            raise LineageError(f"shards carry labels that the source never had, of events {invented}", events=invented)
        return known


class Lineage:
    """Greatest true label time among the rows of the first records of a shard log, read as the log grows."""

    def __init__(self, store: Store, log: Log, truth: Truth) -> None:
        self._store, self._log, self._truth = store, log, truth
        self._latest: list[int] = []
        self._first = 0

    def latest_us(self, seq: int) -> int:
        """Greatest label time in the records up to and with `seq`."""
        while len(self._latest) <= seq:
            record = ShardRecord.from_entry(self._log.read(len(self._latest)))
            latest = self._latest[-1] if self._latest else 0
            for shard in record.shards:
                rows = read_shard(self._store, shard, _COLUMNS)
                latest = max(latest, int(self._truth.known(rows).max(initial=0)))
            self._latest.append(latest)
        return self._latest[seq]

    def check(self, version: VersionRecord, times_us: Ints, event_ids: Callable[[int], str]) -> None:
        """Raises LineageError if `version` had learned a label later than the event time of an impression it scored.

        times_us: int64 [n], of the impressions it scored; event_ids(i): id of the i-th.
        """
        if not len(times_us) or version.cursor is None:
            return
        learned_us = max(version.max_emit_us or 0, self.latest_us(version.cursor.seq))
        early = np.flatnonzero(times_us < learned_us)
        if len(early):
            ids = [event_ids(int(i)) for i in early[:5]]
            raise LineageError(
                f"version {version.version} had learned a label of {learned_us} us when it scored {len(early)} "
                f"impressions from before that, such as {ids[0]!r} of {int(times_us[early[0]])} us",
                hint="a label was learned before it was known: check `time` of the stream that carries the labels "
                "(when was the label known, not when was the event?); if that is right, please report it",
                version=version.version,
                events=ids,
            )
