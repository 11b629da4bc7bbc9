"""What of a tick's new events becomes pending: not what is late, not what is a duplicate.

Pure functions of the new rows, the runs from before the tick and the watermark before it. `pipelines.label` says what
counts as late and as a duplicate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipelines.match import among, distinct, latest, starts
from pipelines.runs import content_hash, event_keys, gather, probe, standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipelines.label import LabelPolicy
    from pipelines.runs import Run

__all__ = ["Admitted", "admit_feedback", "admit_impressions", "void_rows"]

INPUT = ["_id", "_ts", "_partition", "_offset"]


@dataclass(frozen=True)
class Admitted:
    """rows: payload of the new run, void rows last; late, duplicate: bool [n] over the input; fallen: int32 [k],
    partitions of earlier impressions that one of these showed to be duplicates."""

    rows: pa.Table
    late: NDArray[np.bool_]
    duplicate: NDArray[np.bool_]
    fallen: NDArray[np.int32]


def admit_impressions(
    table: pa.Table, impressions: Sequence[Run], feedback: Sequence[Run], before_us: int, policy: LabelPolicy
) -> Admitted:
    """New impressions against each other and against the pending ones, all of an id in the order (ts, content hash).

    A new one is a duplicate when the one before it is near, or the pending winner after it is near and its row is out.
    A pending winner that is not out falls to a new one near before it.
    """
    features = table.drop_columns(INPUT)
    key, ts, tie = event_keys(table["_id"]), table["_ts"].to_numpy(), content_hash(features)
    late = ts + policy.life_us < before_us
    refs = _living(impressions, key[~late], before_us - policy.life_us)
    contested = distinct(np.concatenate([gather(impressions, refs, "_event"), key[~late]]), least=2)
    line = _Line.of(impressions, refs, key, ts, tie, np.flatnonzero(~late & _in_sorted(contested, key)))
    near_us = policy.attribution_us

    winner = np.zeros(len(line.ts), bool)
    winner[~line.is_new] = standing(impressions, refs)[line.source[~line.is_new]]
    fallen = winner & line.near(_before(line.is_new), near_us)
    after = _after(winner)
    blocked = line.is_new & line.near(after, near_us)
    fallen[after[blocked]] = True
    rival = np.flatnonzero(fallen)
    out = np.zeros(len(line.ts), bool)
    out[rival] = _is_out(line.event[rival], line.ts[rival], feedback, before_us, policy)
    repeated = line.near(np.arange(len(line.ts)) - 1, near_us)
    duplicate, copy = np.zeros(len(key), bool), np.zeros(len(key), bool)
    duplicate[line.source[line.is_new & (repeated | blocked & out[after])]] = True
    copy[line.source[line.is_new & ~starts(line.event, line.ts, line.tie)]] = True

    fresh = np.flatnonzero(~late & ~duplicate)
    echo, fell = np.flatnonzero(duplicate & ~copy), np.unique(refs[line.source[fallen & ~out]])
    taken = table.select(["_partition", "_id", *features.column_names]).take(pa.array(fresh))
    rows = pa.table(
        {
            "_event": key[fresh],
            "_ts": ts[fresh],
            "_hash": tie[fresh],
            "_void": np.zeros(len(fresh), np.uint8),
            "_partition": taken["_partition"].cast(pa.int32()),
            "_id": taken["_id"].cast(pa.large_string()),
            **{name: taken[name] for name in features.column_names},
        }
    )
    void = {
        "_event": np.concatenate([key[echo], gather(impressions, fell, "_event")]),
        "_ts": np.concatenate([ts[echo], gather(impressions, fell, "_ts")]),
        "_hash": np.concatenate([tie[echo], gather(impressions, fell, "_hash")]),
    }
    rows = pa.concat_tables([rows, void_rows(rows.schema, void)])
    return Admitted(rows, late, duplicate, gather(impressions, fell, "_partition"))


def admit_feedback(table: pa.Table, feedback: Sequence[Run], before_us: int, policy: LabelPolicy) -> Admitted:
    """New feedback; it repeats when id, time and label do."""
    key, ts = event_keys(table["_id"]), table["_ts"].to_numpy()
    label = table["_label"].fill_null(0).to_numpy().astype(np.float32)
    late = ts + policy.life_us < before_us
    refs = _living(feedback, key[~late], before_us - policy.life_us)
    columns = (label, ts, key)
    known = among(columns, [gather(feedback, refs, name) for name in ("_label", "_ts", "_event")])
    rows = np.flatnonzero(~late)
    rows = rows[np.lexsort([column[rows] for column in columns])]
    duplicate = known & ~late
    duplicate[rows] |= ~starts(*(column[rows] for column in columns))
    fresh = np.flatnonzero(~late & ~duplicate)
    taken = table.select(["_partition", "_offset"]).take(pa.array(fresh))
    payload = {
        "_event": key[fresh],
        "_ts": ts[fresh],
        "_label": label[fresh],
        "_partition": taken["_partition"].cast(pa.int32()),
        "_offset": taken["_offset"],
    }
    return Admitted(pa.table(payload), late, duplicate, np.empty(0, np.int32))


def void_rows(schema: pa.Schema, columns: dict[str, NDArray[np.uint64] | NDArray[np.int64]]) -> pa.Table:
    """Rows with these columns, `_void` set and everything else null (partition 0)."""
    rows = len(columns["_ts"])
    given = {**columns, "_void": np.ones(rows, np.uint8), "_partition": np.zeros(rows, np.int32)}
    arrays = [pa.array(given[f.name], f.type) if f.name in given else pa.nulls(rows, f.type) for f in schema]
    return pa.table(arrays, schema=schema)


@dataclass(frozen=True)
class _Line:
    """Pending and new impressions sorted by (event, ts, content hash), pending ones first where all is equal.

    source: int64 [n], position among the pending ones found, or (is_new) among the new rows.
    """

    event: NDArray[np.uint64]
    ts: NDArray[np.int64]
    tie: NDArray[np.uint64]
    source: NDArray[np.int64]
    is_new: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        runs: Sequence[Run],
        refs: NDArray[np.int64],
        key: NDArray[np.uint64],
        ts: NDArray[np.int64],
        tie: NDArray[np.uint64],
        new: NDArray[np.int64],
    ) -> _Line:
        event = np.concatenate([gather(runs, refs, "_event"), key[new]])
        time = np.concatenate([gather(runs, refs, "_ts"), ts[new]])
        content = np.concatenate([gather(runs, refs, "_hash"), tie[new]])
        order = np.lexsort((content, time, event))
        source = np.concatenate([np.arange(len(refs)), new])[order]
        return cls(event[order], time[order], content[order], source, order >= len(refs))

    def near(self, other: NDArray[np.int64], within_us: int) -> NDArray[np.bool_]:
        """Which places have, at `other` (-1: nowhere), one of their event within that time."""
        same = (other >= 0) & (self.event[other] == self.event)
        return np.asarray(same & (np.abs(self.ts[other] - self.ts) <= within_us))


def _in_sorted(values: NDArray[Any], asked: NDArray[Any]) -> NDArray[np.bool_]:
    if not len(values):
        return np.zeros(len(asked), bool)
    return np.asarray(values.take(values.searchsorted(asked), mode="clip") == asked)


def _before(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each place, the last masked one before it; -1: none."""
    place = np.maximum.accumulate(np.where(mask, np.arange(len(mask)), -1))
    return np.concatenate([np.full(1, -1), place])[: len(mask)]


def _after(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each place, the first masked one after it; -1: none."""
    back = _before(mask[::-1])[::-1]
    return np.where(back < 0, -1, len(mask) - 1 - back)


def _living(runs: Sequence[Run], key: NDArray[np.uint64], since_us: int) -> NDArray[np.int64]:
    """References to the pending rows with one of these keys that still live."""
    refs = probe(runs, key)
    return np.asarray(refs[gather(runs, refs, "_ts") >= since_us])


def _is_out(
    key: NDArray[np.uint64], ts: NDArray[np.int64], feedback: Sequence[Run], before_us: int, policy: LabelPolicy
) -> NDArray[np.bool_]:
    """Which pending impressions have an observed row already."""
    if not policy.explicit:
        return np.asarray(ts + policy.wait_us < before_us)
    refs = probe(feedback, key)
    f = gather(feedback, refs, "_ts")
    owner = latest(key, ts, gather(feedback, refs, "_event"), f)
    out = np.zeros(len(key), bool)
    out[owner[(owner >= 0) & (f - ts[owner] <= policy.attribution_us) & (f < before_us)]] = True
    return out
