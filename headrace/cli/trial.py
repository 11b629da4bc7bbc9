"""The settings tried on the first events of a stream: what becomes of them, and what a person should look at."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow.compute as pc

from headrace import clock
from headrace.cli.culprit import Culprits
from headrace.cli.sample import sample_of
from headrace.cli.sources import parsed, places
from headrace.column import plain
from headrace.errors import MissingFeature, SourceError
from headrace.guess.columns import EARLIEST_S, LATEST_S, PER_S, look_at
from headrace.place import nearest_place, path_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.config import Settings
    from headrace.features import Feature
    from headrace.place import Path
    from pipelines.events import Parsed

Y2000_US: Final = EARLIEST_S * clock.SECOND_US
NUMBER: Final = re.compile(r'"[+-]?\d+(\.\d*)?"')
EXPLAINED: Final = 200
"""Refused events of a block and reason that are looked at again."""


@dataclass
class Trial:
    """One stream. `because`: reason -> column -> a value that was it. `warnings`: why `ok` is not."""

    stream: str
    accepted: int = 0
    passed: int = 0
    positives: float = 0.0
    early: int = 0
    first_us: int | None = None
    last_us: int | None = None
    refused: Counter[str] = field(default_factory=Counter)
    because: dict[str, dict[str, str]] = field(default_factory=dict)
    unseen: set[str] | None = None
    filled: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.warnings

    @property
    def read(self) -> int:
        return self.accepted + self.refused.total()

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "ok": self.ok,
            "read": self.read,
            "accepted": self.accepted,
            "refused": dict(self.refused),
            "because": self.because,
            "first_event_us": self.first_us,
            "last_event_us": self.last_us,
            "warnings": self.warnings,
        }


def try_stream(
    settings: Settings, name: str, rows: int, *, now_us: int, each: Callable[[Parsed], None] | None = None
) -> Trial:
    """Reads about the first `rows` events. MissingFeature for a feature that none of them has.

    each: is given what every block gave; where None, its features are encoded only to see that they can be.
    """
    trial, schema = Trial(name), settings.schema()
    culprits = Culprits(settings, name, places(settings)[name])
    latest_us = now_us + int(settings.pipeline.future_s * clock.SECOND_US)
    for file, found in parsed(settings, name, rows=rows, latest_us=latest_us):
        _count(trial, found)
        _explain(trial, found, culprits, file)
        if each is not None:
            each(found)
            continue
        for events in found.events:
            if "_label" not in events.column_names:
                schema.encode_features({f.name: plain(events[f.name]) for f in schema.features if f.kind != "cross"})
    if trial.unseen and trial.accepted:
        raise _unseen(settings, schema[min(trial.unseen)], trial)
    judges = (_none_mine, _refused, _early, _empty)
    trial.warnings = [warning for judge in judges if (warning := judge(settings, trial))]
    return trial


def summary(trial: Trial, *, labelled: bool) -> str:
    """For people, one line and one more for each reason and warning."""
    from pipelines.events import REASONS

    lines = [f"{trial.read:,} events tried, {trial.accepted:,} good"]
    if trial.first_us is not None and trial.last_us is not None:
        lines[0] += f", from {clock.iso(trial.first_us)} to {clock.iso(trial.last_us)}"
    if labelled and trial.accepted:
        lines[0] += f", mean label {trial.positives / trial.accepted:.3f}"
    for reason, count in trial.refused.most_common():
        values = "; ".join(f"{name} = {value}" for name, value in trial.because.get(reason, {}).items())
        lines.append(f"  refused {count:,} ({reason}): the event {REASONS[reason]}" + (f": {values}" if values else ""))
    return "\n".join([*lines, *(f"  BAD  {warning}" for warning in trial.warnings)])


def _count(trial: Trial, found: Parsed) -> None:
    trial.accepted += found.accepted
    trial.passed += found.passed
    trial.refused.update(event.reason for event in found.refused)
    trial.unseen = set(found.unseen) if trial.unseen is None else trial.unseen & found.unseen
    for events in found.events:
        if not events.num_rows:
            continue
        trial.filled |= {name for name in events.column_names if events[name].null_count < events.num_rows}
        span = pc.min_max(events["_ts"]).as_py()
        trial.first_us = min(span["min"], trial.first_us if trial.first_us is not None else span["min"])
        trial.last_us = max(span["max"], trial.last_us or span["max"])
        trial.early += pc.sum(pc.less(events["_ts"], Y2000_US)).as_py()
        if "_label" in events.column_names:
            trial.positives += pc.sum(events["_label"]).as_py() or 0.0


def _explain(trial: Trial, found: Parsed, culprits: Culprits, file: str) -> None:
    seen: Counter[str] = Counter()
    for event in found.refused:
        seen[event.reason] += 1
        name, value = culprits.of(event.reason, event.raw, file) if seen[event.reason] <= EXPLAINED else ("", "")
        if name:
            trial.because.setdefault(event.reason, {}).setdefault(name, value)


def _none_mine(settings: Settings, trial: Trial) -> str:
    """Events were there, but none was of this stream."""
    if trial.read or not trial.passed:
        return ""
    stream = settings.streams[trial.stream]
    for name, value in stream.where.items():
        has = _values(settings, trial.stream, name)
        if str(value) not in has:
            found = f"'{name}' has {', '.join(has)}" if has else f"there is no '{name}'"
            near = "" if has else _nearest(settings, trial.stream, path_of(name))
            return f"`where` picks none of {trial.passed:,} events: {name} = {value!r}, but {found}" + (
                f"; {near}" if near else ""
            )
    hint = _nearest(settings, trial.stream, path_of(stream.time))
    return f"none of {trial.passed:,} events has a time of this stream: '{stream.time}'; {hint or 'correct `time`'}"


def _refused(settings: Settings, trial: Trial) -> str:
    stop = settings.pipeline.quarantine_stop
    if trial.refused.total() <= stop * trial.read:
        return ""
    stream = settings.streams[trial.stream]
    text = f"{trial.refused.total():,} of {trial.read:,} are refused: the pipeline would stop (above {stop:.0%})"
    if stream.label in trial.because.get("wrong_type", {}):
        return f"{text}; write labels as 1 and 0, or true and false"
    missing = {"missing_id": stream.id, "missing_time": stream.time}
    reason = trial.refused.most_common(1)[0][0]
    if reason in missing and (hint := _nearest(settings, trial.stream, path_of(missing[reason]))):
        return f"{text}; {'id' if reason == 'missing_id' else 'time'} = '{missing[reason]}': {hint}"
    quoted = [name for name, value in trial.because.get("wrong_type", {}).items() if NUMBER.fullmatch(value)]
    if quoted:
        return f'{text}; write {quoted[0]} without quotes, or make it kind = "category"'
    if reason == "malformed":
        return f"{text}; `headrace quarantine list` shows them once it runs: mend what writes them"
    times = {**trial.because.get("bad_time", {}), **trial.because.get("time_without_unit", {})}
    time = times.get(stream.time, "")
    return text + (_unit_of(float(time)) if time.replace(".", "").isdigit() else "")


def _early(settings: Settings, trial: Trial) -> str:
    if trial.early <= settings.pipeline.quarantine_stop * trial.accepted:
        return ""
    unit = settings.streams[trial.stream].time_unit or "iso"
    text = f"{trial.early:,} events lie before the year 2000: is time_unit = {unit!r} right?"
    return text + (_unit_of((trial.first_us or 0) * PER_S[unit] / clock.SECOND_US) if unit in PER_S else "")


def _empty(settings: Settings, trial: Trial) -> str:
    """A feature that has no value in any event."""
    if trial.stream != "impression" or not trial.accepted:
        return ""
    for feature in settings.schema().features:
        if feature.path and feature.name not in trial.filled:
            hint = _nearest(settings, trial.stream, feature.path, feature=True)
            return f"feature '{feature.name}' has no value in any event; {hint or 'correct its column'}"
    return ""


def _unit_of(time: float) -> str:
    """The unit in which a number is a time of this century, in words."""
    fits = (unit for unit, per_s in PER_S.items() if EARLIEST_S * per_s <= time < LATEST_S * per_s)
    return next((f'; time_unit = "{unit}" fits' for unit in fits), "")


def _values(settings: Settings, stream: str, name: str) -> list[str]:
    """The values of a column, the most frequent first."""
    columns, name = _columns(settings, stream), ".".join(path_of(name))
    if name not in columns:
        return []
    counts = pc.value_counts(columns[name].values.drop_null()).to_pylist()
    return [str(pair["values"]) for pair in sorted(counts, key=lambda pair: -pair["counts"])[:12]]


def _columns(settings: Settings, stream: str) -> dict[str, Any]:
    """What a local source holds, columns and fields of objects."""
    place = places(settings)[stream]
    try:
        return (
            dict(look_at(sample_of(settings.streams[stream].source, settings.streams[stream].format)))
            if place is not None
            else {}
        )
    except SourceError:
        return {}


def _nearest(settings: Settings, stream: str, path: Path, *, feature: bool = False) -> str:
    """What the events have that is called much like what stands at `path`."""
    columns = _columns(settings, stream)
    known = [column.path for column in columns.values()]
    return nearest_place(path, known, feature=feature) or (
        f"they have {', '.join(list(columns)[:20])}" if columns else ""
    )


def _unseen(settings: Settings, feature: Feature, trial: Trial) -> MissingFeature:
    hint = _nearest(settings, trial.stream, feature.path, feature=True)
    return MissingFeature(
        f"feature '{feature.name}' reads '{feature.place}', but none of {trial.accepted:,} events of stream "
        f"'{trial.stream}' has it",
        hint=(f"{hint}; " if hint else "")
        + f'[features] {feature.name}: column = "…" names the key of the event, path = "a.b" a field inside one',
        feature=feature.name,
        column=feature.place,
        stream=trial.stream,
    )
