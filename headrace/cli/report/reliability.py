"""Are the scores right? The newest rows, scored again by versions that had not learned them.

Version records hold means, not rows, so the curve cannot come from them. For each of the newest versions that learned
something, its rows are read from their shards and scored by the version that it changed, which was the published one
before those rows were learned: what a server that swaps at once would have answered. Beside it stands a reference: the
version that the trainer calls frozen or, once that is collected, the oldest one that can still be built.

    bin b    rows sorted by score, in `BINS` groups of about as many; ties stay together
    score    mean of the scores of a bin            rate    mean of its labels, with Wilson's 95 % interval
    ece      sum n_b / n |score_b - rate_b|         calibration    sum of scores / sum of labels

Labels are those that were known when a row was emitted, `wait_s` after the impression. Servers raise their scores by
the positives that are still to come (training/arrival.py); that part is taken off here, so that both mean the same.
Rows are the observed ones; of many more than were asked for, an even choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.cli.freshness.measure import calibration, log_loss
from headrace.delta import load_delta
from headrace.errors import NotFound
from headrace.schema import Schema
from headrace.scoring import Inputs
from headrace.shard import ShardRecord, read_shard
from headrace.version import Kept, VersionRecord, path_to
from paramserver.generation import Generation, Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.cli.report.records import Version
    from headrace.log import Log
    from headrace.loop import Loop

Floats = NDArray[np.float64]
BINS: Final = 10
Z: Final = 1.96
MOST_VERSIONS: Final = 200
ENOUGH: Final = 1.5  # times the rows that were wanted: up to there all are scored


@dataclass(frozen=True)
class Bin:
    """Rows of about the same score; low, high: of the interval of the rate."""

    n: int
    score: float
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Scored:
    """labels, live, reference: float64 [n]. versions: first and last that scored as live, in the order of the log."""

    labels: Floats
    live: Floats
    reference: Floats
    versions: tuple[int, int]
    shards: tuple[int, int]
    events_us: tuple[int, int]
    rows_there: int  # of which n were chosen
    reference_version: int
    frozen_of: int | None  # what the trainer calls frozen

    @property
    def frozen(self) -> bool:
        """Whether the reference is the frozen version."""
        return self.reference_version == self.frozen_of

    def to_json(self) -> dict[str, Any]:
        return {
            "n": len(self.labels),
            "of": self.rows_there,
            "positives": float(self.labels.sum()),
            "versions": list(self.versions),
            "shards": list(self.shards),
            "events_us": list(self.events_us),
            "reference": {
                "version": self.reference_version,
                "frozen": self.frozen,
                **_told(self.labels, self.reference),
            },
            "live": _told(self.labels, self.live),
        }


def _told(labels: Floats, scores: Floats) -> dict[str, Any]:
    bins = bins_of(labels, scores)
    return {
        "log_loss": log_loss(labels, scores),
        "calibration": calibration(labels, scores),
        "ece": ece(bins),
        "bins": [vars(one) for one in bins],
    }


def bins_of(labels: Floats, scores: Floats, most: int = BINS) -> list[Bin]:
    """The reliability curve. labels, scores: float64 [n].

    >>> [(one.n, one.rate) for one in bins_of(np.array([0., 1., 0., 1.]), np.array([.1, .9, .2, .8]), 2)]
    [(2, 0.0), (2, 1.0)]
    """
    if not len(scores):
        return []
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - (sizes + 1) / 2  # mean rank of each score: equal scores share a bin
    place = np.minimum((middle * most / len(scores)).astype(int), most - 1)[group.reshape(-1)]
    found = []
    for one in np.unique(place):
        inside = place == one
        n, rate = int(inside.sum()), float(labels[inside].mean())
        found.append(Bin(n, float(scores[inside].mean()), rate, *wilson(rate, n)))
    return found


def wilson(rate: float, n: int) -> tuple[float, float]:
    """95 % interval of a rate seen in n rows (Wilson, 1927).

    >>> [round(end, 4) for end in wilson(0.0, 100)]
    [0.0, 0.037]
    """
    spread = Z / (1 + Z**2 / n) * np.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2))
    middle = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    return max(0.0, float(middle - spread)), min(1.0, float(middle + spread))


def ece(bins: Sequence[Bin]) -> float:
    """Expected calibration error: how far scores and rates lie apart, in probability."""
    n = sum(one.n for one in bins)
    return sum(one.n * abs(one.score - one.rate) for one in bins) / n if n else float("nan")


class Unscored(Exception):
    """Why there is no curve, in words for the page."""


def scored(loop: Loop, versions: Sequence[Version], wanted: int) -> Scored:
    """Scores about `wanted` of the newest rows. `Unscored` if there are none that can be."""
    builder = _Builder(loop)
    chosen = _newest(loop.shard_log(), versions, wanted)
    if not chosen:
        raise Unscored("no version that is kept has learned rows that are kept")
    told = (one.evaluation["frozen"].get("of") for one in reversed(versions) if "frozen" in one.evaluation)
    frozen_of = next(told, None)
    reference = builder.reference(frozen_of, chosen[-1][0])
    chosen = [(one, records) for one, records in chosen if one.seq > reference.version]
    if not chosen:
        raise Unscored(f"version {reference.version} is the only one that can be built: nothing was learned after it")
    recorded = sum(record.rows for _, records in chosen for record in records)
    share = 1.0 if recorded <= ENOUGH * wanted else wanted / recorded
    labels, live, beside, events = [], [], [], []
    there = 0
    for version, records in chosen:
        before = builder.before(version)
        for record in records:
            observed = _observed(loop, record)
            there += observed.num_rows
            rows = observed.take(_spread(observed.num_rows, share))
            if rows.num_rows:
                inputs = Inputs.of(rows.select([feature.name for feature in before.schema.features]))
                labels.append(rows.column("label").to_numpy())
                live.append(before.scorer.score(inputs))
                beside.append(reference.scorer.score(inputs))
                events.append(rows.column("event_time_us").to_numpy())
    if not labels:
        raise Unscored("the newest records have corrections only, which are no rows to score")
    times, seqs = np.concatenate(events), [record.seq for _, records in chosen for record in records]
    return Scored(
        labels=np.concatenate(labels).astype(np.float64),
        live=np.concatenate(live).astype(np.float64),
        reference=np.concatenate(beside).astype(np.float64),
        versions=(chosen[0][0].seq, chosen[-1][0].seq),
        shards=(min(seqs), max(seqs)),
        events_us=(int(times.min()), int(times.max())),
        rows_there=there,
        reference_version=reference.version,
        frozen_of=frozen_of,
    )


def _newest(log: Log, versions: Sequence[Version], wanted: int) -> list[tuple[Version, list[ShardRecord]]]:
    """The newest versions that learned `wanted` rows, ascending, each with its records; of the newest lineage only."""
    found: list[tuple[Version, list[ShardRecord]]] = []
    taken: set[int] = set()
    rows = 0
    for one in reversed(versions):
        if rows >= wanted or len(found) >= MOST_VERSIONS or one.lineage != versions[-1].lineage:
            break
        if one.kind != "delta" or not one.changed or not one.trained:
            continue
        try:
            records = [ShardRecord.from_entry(log.read(seq)) for low, high in one.trained for seq in range(low, high)]
        except NotFound:  # collected
            break
        records = [record for record in records if record.rows and record.seq not in taken]
        taken.update(record.seq for record in records)
        rows += sum(record.rows for record in records)
        found += [(one, records)] if records else []
    return found[::-1]


def _observed(loop: Loop, record: ShardRecord) -> pa.Table:
    """Rows of a record that are no corrections and have a label."""
    table = pa.concat_tables([read_shard(loop.store, shard) for shard in record.shards])
    return table.filter(pc.and_(pc.equal(table.column("row_kind"), "observed"), pc.is_finite(table.column("label"))))


def _spread(rows: int, share: float) -> pa.Array:
    """Places of that share of the rows, evenly spread."""
    return pa.array(np.linspace(0, max(rows - 1, 0), round(rows * share)).astype(np.int64))


class _Builder:
    """Builds versions one after the other; from one to the next only the deltas between them are read."""

    def __init__(self, loop: Loop) -> None:
        self._store = loop.store
        self._log = loop.version_log()
        head = self._log.head()
        self._snapshot = VersionRecord.from_entry(head).snapshot if head else None
        self._memory: tuple[int, Tables] | None = None

    def read(self, version: int) -> VersionRecord:
        return VersionRecord.from_entry(self._log.read(version))

    def before(self, version: Version) -> Generation:
        """The version that `version` changed, without what late positives add."""
        base = self.read(version.seq).base
        assert base is not None, "only a start has none"
        return self._built(base)

    def reference(self, frozen_of: int | None, newest: Version) -> Generation:
        """Version `frozen_of`, else the oldest one of the lineage of `newest` that learned and can be built."""
        if frozen_of is not None and (found := self._try(frozen_of)) is not None:
            return found
        for seq in self._log.seqs():
            found = self._try(seq, newest.lineage)
            if found is not None:
                return found
        raise Unscored("no version can be built from what the root holds")

    def _try(self, version: int, lineage: int | None = None) -> Generation | None:
        """None if it is no longer kept, did not learn, or is of another lineage."""
        try:
            record = self.read(version)
            if record.delta is None or lineage not in (None, record.lineage):
                return None
            return self._built(version)
        except NotFound:  # collected
            return None

    def _built(self, version: int) -> Generation:
        record = self.read(version)
        known = [self._snapshot, *([Kept(self._memory[0], "", "", 0)] if self._memory else [])]
        path = path_to(version, self.read, known)
        tables = Tables()
        if path.snapshot is not None and self._memory and path.snapshot.of == self._memory[0]:
            tables = self._memory[1]
        elif path.snapshot is not None:
            tables = tables.changed(load_delta(self._store, path.snapshot.path, path.snapshot.sha256))
        for step in path.deltas:
            assert step.delta is not None, "path_to names only versions with one"
            tables = tables.changed(load_delta(self._store, step.delta.path, step.delta.sha256))
        self._memory = version, tables
        Generation(record, Schema.from_json(record.schema), tables).check()
        plain = replace(record, offset=record.offset - _correction(record, self.read))
        return Generation(plain, Schema.from_json(record.schema), tables)


def _correction(record: VersionRecord, read: Callable[[int], VersionRecord]) -> float:
    """What late positives add to the logits of a version: said by the record that made its table."""
    while record.delta is None and record.table_of is not None:
        record = read(record.table_of)
    return float(record.gate.get("correction") or 0.0)
