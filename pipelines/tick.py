"""One tick: run a plan and commit its record. Nothing is visible before the commit.

1. The plan is made: ranges, clocks, what is declared          pipeline.planned         nothing was read
2. Workers read, parse and join                                pipeline.read            nothing was written
3. Each part writes its shard file                             pipeline.shards_written  files that no record names
4. Each part writes its runs and quarantine, then its result   pipeline.state_written   the same
5. Results are gathered, invalid events weighed, sums checked,
   what sources want kept aside is written                     pipeline.before_commit   the same
6. The record is appended (`headrace.log`); the log is the lock
7. The record is durable                                       pipeline.committed       it is the head from now on
8. Result files are deleted; a process that dies before leaves garbage of a committed number

A process that dies anywhere is followed by one that plans again from the head: the same ranges give the same rows.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import headrace
from headrace import failpoints, lines
from headrace.errors import AccountingError, MissingFeature, TooManyInvalid
from headrace.place import path_of
from headrace.shard import KIND, Quarantine, Range, Shard, ShardRecord
from headrace.window import closed_us
from pipelines.aside import write_aside
from pipelines.events import REASONS
from pipelines.known import hint_for
from pipelines.orders import PartOrder, PartResult, ReadOrder, Report, Setup, Tick, clocks_after
from pipelines.plan import Plan, orders_of
from pipelines.sources.quarantine import BROKEN, BROKEN_PIECE, RETRIED
from pipelines.work import result_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.log import Entry, Log
    from headrace.store import Store

__all__ = ["Weighing", "commit", "make"]


ENOUGH = 100  # events before a share of invalid ones says anything


@dataclass(frozen=True)
class Weighing:
    """How many invalid events are too many: a share of a tick."""

    alarm: float
    stop: float


def make(
    setup: Setup, plan: Plan, tick: Tick, run: Callable[[Sequence[Any]], None], store: Store, weighing: Weighing
) -> tuple[ShardRecord, list[str]]:
    """Steps 2 to 5: the record of a plan, not yet committed, and the result files to delete."""
    orders = orders_of(setup, plan, tick)
    run(orders)
    paths = [result_path(order) for order in orders if isinstance(order, PartOrder)]
    results = [PartResult(**json.loads(store.read(path))) for path in paths]
    reports = _agreed(results, [order for order in orders if isinstance(order, ReadOrder)])
    _weigh(setup, plan, reports, weighing)
    _say_broken(plan, reports)
    _features_seen(setup, plan, reports)
    record = _record(setup, plan, results, reports)
    record = replace(record, ranges=tuple(_with_aside(store, plan, tick, *one) for one in enumerate(record.ranges)))
    record.check(plan.previous, {name: stream.role for name, stream in setup.streams.items()})
    return record, paths


def commit(log: Log, plan: Plan, record: ShardRecord, committed_at_us: int) -> Entry:
    """Steps 6 and 7. LostRace if another writer was first."""
    failpoints.hit("pipeline.before_commit")
    entry = log.append(KIND, replace(record, committed_at_us=committed_at_us).to_body(), plan.parent)
    failpoints.hit("pipeline.committed")
    return entry


def _with_aside(store: Store, plan: Plan, tick: Tick, number: int, one: Range) -> Range:
    if one.key not in plan.asides:
        return one
    return replace(one, aside=write_aside(store, tick.path("state", f"aside-{number}", "json"), plan.asides[one.key]))


def _agreed(results: Sequence[PartResult], reads: Sequence[ReadOrder]) -> list[Report]:
    """The reports, which all parts must have seen alike."""
    seen = [sorted(result.reports, key=lambda one: one["number"]) for result in results]
    marks = {result.watermark_us for result in results}
    if len(marks) != 1 or any(other != seen[0] for other in seen) or len(seen[0]) != len(reads):
        raise AccountingError(
            "the parts of a tick saw different reports",
            hint="this is a defect of headrace or of the runner: nothing was committed; please report it",
        )
    return [Report(**report) for report in seen[0]]


def _weigh(setup: Setup, plan: Plan, reports: Sequence[Report], weighing: Weighing) -> None:
    """Warn, or raise TooManyInvalid, when a stream's events do not look like what the settings say."""
    for stream in sorted({one.stream for one in plan.ranges}):
        mine = [report for report in reports if plan.ranges[report.index].stream == stream]
        invalid = sum(report.invalid for report in mine)
        total = invalid + sum(report.accepted for report in mine)
        known = _accepted_before(plan, stream)
        if total and (invalid / total > weighing.stop) and (total >= ENOUGH or (not known and invalid == total)):
            raise _too_many(setup, plan, stream, mine, weighing)
        if total >= ENOUGH and invalid / total > weighing.alarm:
            lines.QUARANTINE_ALARM(stream=stream, refused=invalid, of=total, record=plan.seq)


def _say_broken(plan: Plan, reports: Sequence[Report]) -> None:
    """A file or a piece is one event, however much of the stream it was: its share alarms nobody."""
    for report in reports:
        one, reasons = plan.ranges[report.index], (report.quarantine or {}).get("reasons", {})
        files, pieces = reasons.get(BROKEN, 0), reasons.get(BROKEN_PIECE, 0)
        if (files or pieces) and one.partition != RETRIED:
            lines.SOURCE_BROKEN(
                "what lies there is not read; `headrace quarantine show` says where that is. Of Avro, Arrow streams and"
                " JSON lines in gzip or zstd, what follows is, from the next whole piece on. In others cut out what"
                " lies there, or go on in a later file",
                stream=one.stream,
                partition=one.partition,
                files=files,
                pieces=pieces,
                record=plan.seq,
            )


def _too_many(setup: Setup, plan: Plan, stream: str, reports: Sequence[Report], weighing: Weighing) -> TooManyInvalid:
    invalid = sum(report.invalid for report in reports)
    total = invalid + sum(report.accepted for report in reports)
    reasons: Counter[str] = Counter()
    for report in reports:
        reasons.update((report.quarantine or {}).get("reasons", {}))
    reason, count = reasons.most_common(1)[0]
    of, near = setup.streams[stream], ""
    place = {"missing_id": of.id, "missing_time": of.time, "missing_label": of.label}.get(reason)
    if place:
        worst = max(reports, key=lambda report: report.invalid)
        near = hint_for(path_of(place), setup.sources[stream], plan.ranges[worst.index])
        near = f"'{place}': {near} " if near else ""
    return TooManyInvalid(
        f"{invalid} of {total} events of stream '{stream}' were refused; most often ({count}) one {REASONS[reason]}",
        hint=f"{near}correct streams.{stream} in the settings or the source; nothing was committed. The limit is"
        f" pipeline.quarantine_stop = {weighing.stop:g}; the refused events, which `headrace quarantine` does not show"
        f" before they are committed, are in {setup.store_url}/"
        f"{next(report.quarantine['path'] for report in reports if report.quarantine)}",
        stream=stream,
        reasons=dict(reasons),
    )


def _accepted_before(plan: Plan, stream: str) -> bool:
    return any(
        count.get("read", 0) > count.get("invalid", 0)
        for key, count in plan.previous.counts.items()
        if key.split("/", 1)[0] == stream
    )


def _features_seen(setup: Setup, plan: Plan, reports: Sequence[Report]) -> None:
    """Raise MissingFeature for a feature that no event of a telling tick has."""
    name, stream = next((name, one) for name, one in setup.streams.items() if one.role == "impression")
    read = [report for report in reports if plan.ranges[report.index].partition != RETRIED]
    told = [report for report in read if plan.ranges[report.index].stream == name and report.accepted]
    accepted = sum(report.accepted for report in told)
    if not told or (accepted < ENOUGH and _accepted_before(plan, name)):
        return
    unseen = sorted(set.intersection(*(set(report.unseen) for report in told)))
    if unseen:
        feature = setup.schema[unseen[0]]
        most = plan.ranges[max(told, key=lambda report: report.accepted).index]
        near = hint_for(feature.path, setup.sources[name], most, feature=True)
        raise MissingFeature(
            f"feature '{feature.name}' reads '{feature.place}', but none of {accepted} events of '{name}' has it",
            hint=(f"{near} " if near else "")
            + f'correct features.{feature.name} (column = "…" names the key of the event), or remove the feature;'
            " nothing was committed",
            feature=feature.name,
            column=feature.place,
            stream=stream.name,
        )


def _record(setup: Setup, plan: Plan, results: Sequence[PartResult], reports: Sequence[Report]) -> ShardRecord:
    previous, watermark_us = plan.previous, results[0].watermark_us
    clocks = clocks_after([one.clock for one in plan.ranges], reports, setup.horizon.disorder_us)
    ranges = tuple(
        replace(one, watermark_us=clock.watermark_us) for one, clock in zip(plan.ranges, clocks, strict=True)
    )
    shards = tuple(Shard.from_json(result.shard) for result in results if result.shard)
    refused = [*(report.quarantine for report in reports), *(result.quarantine for result in results)]
    ends = [window["start"] + setup.horizon.window_us for shard in shards for window in shard.windows]
    return ShardRecord(
        seq=plan.seq,
        ranges=ranges,
        now_us=plan.now_us,
        declared={"complete_until_us": plan.complete_until_us, "drain": plan.drain},
        watermark_us=watermark_us,
        closed_us=max(closed_us(watermark_us, setup.horizon), previous.closed_us),
        open_until_us=max([previous.open_until_us, *ends]),
        shards=shards,
        pending=tuple(meta for result in results for meta in result.runs),
        counts=_counts(previous, ranges, results, reports),
        corrections=previous.corrections + sum(result.corrections for result in results),
        lost=previous.lost,
        quarantine=tuple(Quarantine(**named) for named in refused if named),
        requests=plan.requests or {"cursor": previous.requests["cursor"], "outcomes": []},
        parts=setup.parts,
        policy=setup.recorded,
        schema=setup.schema.fingerprint,
        code=headrace.__version__,
        committed_at_us=0,
    )


def _counts(
    previous: ShardRecord, ranges: Sequence[Range], results: Sequence[PartResult], reports: Sequence[Report]
) -> dict[str, dict[str, int]]:
    """Cumulative counts per partition."""
    counts = {one.key: Counter(previous.counts.get(one.key, {})) for one in ranges}
    for report in reports:
        count = counts[ranges[report.index].key]
        count["read"] += report.accepted + report.invalid
        count["invalid"] += report.invalid
    for result in results:
        for index, name, delta in result.counts:
            counts[ranges[index].key][name] += delta
    return {key: {name: count[name] for name in sorted(count) if count[name]} for key, count in counts.items()}
