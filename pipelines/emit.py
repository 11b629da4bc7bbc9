"""The rows that a tick makes, once the feedback of each impression is in order (`pipelines.label` has the rules)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.pending import FOREVER
from pipelines.runs import ROW_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.label import Answers
    from pipelines.pending import Pending, Tick

__all__ = ["Emission", "explicit", "implicit", "rows_of"]


@dataclass(frozen=True)
class Emission:
    """Rows to write: ref of the impression, int64 [n]; label float32 [n]; delay -1 = null."""

    ref: NDArray[np.int64]
    emit_us: NDArray[np.int64]
    label: NDArray[np.float32]
    correction: NDArray[np.bool_]
    delay_us: NDArray[np.int64]


def explicit(
    tick: Tick,
    shown: Pending,
    touched: NDArray[np.int64],
    is_due: NDArray[np.bool_],
    answers: Answers,
    first: NDArray[np.bool_],
    revision: NDArray[np.bool_],
) -> Emission:
    """A row per first feedback and revision; what is due without any feedback expires."""
    has = np.zeros(len(touched), bool)
    has[answers.owner] = True
    partition = shown.get(touched, "_partition")
    tick.counts.leave("impression", partition[is_due & ~has], "expired")
    tick.counts.leave("impression", partition[answers.owner[first]], "emitted")
    out = answers.pick(first | revision)
    ref = touched[out.owner]
    return Emission(ref, out.time_us, out.label, revision[first | revision], out.time_us - shown.get(ref, "_ts"))


def implicit(
    tick: Tick,
    shown: Pending,
    touched: NDArray[np.int64],
    is_due: NDArray[np.bool_],
    answers: Answers,
    first: NDArray[np.bool_],
) -> Emission:
    """A row per due impression; a correction per first feedback of one that is out with label 0."""
    ts, wait = shown.get(touched, "_ts"), tick.policy.wait_us
    earliest = np.full(len(touched), FOREVER)
    np.minimum.at(earliest, answers.owner, answers.time_us)
    now = np.flatnonzero(is_due)
    positive = earliest[now] - ts[now] <= wait
    tick.counts.leave("impression", shown.get(touched[now], "_partition"), "emitted")

    negative = shown.is_old(touched) & (ts + wait < tick.before)  # out before, and unanswered if `first`
    negative[now[~positive]] = True
    late = answers.pick(first & negative[answers.owner])
    return Emission(
        ref=np.concatenate([touched[now], touched[late.owner]]),
        emit_us=np.concatenate([ts[now] + wait, late.time_us]),
        label=np.concatenate([positive, np.ones(len(late.owner))]).astype(np.float32),
        correction=np.repeat([False, True], [len(now), len(late.owner)]),
        delay_us=np.concatenate([np.where(positive, earliest[now] - ts[now], -1), late.time_us - ts[late.owner]]),
    )


def rows_of(shown: Pending, emission: Emission, features: pa.Schema) -> pa.Table:
    order = np.argsort(emission.ref >> ROW_BITS, kind="stable")
    taken = shown.take(emission.ref[order], ["_id", "_ts", *features.names])
    if taken is None:
        taken = pa.schema([("_id", pa.large_string()), ("_ts", pa.int64()), *features]).empty_table()
    delay = emission.delay_us[order]
    columns = {
        "impression_id": taken["_id"].cast(pa.string()),
        "event_time_us": taken["_ts"],
        "emit_time_us": pa.array(emission.emit_us[order], pa.int64()),
        "label": pa.array(emission.label[order], pa.float32()),
        "row_kind": pa.array(["observed", "correction"]).take(pa.array(emission.correction[order].view(np.int8))),
        "delay_us": pa.array(delay, pa.int64(), mask=delay < 0),
        "sample_rate": pa.array(np.ones(len(delay)), pa.float32()),
    }
    return pa.table({**columns, **{name: taken[name] for name in features.names}})
