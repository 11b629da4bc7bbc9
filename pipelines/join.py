"""One part, one tick: new events and pending runs in, rows and new runs out. A pure function; `pipelines.label` has the
rules.

1. *Admit* new impressions and feedback: what is late or a duplicate is decided here (`pipelines.admit`); the rest is
   indexed and from now on one more run.
2. *Match*: feedback that the watermark passes, or that came behind it, finds its impression. Without one it becomes
   an orphan.
3. *Take*: the feedback of every impression that was matched, is due or came behind the watermark, in order.
4. *Emit* observed and correction rows; explicit impressions past their life without feedback expire.
5. *Bury* orphans past their life: invalid or expired.
6. *Keep* what still lives: drop runs that are past their life as a whole, merge at most one group per kind.

Cost: steps 1 to 4 touch the new, passing and due rows only, each by a binary search per run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.admit import Admitted, admit_feedback, admit_impressions, void_rows
from pipelines.compaction import bucket_of, merge_plan
from pipelines.emit import explicit, implicit, rows_of
from pipelines.events import places
from pipelines.label import Answers, take_in_order
from pipelines.match import among, distinct, latest
from pipelines.pending import FOREVER, Counts, Pending, Tick
from pipelines.runs import NewRun, Run, RunMeta, build, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from pipelines.label import LabelPolicy
    from pipelines.runs import RunKind

__all__ = ["Counts", "JoinResult", "join_part"]


@dataclass(frozen=True)
class JoinResult:
    """What a tick made of a part.

    rows: impression_id, event_time_us, emit_time_us, label, row_kind, delay_us, sample_rate, then the features.
    refused: _kind, _partition, _offset, _ts, _reason ("late", "before_impression").
    runs: metas to keep; new_runs: to be written. counts: see Counts, without "read". corrections: rows of that kind.
    """

    rows: pa.Table
    refused: pa.Table
    runs: list[RunMeta]
    new_runs: list[NewRun]
    counts: dict[tuple[str, int, str], int]
    corrections: int


def join_part(
    runs: Sequence[RunMeta],
    open_run: Callable[[RunMeta], Run],
    impressions: pa.Table,
    feedback: pa.Table,
    *,
    before_us: int,
    watermark_us: int,
    policy: LabelPolicy,
) -> JoinResult:
    """One tick of one part.

    runs: what the last record names for this part. impressions: _id string, _ts int64, _partition int32, _offset (any
    type; struct<file, offset> becomes text where it is told), then the encoded features; feedback: _id, _ts,
    _partition, _offset, _label float32 (null when implicit).
    before_us, watermark_us: the watermark before and after; the greatest int64 = all streams have ended.
    """
    tick = Tick(policy, max(before_us, -FOREVER), min(max(watermark_us, before_us, -FOREVER), FOREVER), Counts())
    pending = {kind: _opened(kind, runs, open_run) for kind in ("impression", "feedback", "orphan")}
    shown, said, orphans = pending["impression"], pending["feedback"], pending["orphan"]

    admitted = admit_impressions(impressions, shown.runs, said.runs, tick.before, policy)
    late = [_admit(tick, "impression", impressions, admitted)]
    shown = shown.with_new(admitted.rows)
    admitted = admit_feedback(feedback, said.runs, tick.before, policy)
    late.append(_admit(tick, "feedback", feedback, admitted))
    said = said.with_new(admitted.rows)

    passing = said.passing(tick.before, tick.watermark)
    owner = _owners(tick, shown, said.get(passing, "_event"), said.get(passing, "_ts"))
    lost = passing[owner < 0]
    due = _due(tick, shown)
    behind = shown.standing(shown.passing(FOREVER, tick.before))
    touched = distinct(np.concatenate([owner[owner >= 0], due, behind]))
    is_due = np.zeros(len(touched), bool)
    is_due[touched.searchsorted(due)] = True

    answers = _answers(tick, shown, said, touched)
    first, revision = take_in_order(answers, len(touched), explicit=policy.explicit)
    found = _count_answers(tick, said, orphans, answers, first | revision, shown.is_old(touched))
    if policy.explicit:
        emission = explicit(tick, shown, touched, is_due, answers, first, revision)
    else:
        emission = implicit(tick, shown, touched, is_due, answers, first)

    orphans = orphans.with_new(_orphan_rows(said, lost, orphans, found))
    refused = pa.concat_tables([*late, *_bury(tick, shown, orphans)])
    kept, new_runs = _keep(tick, [shown, said, orphans], runs)
    features = impressions.drop_columns(["_id", "_ts", "_partition", "_offset"]).schema
    rows = rows_of(shown, emission, features)
    return JoinResult(rows, refused, kept, new_runs, tick.counts.delta, int(emission.correction.sum()))


def _opened(kind: RunKind, metas: Iterable[RunMeta], open_run: Callable[[RunMeta], Run]) -> Pending:
    runs = [open_run(meta) for meta in metas if meta.kind == kind]
    return Pending(kind, runs, len(runs))


def _admit(tick: Tick, kind: RunKind, table: pa.Table, admitted: Admitted) -> pa.Table:
    """Count what came; the late rows, for quarantine."""
    partition = table["_partition"].to_numpy()
    tick.counts.add(kind, partition[admitted.late], "late")
    tick.counts.add(kind, partition[admitted.duplicate], "duplicate")
    tick.counts.add(kind, partition[~admitted.late & ~admitted.duplicate], "pending")
    tick.counts.leave(kind, admitted.fallen, "duplicate")
    return _refused(kind, table.select(["_partition", "_offset", "_ts"]).filter(pa.array(admitted.late)), "late")


def _refused(kind: str, table: pa.Table, reason: str) -> pa.Table:
    table = table.set_column(0, "_partition", table["_partition"].cast(pa.int32()))
    if pa.types.is_struct(table.schema.field("_offset").type):
        table = table.set_column(1, "_offset", places(table["_offset"]))
    table = table.append_column("_kind", pa.array([kind] * table.num_rows, pa.string()))
    return table.append_column("_reason", pa.array([reason] * table.num_rows, pa.string()))


def _owners(tick: Tick, shown: Pending, key: NDArray[np.uint64], f: NDArray[np.int64]) -> NDArray[np.int64]:
    """The impression that each feedback answers; -1: none."""
    refs = shown.probe(key)
    alive = shown.get(refs, "_ts") + tick.policy.life_us >= tick.before
    refs = shown.standing(refs[alive])
    ts = shown.get(refs, "_ts")
    at = latest(shown.get(refs, "_event"), ts, key, f)
    valid = at >= 0
    valid[valid] = f[valid] - ts[at[valid]] <= tick.policy.attribution_us
    owner = np.full(len(key), -1)
    owner[valid] = refs[at[valid]]
    return owner


def _due(tick: Tick, shown: Pending) -> NDArray[np.int64]:
    """Impressions whose fate does not wait for feedback any longer."""
    delay = tick.policy.life_us if tick.policy.explicit else tick.policy.wait_us
    return shown.standing(shown.passing(tick.before - delay, tick.watermark - delay))


def _answers(tick: Tick, shown: Pending, said: Pending, touched: NDArray[np.int64]) -> Answers:
    """All feedback that the watermark has passed, of these impressions."""
    event, ts = shown.get(touched, "_event"), shown.get(touched, "_ts")
    refs = said.probe(event)
    f, by = said.get(refs, "_ts"), said.get(refs, "_event")
    some = _places(touched, shown.probe(by))  # most impressions have none
    owner = latest(event[some], ts[some], by, f)
    owner[owner >= 0] = some[owner[owner >= 0]]
    valid = (owner >= 0) & (f < tick.watermark)
    valid[valid] = f[valid] - ts[owner[valid]] <= tick.policy.attribution_us
    owner, refs, f = owner[valid], refs[valid], f[valid]
    taken = shown.is_old(touched)[owner] & said.is_old(refs) & (f < tick.before)
    return Answers(owner, f, said.get(refs, "_label"), refs, taken).sort()


def _places(touched: NDArray[np.int64], refs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where these of `refs` stand among the touched ones, that do."""
    at = touched.searchsorted(refs)
    return np.asarray(at[touched.take(at, mode="clip") == refs]) if len(touched) else np.empty(0, np.int64)


def _count_answers(
    tick: Tick, said: Pending, orphans: Pending, answers: Answers, joins: NDArray[np.bool_], old: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Move what is taken now from pending to joined or superseded; the orphans that found their impression after all.

    Feedback that was taken before, with an impression that has since fallen to a smaller duplicate, has been counted.
    """
    again = ~old[answers.owner] & said.is_old(answers.ref) & (answers.time_us < tick.before)
    event = said.get(answers.ref[again], "_event")
    wanted = (answers.label[again], answers.time_us[again], event)
    refs = orphans.standing(orphans.probe(event))
    waiting = [orphans.get(refs, name) for name in ("_label", "_ts", "_event")]
    counted = ~answers.taken
    counted[again] = among(wanted, waiting)
    partition = said.get(answers.ref, "_partition")
    tick.counts.leave("feedback", partition[counted & joins], "joined")
    tick.counts.leave("feedback", partition[counted & ~joins], "superseded")
    return np.asarray(refs[among(waiting, wanted)])


def _orphan_rows(said: Pending, lost: NDArray[np.int64], orphans: Pending, found: NDArray[np.int64]) -> pa.Table:
    """New orphans, and a void row for each that was found."""
    rows = said.take(lost, ["_event", "_ts", "_label", "_partition", "_offset"])
    if rows is None and not len(found):
        return pa.table({})
    if rows is None:
        rows = said.runs[0].table.select(["_event", "_ts", "_label", "_partition", "_offset"]).slice(0, 0)
    rows = rows.append_column("_void", pa.array(np.zeros(rows.num_rows, np.uint8)))
    void = {name: orphans.get(found, name) for name in ("_event", "_ts", "_label")}
    return pa.concat_tables([rows, void_rows(rows.schema, void)])


def _bury(tick: Tick, shown: Pending, orphans: Pending) -> list[pa.Table]:
    """Orphans past their life: those that came before their impression are refused, the others expire."""
    life = tick.policy.life_us
    dead = orphans.standing(orphans.passing(tick.before - life, tick.watermark - life))
    f = orphans.get(dead, "_ts")
    refs = shown.probe(orphans.get(dead, "_event"))
    ts = shown.get(refs, "_ts")
    at = latest(shown.get(refs, "_event"), -ts, orphans.get(dead, "_event"), -f - 1)  # the first after f
    invalid = at >= 0
    invalid[invalid] = ts[at[invalid]] - f[invalid] <= tick.policy.attribution_us
    partition = orphans.get(dead, "_partition")
    tick.counts.leave("feedback", partition[invalid], "invalid")
    tick.counts.leave("feedback", partition[~invalid], "expired")
    rows = orphans.take(dead[invalid], ["_partition", "_offset", "_ts"])
    return [] if rows is None else [_refused("feedback", rows, "before_impression")]


def _keep(tick: Tick, sets: Sequence[Pending], metas: Sequence[RunMeta]) -> tuple[list[RunMeta], list[NewRun]]:
    """Runs that still hold life, after at most one merge per kind."""
    alive_us = tick.watermark - tick.policy.life_us
    bucket = bucket_of(tick.watermark, tick.policy.life_us)
    kept: list[RunMeta] = []
    new: list[NewRun] = []
    for pending in sets:
        pairs = list(zip((meta for meta in metas if meta.kind == pending.kind), pending.runs, strict=False))
        pairs = [(meta, run) for meta, run in pairs if meta.max_us >= alive_us]
        if len(pending.runs) > pending.old and (run := _living(pending.runs[-1], alive_us)) is not None:
            pairs.append((_meta(run, 0, bucket), run))
        if group := merge_plan([meta for meta, _ in pairs], bucket):
            picked = [pairs[at] for at in group]
            merged = merge([run for _, run in picked])
            level = 1 + max(meta.level for meta, _ in picked)
            pairs = [pair for at, pair in enumerate(pairs) if at not in group]
            pairs.append((_meta(merged, level, picked[0][0].bucket), merged))
        for meta, run in pairs:
            if meta.path:
                kept.append(meta)
            else:
                new.append(NewRun(meta, run.table))
    return kept, new


def _living(run: Run, alive_us: int) -> Run | None:
    """The run without the rows that are past their life already."""
    if run.min_us >= alive_us:
        return run
    rows = run.payload().filter(pa.array(run.ts >= alive_us))
    return build(run.kind, rows) if rows.num_rows else None


def _meta(run: Run, level: int, bucket: int) -> RunMeta:
    return RunMeta(run.kind, run.rows, run.min_us, run.max_us, level, bucket)
