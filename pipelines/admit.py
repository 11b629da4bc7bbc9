"""What of a tick's new events becomes pending: not what is late, not what is a duplicate.

Pure functions of the new rows, the runs from before the tick and the watermark before it. `pipelines.label` says what
counts as late and as a duplicate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.runs import content_hash, event_keys, gather, probe, standing, starts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipelines.label import LabelPolicy
    from pipelines.runs import Run

__all__ = ["Admitted", "admit_feedback", "admit_impressions", "answered"]

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
    """New impressions against each other and against the pending ones."""
    features = table.drop_columns(INPUT)
    key, ts, tie = event_keys(table["_id"]), table["_ts"].to_numpy(), content_hash(features)
    late = ts + policy.life_us < before_us
    duplicate, copy = _repeated(key, ts, tie, ~late, policy.attribution_us)

    query, refs = _live(impressions, key, ~late, before_us - policy.life_us)
    hit_ts, hit_tie = gather(impressions, refs, "_ts"), gather(impressions, refs, "_hash")
    near = np.abs(hit_ts - ts[query]) <= policy.attribution_us
    equal = (hit_ts == ts[query]) & (hit_tie == tie[query])
    larger = (hit_ts > ts[query]) | (hit_ts == ts[query]) & (hit_tie > tie[query])
    duplicate[query[near & ~larger]] = True
    copy[query[equal]] = True
    rivals = np.flatnonzero(near & larger & standing(impressions, refs))
    out = _is_out(key[query[rivals]], hit_ts[rivals], feedback, before_us, policy)
    duplicate[query[rivals[out]]] = True
    fallen = np.unique(refs[rivals[~out]])

    fresh = np.flatnonzero(~late & ~duplicate)
    echo = np.flatnonzero(duplicate & ~copy)
    taken = table.take(pa.array(fresh))
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
        "_event": np.concatenate([key[echo], gather(impressions, fallen, "_event")]),
        "_ts": np.concatenate([ts[echo], gather(impressions, fallen, "_ts")]),
        "_hash": np.concatenate([tie[echo], gather(impressions, fallen, "_hash")]),
    }
    rows = pa.concat_tables([rows, void_rows(rows.schema, void)])
    return Admitted(rows, late, duplicate, gather(impressions, fallen, "_partition"))


def admit_feedback(table: pa.Table, feedback: Sequence[Run], before_us: int, policy: LabelPolicy) -> Admitted:
    """New feedback; it repeats when id, time and label do."""
    key, ts = event_keys(table["_id"]), table["_ts"].to_numpy()
    label = table["_label"].fill_null(0).to_numpy()
    late = ts + policy.life_us < before_us
    _, duplicate = _repeated(key, ts, label, ~late, 0)
    query, refs = _live(feedback, key, ~late, before_us - policy.life_us)
    same = (gather(feedback, refs, "_ts") == ts[query]) & (gather(feedback, refs, "_label") == label[query])
    duplicate[query[same]] = True
    fresh = np.flatnonzero(~late & ~duplicate)
    rows = pa.table(
        {
            "_event": key[fresh],
            "_ts": ts[fresh],
            "_label": label[fresh].astype(np.float32),
            "_partition": table["_partition"].take(pa.array(fresh)).cast(pa.int32()),
            "_offset": table["_offset"].take(pa.array(fresh)),
        }
    )
    return Admitted(rows, late, duplicate, np.empty(0, np.int32))


def answered(
    key: NDArray[np.uint64], ts: NDArray[np.int64], feedback: Sequence[Run], until_us: int, attribution_us: int
) -> NDArray[np.bool_]:
    """Which impressions have feedback before `until_us`."""
    out = np.zeros(len(key), bool)
    query, refs = probe(feedback, key)
    f = gather(feedback, refs, "_ts")
    out[query[(f >= ts[query]) & (f - ts[query] <= attribution_us) & (f < until_us)]] = True
    return out


def void_rows(schema: pa.Schema, columns: dict[str, NDArray[np.uint64] | NDArray[np.int64]]) -> pa.Table:
    """Rows with these columns, `_void` set and everything else null (partition 0)."""
    rows = len(columns["_ts"])
    given = {**columns, "_void": np.ones(rows, np.uint8), "_partition": np.zeros(rows, np.int32)}
    arrays = [pa.array(given[f.name], f.type) if f.name in given else pa.nulls(rows, f.type) for f in schema]
    return pa.table(arrays, schema=schema)


def _repeated(
    key: NDArray[np.uint64], ts: NDArray[np.int64], tie: NDArray[np.uint64], on: NDArray[np.bool_], within_us: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(near, copy): which rows have a smaller one of their key within that time; which equal one in everything."""
    near, copy = np.zeros(len(key), bool), np.zeros(len(key), bool)
    rows = np.flatnonzero(on)
    rows = rows[np.lexsort((tie[rows], ts[rows], key[rows]))]
    gap = np.diff(ts[rows], prepend=0)
    near[rows] = ~starts(key[rows]) & (gap <= within_us)
    copy[rows] = ~starts(key[rows], ts[rows], tie[rows])
    return near, copy


def _live(
    runs: Sequence[Run], key: NDArray[np.uint64], on: NDArray[np.bool_], since_us: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(query, ref) of the pending rows with the same key that still live."""
    asked = np.flatnonzero(on)
    query, refs = probe(runs, key[asked])
    alive = gather(runs, refs, "_ts") >= since_us
    return asked[query[alive]], refs[alive]


def _is_out(
    key: NDArray[np.uint64], ts: NDArray[np.int64], feedback: Sequence[Run], before_us: int, policy: LabelPolicy
) -> NDArray[np.bool_]:
    """Which pending impressions have an observed row already."""
    if policy.explicit:
        return answered(key, ts, feedback, before_us, policy.attribution_us)
    return np.asarray(ts + policy.wait_us < before_us)
