"""What the next tick would read, and whether it has anything to do. Asks the sources, changes nothing.

A tick is due when a partition has new events, when pending rows fall due because the watermark moves without events
(idle streams, a declaration), or when that closes a window that has rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from headrace.clock import SECOND_US
from headrace.errors import SettingsError
from headrace.shard import BLANK, Range, ShardRecord
from headrace.window import closed_us, idle_since
from pipelines.aside import read_aside
from pipelines.orders import PartOrder, ReadOrder, Setup, Tick, watermark_after
from pipelines.runs import RunMeta
from pipelines.sources.quarantine import RETRIED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from headrace.log import Entry
    from headrace.shard import Policy
    from pipelines.label import LabelPolicy
    from pipelines.runs import Run
    from pipelines.sources.base import Reach

__all__ = ["Plan", "as_recorded", "falls_due", "in_place", "orders_of", "plan_tick"]

SPANS_PER_ORDER = 8
KEYS = {  # what stays while anything is pending: name in Policy -> key in the settings
    "mode": "label.mode",
    "wait_us": "label.wait_s",
    "attribution_us": "label.attribution_s",
    "lateness_us": "pipeline.lateness_s",
    "window_us": "pipeline.window_s",
}


@dataclass(frozen=True)
class Plan:
    """Ranges to read (with the clocks from before), about `size` bytes; `due`: there is something to do.

    `previous`: the record of `parent`, BLANK before the first.
    `complete`: the ranges reach every end, so that what the caller declares about the streams holds after this tick.
    `asides`: by key of a range, what its source wants kept from this record on. `requests`: what the record says of the
    requests that it answers or passes over; None = what the record before says. `awaited`: by key of a range, the file
    that is not whole yet.
    """

    parent: Entry | None
    previous: ShardRecord
    now_us: int
    ranges: tuple[Range, ...]
    size: int
    complete: bool
    complete_until_us: int
    drain: bool
    due: bool
    asides: Mapping[str, Any] = field(default_factory=dict)
    requests: Mapping[str, Any] | None = None
    awaited: Mapping[str, str] = field(default_factory=dict)

    @property
    def seq(self) -> int:
        return 0 if self.parent is None else self.parent.seq + 1

    @property
    def before_us(self) -> int:
        return self.previous.watermark_us

    def to_json(self) -> dict[str, Any]:
        ranges = [{"stream": r.stream, "partition": r.partition, "from": r.start, "to": r.end} for r in self.ranges]
        return {
            "seq": self.seq,
            "due": self.due,
            "bytes": self.size,
            "complete": self.complete,
            "ranges": ranges,
            "awaited": dict(self.awaited),
        }


def plan_tick(
    setup: Setup,
    parent: Entry | None,
    *,
    now_us: int,
    max_bytes: int,
    idle: Mapping[str, int | None],
    open_run: Callable[[RunMeta], Run],
    drain: bool = False,
    complete_until_us: int = 0,
) -> Plan:
    """Plan the tick after `parent`. `idle`: since when this process has seen each partition at its end; what it has not
    seen begins now, since a time in which nobody looked is no idleness."""
    previous = BLANK if parent is None else ShardRecord.from_entry(parent)
    _check_settings(setup, previous)
    ranges: list[Range] = []
    asides: dict[str, Any] = {}
    awaited: dict[str, str] = {}
    size, complete = 0, True
    for before in _partitions(setup, previous):
        planned, reach = _range(setup, before, max(1, max_bytes - size), idle, now_us=now_us, drain=drain)
        ranges.append(planned)
        size += reach.size if reach else 0
        complete = complete and reach is not None and reach.caught_up
        if reach is not None and reach.aside is not None:
            asides[planned.key] = reach.aside
        if reach is not None and reach.awaited:
            awaited[planned.key] = reach.awaited
    plan = Plan(
        parent=parent,
        previous=previous,
        now_us=now_us,
        ranges=in_place(ranges, previous),
        size=size,
        complete=complete,
        complete_until_us=complete_until_us if complete else 0,
        drain=drain and complete,
        due=size > 0,
        asides=asides,
        awaited=awaited,
    )
    return plan if plan.due else replace(plan, due=_due(setup, plan, open_run))


def in_place(ranges: Iterable[Range], previous: ShardRecord) -> tuple[Range, ...]:
    """In the order of a record: those of the record before keep their places, new ones come after them."""
    place = {one.key: number for number, one in enumerate(previous.ranges)}
    return tuple(sorted(ranges, key=lambda one: (place.get(one.key, len(place)), one.key)))


def _partitions(setup: Setup, previous: ShardRecord) -> list[Range]:
    """Every partition as it was left, the one that lags behind first: it may use the budget of the tick."""
    known = {part.key: part for part in previous.ranges}
    for name, source in setup.sources.items():
        for partition in source.partitions():
            first = source.first(partition)
            known.setdefault(f"{name}/{partition}", Range(name, partition, None, first, first))
    return sorted(known.values(), key=lambda one: (one.watermark_us, setup.streams[one.stream].role != "impression"))


def _range(
    setup: Setup, before: Range, max_bytes: int, idle: Mapping[str, int | None], *, now_us: int, drain: bool
) -> tuple[Range, Reach | None]:
    source = setup.sources[before.stream]
    aside = read_aside(setup.store_url, before.aside)
    reach = source.reach(before.partition, before.end, before.identity, max_bytes=max_bytes, drain=drain, aside=aside)
    if reach is None:
        return replace(before, start=before.end, idle_since_us=None), None
    if before.partition == RETRIED:  # holds no one up: it has only what an operator asks for
        return replace(before, identity=reach.identity, start=before.end, end=reach.position, idle_since_us=0), reach
    since = idle_since(idle.get(before.key), caught_up=reach.caught_up, moved=reach.size > 0, now_us=now_us)
    moved = replace(before, identity=reach.identity, start=before.end, end=reach.position, idle_since_us=since)
    return moved, reach


def as_recorded(setup: Setup, record: ShardRecord) -> Setup:
    """The setup of the tick that made a record, whatever the settings say by now. SettingsError where they cannot."""
    _check_streams(setup, record)
    if record.schema != setup.schema.fingerprint:
        raise SettingsError(
            f"record {record.seq} was made with other features",
            hint="run this with the [features] of that time: the record has only their fingerprint",
            old=record.schema,
            new=setup.schema.fingerprint,
        )
    return setup.under(record.policy, record.parts)


def _check_streams(setup: Setup, previous: ShardRecord) -> None:
    for one in previous.ranges:
        if one.stream not in setup.streams:
            raise SettingsError(
                f"stream '{one.stream}' is gone from the settings, but the shard log has read it up to {one.end}",
                hint=f"bring [streams.{one.stream}] back (a stream cannot be renamed), or start a new loop.root",
                stream=one.stream,
                streams=", ".join(setup.streams),
            )


def _check_policy(old: Policy, new: Policy, *, pending: bool) -> None:
    """Label times stay while rows are pending, else rows would come twice or never; a window stays while it is open."""
    for name, key in KEYS.items():
        was, now = getattr(old, name), getattr(new, name)
        if was != now and (pending or name == "window_us"):
            was, now = (f"{value / SECOND_US:g}" if name.endswith("_us") else value for value in (was, now))
            raise SettingsError(
                f"{key} is {now}, but rows are pending that were read with {key} = {was}",
                hint=f"set {key} = {was} and run `headrace pipeline run --drain`, which writes all that is pending;"
                " then change it. Or start a new loop.root",
                key=key,
                old=was,
                new=now,
            )


def _check_settings(setup: Setup, previous: ShardRecord) -> None:
    """Refuse settings that do not fit what was read and what is pending."""
    _check_streams(setup, previous)
    pending = bool(previous.pending)
    if pending or previous.open_until_us > previous.closed_us:
        _check_policy(previous.policy, setup.recorded, pending=pending)
    if not pending:
        return
    if previous.parts != setup.parts:
        raise SettingsError(
            f"pipeline.parts is {setup.parts}, but events are pending in {previous.parts} parts",
            hint=f"set pipeline.parts = {previous.parts}, or run once with that and --drain before changing it",
        )
    if previous.schema != setup.schema.fingerprint:
        raise SettingsError(
            "the features changed while impressions with the old ones are pending",
            hint="run once with the old [features] and --drain, or start a new loop.root",
            old=previous.schema,
            new=setup.schema.fingerprint,
        )


def orders_of(setup: Setup, plan: Plan, tick: Tick) -> list[ReadOrder | PartOrder]:
    """The orders of a planned tick; the same plan gives the same orders."""
    orders: list[ReadOrder | PartOrder] = [*part_orders(setup, plan, tick)]
    number = 0
    for index, part in enumerate(plan.ranges):
        if part.start == part.end:
            continue
        spans = setup.sources[part.stream].spans(part.partition, part.start, part.end, part.identity)
        for at in range(0, len(spans), SPANS_PER_ORDER):
            some = tuple(spans[at : at + SPANS_PER_ORDER])
            orders.append(ReadOrder(tick, number, part.stream, part.partition, index, some))
            number += len(some)
    return orders


def part_orders(setup: Setup, plan: Plan, tick: Tick) -> list[PartOrder]:
    return [
        PartOrder(
            tick=tick,
            part=part,
            runs=tuple(meta for meta in plan.previous.pending if meta["part"] == part),
            partitions=tuple(one.key for one in plan.ranges),
            clocks=tuple(one.clock for one in plan.ranges),
            before_us=plan.before_us,
            complete_until_us=plan.complete_until_us,
            drain=plan.drain,
        )
        for part in range(setup.parts)
    ]


def falls_due(
    runs: Iterable[RunMeta],
    open_run: Callable[[RunMeta], Run],
    *,
    before_us: int,
    after_us: int,
    policy: LabelPolicy,
) -> bool:
    """Whether the fate of any pending row is decided between two watermarks."""
    delay = {
        "impression": policy.life_us if policy.explicit else policy.wait_us,
        "feedback": 0,
        "orphan": policy.life_us,
    }
    for meta in runs:
        low, high = before_us - delay[meta.kind], after_us - delay[meta.kind]
        if meta.max_us >= low and meta.min_us < high and len(open_run(meta).between(low, high)):
            return True
    return False


def _due(setup: Setup, plan: Plan, open_run: Callable[[RunMeta], Run]) -> bool:
    """Whether a watermark that moves without new events decides anything."""
    order = part_orders(setup, plan, Tick(plan.seq, plan.now_us, ""))[0]
    after_us = watermark_after(order, [], setup.horizon)
    if after_us <= plan.before_us:
        return False
    window_us = setup.horizon.window_us
    closes_us = min(plan.previous.open_until_us, closed_us(after_us, setup.horizon))
    if closes_us // window_us > plan.previous.closed_us // window_us:
        return True
    runs = [RunMeta.from_json(meta) for meta in plan.previous.pending]
    return falls_due(runs, open_run, before_us=plan.before_us, after_us=after_us, policy=setup.policy)
