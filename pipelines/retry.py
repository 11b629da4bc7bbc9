"""Refused events that are read again, because an operator asks for it and their cause is mended.

A request `retry` (`headrace.requests`) names shard records and reasons. The pipeline answers it in a tick:

1. Look at every refused event of these records that was not read again yet: read it where it stands and parse it with
   the settings of now (`look`). What would be refused again, or is late, stays where it is.
2. The others become a range of the partition `_quarantine` of their stream (`pipelines.sources.quarantine`), in the
   plan of the next record, at most `MOST` in one: the next ticks take the rest.
3. The tick reads, joins and commits them like all other events. The record names what was read, what was read again so
   far, and, once nothing is left, the request as answered.

Progress and result are one record, so an event is read again at most once, and exactly once if the request is answered,
whatever dies in between: before the commit the next pipeline plans the same anew, after it nothing of it is left.
A retried event is late by the rules that late events have (`pipelines.label`): while it lives, its row goes out with
the feedback that waits for it; after that it cannot be joined any more and stays in quarantine.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from headrace.errors import EventError, LogError, NotFound, SettingsError, SourceError, SourceVanished
from headrace.shard import Quarantine, Range, ShardRecord
from pipelines.aside import read_aside
from pipelines.events import UNATTRIBUTED, Limits
from pipelines.parse import parse
from pipelines.plan import Plan, in_place
from pipelines.sources.quarantine import (
    BROKEN,
    BROKEN_PIECE,
    RETRIED,
    Picked,
    QuarantineSource,
    kept_events,
    places,
    rows_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from headrace.log import Entry, Log
    from headrace.version import Ranges
    from pipelines.events import Parsed, Stream
    from pipelines.orders import Setup

__all__ = ["GONE", "KIND", "Looked", "Wanted", "look", "retried", "with_retry"]

KIND = "retry"
MOST = 50_000  # events of a tick
GONE = "gone"  # instead of a reason: the source has the event no more
DAMAGED = "damaged"  # the file of refused events is
LATE = "late"
FILES = (BROKEN, BROKEN_PIECE)
ROW_BYTES = 1_024  # of an event whose size quarantine does not say


@dataclass(frozen=True)
class Wanted:
    """What a request asks for: refused events of these records, of these reasons (none = all)."""

    records: Ranges
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"records": [list(pair) for pair in self.records], "reasons": list(self.reasons)}

    @staticmethod
    def of(args: Mapping[str, Any]) -> Wanted:
        records = tuple((int(low), int(high)) for low, high in args.get("records", ()))
        return Wanted(records, tuple(args.get("reasons", ())))

    def has(self, reason: str) -> bool:
        """Whether events with this reason are asked for."""
        return not self.reasons or reason in self.reasons


@dataclass(frozen=True)
class Looked:
    """Events of one file of refused events of record `seq`, that were not read again yet.

    was: row -> its reason. now: stream -> row -> what it would be there: "" = accepted, or a reason; a row that the
    stream would pass over is not in it. size: row -> bytes.
    """

    seq: int
    named: Quarantine
    was: Mapping[int, str]
    now: Mapping[str, Mapping[int, str]]
    size: Mapping[int, int] = field(default_factory=dict)

    def fate(self, row: int) -> str:
        """What would become of a row: "" = some stream accepts it; else a reason, or GONE."""
        fates = [found[row] for found in self.now.values() if row in found]
        return "" if "" in fates else fates[0] if fates else self.was[row]


def look(setup: Setup, log: Log, head: ShardRecord, wanted: Wanted, now_us: int) -> Iterator[Looked]:
    """What would become of the refused events of a request, by the settings of now. `head`: the newest record."""
    done = retried(setup.store_url, head)
    oldest = _oldest(log)
    for low, high in wanted.records:
        for seq in range(max(low, oldest), min(high, head.seq + 1)):
            try:
                record = ShardRecord.from_entry(log.read(seq))
            except NotFound:  # collected meanwhile
                continue
            for named in record.quarantine:
                if any(wanted.has(reason) for reason in named.reasons):
                    found = _looked(setup, head, record.seq, named, wanted, done.get(named.path, set()), now_us)
                    if found.was:
                        yield found


def retried(store_url: str, record: ShardRecord) -> dict[str, set[int]]:
    """By file of refused events, which rows were read again up to a record, by any stream."""
    found: dict[str, set[int]] = {}
    for one in record.ranges:
        for path, ranges in _marks(store_url, one).items():
            found.setdefault(path, set()).update(rows_in(ranges))
    return found


def with_retry(setup: Setup, log: Log, plan: Plan, asked: Sequence[Entry], max_bytes: int) -> Plan:
    """The plan with the first retry that is asked for. `asked`: requests that no record answers; those to other stages
    are passed over."""
    request = next((one for one in asked if one.kind == KIND), None)
    if not asked or plan.parent is None:
        return plan
    if request is None:
        return replace(plan, requests={"cursor": asked[-1].cursor().to_json(), "outcomes": []})
    chosen = _choose(setup, log, plan, Wanted.of(request.body["args"]), max_bytes)
    ranges, asides, oldest = {one.key: one for one in plan.ranges}, dict(plan.asides), _oldest(log)
    for stream, picks in chosen.picks.items():
        before = ranges.get(f"{stream}/{RETRIED}", Range(stream, RETRIED, None, 0, 0, idle_since_us=0))
        ranges[before.key] = _picked(before, request, picks)
        asides[before.key] = _marked(_marks(setup.store_url, before), picks, oldest)
    plan = replace(plan, ranges=in_place(ranges.values(), plan.previous), asides=asides, due=True)
    if not chosen.whole:  # what is declared of the streams holds once the rest was read, too
        return replace(plan, complete=False, complete_until_us=0, drain=False)
    outcome = {"seq": request.seq, "outcome": "retried", "kept": dict(sorted(chosen.kept.items()))}
    passed = takewhile(lambda one: one.kind != KIND, asked[asked.index(request) + 1 :])
    return replace(plan, requests={"cursor": [request, *passed][-1].cursor().to_json(), "outcomes": [outcome]})


def _picked(before: Range, request: Entry, picks: Mapping[_Named, Sequence[int]]) -> Range:
    """The range of a stream's refused events that are read again."""
    named = [{"path": one.path, "sha256": one.sha256, "rows": _ranges(rows)} for one, rows in picks.items()]
    end = before.start + sum(len(rows) for rows in picks.values())
    return replace(before, identity={"request": request.seq, "picks": named}, end=end)


@dataclass
class _Chosen:
    """picks: stream -> file of refused events -> rows. kept: why the others stay. whole: nothing is left for later."""

    picks: dict[str, dict[_Named, list[int]]] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)
    whole: bool = True


@dataclass(frozen=True)
class _Named:
    path: str
    sha256: str


def _choose(setup: Setup, log: Log, plan: Plan, wanted: Wanted, max_bytes: int) -> _Chosen:
    chosen, rows, size = _Chosen(), 0, 0
    for found in look(setup, log, plan.previous, wanted, plan.now_us):
        named = _Named(found.named.path, found.named.sha256)
        for row in found.was:
            fate = found.fate(row)
            if fate:
                chosen.kept[fate] += 1
                continue
            if rows >= MOST or size >= max_bytes:
                chosen.whole = False
                return chosen
            rows, size = rows + 1, size + found.size[row]
            for stream, now in found.now.items():
                if row in now:
                    chosen.picks.setdefault(stream, {}).setdefault(named, []).append(row)
    return chosen


def _looked(
    setup: Setup, head: ShardRecord, seq: int, named: Quarantine, wanted: Wanted, done: set[int], now_us: int
) -> Looked:
    try:
        table = kept_events(setup.store_url, named.path, named.sha256)
    except (LogError, NotFound):  # damaged, or of a newer headrace: the loop goes on without it
        counts = {reason: n for reason, n in named.reasons.items() if wanted.has(reason)}
        lost = dict(enumerate(Counter(counts).elements()))
        return Looked(seq, named, lost, {"": dict.fromkeys(lost, DAMAGED)})
    reasons, streams, sizes = (table[name].to_pylist() for name in ("reason", "stream", "size"))
    was = {row: reason for row, reason in enumerate(reasons) if row not in done and wanted.has(reason)}
    now: dict[str, dict[int, str]] = {}
    for name, stream in setup.streams.items():
        shared = UNATTRIBUTED if stream.shared else ()
        mine = [row for row, reason in was.items() if streams[row] == name or reason in shared]
        if mine:
            now[name] = _fates(setup, head, name, named, mine, was, now_us)
    return Looked(seq, named, was, now, {row: sizes[row] or ROW_BYTES for row in was})


def _fates(
    setup: Setup,
    head: ShardRecord,
    name: str,
    named: Quarantine,
    rows: Sequence[int],
    was: Mapping[int, str],
    now_us: int,
) -> dict[int, str]:
    """What each row would be as an event of a stream."""
    source, stream = setup.sources[name], setup.streams[name]
    assert isinstance(source, QuarantineSource)
    limits = Limits(setup.record_bytes, now_us + setup.future_us)
    alive_us = head.watermark_us - setup.policy.life_us
    table = kept_events(setup.store_url, named.path, named.sha256)
    fates: dict[int, str] = {row: was[row] for row in rows if was[row] == BROKEN_PIECE}
    for row in rows:
        if was[row] == BROKEN:
            ((file, start),) = places(table, [row])
            fate = _fate_of_file(source, stream, limits, file, start, alive_us)
            fates |= {} if fate is None else {row: fate}
    for span in source.pieces(named.path, named.sha256, [row for row in rows if was[row] not in FILES]):
        assert isinstance(span, Picked)
        try:
            parsed = parse(stream, limits, source.read(span, stream.columns))
        except (SourceError, OSError):
            fates.update(dict.fromkeys(span.rows, GONE))
            continue
        except (EventError, SettingsError):  # no event of this file fits the settings
            fates.update({row: was[row] for row in span.rows})
            continue
        row_at = {offset: row for (_, offset), row in zip(places(table, span.rows), span.rows, strict=True)}
        fates.update({row_at[offset]: fate for offset, fate in _judged(parsed, alive_us)})
    return fates


def _fate_of_file(
    source: QuarantineSource, stream: Stream, limits: Limits, file: str, start: int, alive_us: int
) -> str | None:
    """Of a file, broken from `start` on: "" if an event of it would be accepted, LATE or another reason if none,
    None if the stream passes over all. Those that are refused go into quarantine one by one when it is read."""
    try:
        found = [parse(stream, limits, source.read(span, stream.columns)) for span in source.rest(file, start)]
    except SourceVanished:
        return GONE
    except (SourceError, EventError, SettingsError, OSError):
        return BROKEN
    return min((fate for parsed in found for _, fate in _judged(parsed, alive_us)), default=None)


def _judged(parsed: Parsed, alive_us: int) -> Iterator[tuple[int, str]]:
    for one in parsed.refused:
        yield one.offset, one.reason
    for table in parsed.events:
        for offset, ts in zip(table["_offset"].to_pylist(), table["_ts"].to_pylist(), strict=True):
            yield offset, LATE if ts < alive_us else ""


def _marks(store_url: str, one: Range) -> dict[str, list[list[int]]]:
    """By file, what a range says was read again."""
    marks = read_aside(store_url, one.aside) if one.partition == RETRIED else None
    return dict(marks or {})


def _marked(
    marks: Mapping[str, list[list[int]]], picks: Mapping[_Named, Sequence[int]], first: int
) -> dict[str, list[list[int]]]:
    """The marks with these, without those of records before `first`, which are gone."""
    found = {path: ranges for path, ranges in marks.items() if _seq(path) >= first}
    for named, rows in picks.items():
        found[named.path] = _ranges({*rows_in(found.get(named.path, [])), *rows})
    return found


def _oldest(log: Log) -> int:
    """The number of the oldest record that is kept."""
    first = log.first()
    return 0 if first is None else first.seq


def _seq(path: str) -> int:
    return int(path.rpartition("/")[2].partition("-")[0])


def _ranges(rows: Iterable[int]) -> list[list[int]]:
    """
    >>> _ranges([5, 0, 1])
    [[0, 2], [5, 6]]
    """
    found: list[list[int]] = []
    for row in sorted(rows):
        if found and found[-1][1] == row:
            found[-1][1] = row + 1
        else:
            found.append([row, row + 1])
    return found
