"""What an inspection found, in words, as JSON, and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headrace import clock
from headrace.cli import terminal, trial
from headrace.cli.inspect.events import Sample, sample_events
from headrace.cli.inspect.labels import Labels, labels_of, pairs
from headrace.cli.inspect.values import DAY_S, Day, Values, days_of, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headrace.config import Settings

__all__ = ["Inspection", "as_text", "inspect", "label_words", "plot"]

LOW_JOIN: Final = 0.5
REPEATED: Final = 0.1  # of the impressions: writers that send again do not send so many
SHARES: Final = (0.4, 0.8, 0.95)  # of feedback, for which the shortest wait is told
ALIKE: Final = 0.999  # a value that nearly all events have teaches nothing
DAYS_SHOWN: Final = 14


@dataclass(frozen=True)
class Inspection:
    """All that was found. notes: what a person should look at."""

    sample: Sample
    labels: Labels
    values: list[Values]
    days: list[Day]
    notes: list[str]

    @property
    def ok(self) -> bool:
        return all(one.ok for one in self.sample.trials.values())

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "ok": self.ok,
            "streams": {name: one.to_json() for name, one in self.sample.trials.items()},
            "duplicates": self.sample.duplicates,
            "labels": self.labels.to_json(),
            "features": [one.to_json() for one in self.values],
            "days": [one.to_json() for one in self.days],
            "notes": self.notes,
        }


def inspect(settings: Settings, rows: int, *, now_us: int) -> Inspection:
    """Reads about `rows` events of each stream and looks at them."""
    sample = sample_events(settings, rows, now_us=now_us)
    explicit = settings.label.mode == "explicit"
    wait_s, attribution_s = settings.label.wait_s, settings.label.attribution_s
    labels = labels_of(sample, wait_s=None if explicit else (wait_s or 0.0), attribution_s=attribution_s)
    schema = settings.schema()
    values = values_of(schema, sample.features)
    days = days_of(schema, sample, _label(sample, explicit=explicit, attribution_s=attribution_s))
    return Inspection(sample, labels, values, days, _notes(settings, sample, labels, values))


def as_text(found: Inspection, settings: Settings) -> str:
    """For people."""
    parts = []
    for name, one in found.sample.trials.items():
        parts.append(f"{name}: {trial.summary(one, labelled=settings.streams[name].label is not None)}")
    if found.sample.duplicates:
        parts.append(f"  {found.sample.duplicates:,} impressions come more than once: one of each counts")
    parts.append("labels: " + "\n  ".join(label_words(found.labels, settings)))
    parts.append("")
    parts.append(terminal.table([_row(one) for one in found.values], ("feature", *_HEAD)))
    if len(found.days) > 1:
        parts += ["", _days(found.days)]
    parts += ["", *(f"LOOK  {note}" for note in found.notes)] if found.notes else []
    return "\n".join(parts)


def label_words(labels: Labels, settings: Settings) -> list[str]:
    """How feedback joins, and what a wait catches: one sentence a line."""
    if not labels.feedback or not labels.impressions:
        return ["no event of one of the streams: nothing to join"]
    rate = "" if labels.positive_rate is None else f", mean label {labels.positive_rate:.2%}"
    attribution = f"attribution_s = {settings.label.attribution_s:.15g}"
    lines = [f"{labels.answered:,} of {labels.judged:,} impressions have feedback within {attribution}{rate}"]
    lines.append(
        f"{labels.join_rate:.1%} of {labels.feedback:,} feedbacks have their impression here;"
        f" {labels.before:,} lie before it, {labels.too_late:,} come after {attribution}, {labels.orphans:,} have none"
    )
    if labels.catches and settings.label.mode == "implicit":
        lines.append(_caught(labels, settings.label.wait_s or 0.0))
    elif labels.delay_s:
        lines.append("feedback comes after " + ", ".join(f"{q} {clock.duration(s)}" for q, s in labels.delay_s.items()))
    return lines


def plot(found: Inspection, path: Path, *, wait_s: float | None) -> None:
    """Delay of feedback, events and positives over time, drift by feature."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(9, 9), layout="constrained")
    if found.labels.catches:
        axes[0].plot(*zip(*found.labels.catches, strict=True), marker="o")
        axes[0].set_xscale("log")
        if wait_s:
            axes[0].axvline(wait_s, linestyle=":", color="grey", label=f"wait_s = {wait_s:g}")
            axes[0].legend(frameon=False)
    axes[0].set(xlabel="seconds after the impression", ylabel="feedback that has come", ylim=(0, 1.02))
    times = [np.datetime64(day.start_us, "us") for day in found.days]
    axes[1].plot(times, [np.nan if d.positive_rate is None else d.positive_rate for d in found.days], marker="o")
    axes[1].set(ylabel="mean label", ylim=(0, None))
    for name in found.days[-1].drift if found.days else ():
        axes[2].plot(times[1:], [day.drift.get(name, np.nan) for day in found.days[1:]], marker=".", label=name)
    axes[2].set(ylabel="drift from what came before", ylim=(0, 1.02))
    if found.days and found.days[-1].drift:
        axes[2].legend(frameon=False, ncols=4, fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


_HEAD: Final = ("kind", "missing", "distinct", "seen once", "most frequent", "mean", "from", "to")


def _row(one: Values) -> tuple[str, ...]:
    def say(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        one.name,
        one.kind,
        f"{one.missing:.1%}",
        say(one.distinct, ","),
        say(one.once, ","),
        say(one.most, ".1%"),
        *(say(value, ".4g") for value in (one.mean, one.low, one.high)),
    )


def _days(days: Sequence[Day]) -> str:
    rows = []
    for day in days[-DAYS_SHOWN:]:
        most = max(day.drift.items(), key=lambda item: item[1], default=("", 0.0))
        rate = "-" if day.positive_rate is None else f"{day.positive_rate:.2%}"
        start = clock.iso(day.start_us)
        rows.append((start[:10] if day.span_s == DAY_S else start[:16], f"{day.events:,}", rate, _drift(day, *most)))
    return terminal.table(rows, ("day" if days[0].span_s == DAY_S else "hour", "events", "mean label", "most drift"))


def _drift(day: Day, name: str, distance: float) -> str:
    return f"{name} {distance:.0%}" if day.drift else "-"


def _caught(labels: Labels, wait_s: float) -> str:
    """Such as "wait_s = 30 catches 41% of positives; 180 catches 80%"."""
    share = dict(labels.catches)
    told = {wait_s: share[wait_s]} if wait_s in share else {}
    for goal in SHARES:
        shortest = next(((wait, caught) for wait, caught in labels.catches if caught >= goal), None)
        if shortest is not None and shortest[0] not in told:
            told[shortest[0]] = shortest[1]
    words = [f"{wait:.15g} catches {caught:.0%}" for wait, caught in sorted(told.items(), key=lambda pair: pair[0])]
    mine = f"wait_s = {wait_s:.15g} catches {share[wait_s]:.0%} of positives" if wait_s in share else ""
    others = [word for word, wait in zip(words, sorted(told), strict=True) if wait != wait_s]
    return "; ".join([*([mine] if mine else []), *others])


def _label(sample: Sample, *, explicit: bool, attribution_s: float) -> np.ndarray:
    """Final label of each impression [n], NaN = none."""
    place, delay = pairs(sample)
    good = (place >= 0) & (delay >= 0) & (delay <= attribution_s * clock.SECOND_US)
    label = np.full(len(sample.ts_us), np.nan if explicit else 0.0)
    order = np.argsort(delay[good], kind="stable")
    label[place[good][order]] = sample.label[good][order] if explicit else 1.0
    return label


def _notes(settings: Settings, sample: Sample, labels: Labels, values: Sequence[Values]) -> list[str]:
    notes = [
        f"stream '{name}' has no event yet: nothing of it was tried"
        for name, one in sample.trials.items()
        if not one.read and not one.passed
    ]
    if labels.join_rate is not None and labels.join_rate < LOW_JOIN and labels.impressions:
        ids = " and ".join(f"[streams.{name}] id = '{one.id}'" for name, one in settings.streams.items())
        span = "" if sample.whole else "; or the samples are of different times: try more with --rows"
        notes.append(f"only {labels.join_rate:.0%} of feedback has its impression: do {ids} mean the same?{span}")
    if sample.duplicates > REPEATED * (sample.duplicates + len(sample.id)):
        notes.append(_repeated(settings, sample))
    if labels.feedback and labels.before > labels.joined:
        notes.append("most feedback lies before its impression: are `time`, `time_unit` and `time_zone` right?")
    for one in values:
        if one.missing >= 1.0 - 1e-9:
            notes.append(f"feature '{one.name}' is always missing")
        elif one.most is not None and one.most > ALIKE and one.kind != "ids":
            notes.append(f"feature '{one.name}' has one value in nearly all events: it teaches nothing")
        if one.kind == "id" and one.once and one.distinct and one.once > 0.9 * one.distinct and one.distinct > 1_000:
            notes.append(f"feature '{one.name}' is nearly unique: is it an event id? Set `admission = 2`, or remove it")
    return notes


def _repeated(settings: Settings, sample: Sample) -> str:
    """Most often the id of a thing, such as a machine, taken for that of an event."""
    here, shown = settings.streams["impression"].id, sample.duplicates + len(sample.id)
    return (
        f"{sample.duplicates:,} of {shown:,} impressions have the id of an earlier one, and are not learned: "
        f"[streams.impression] id = '{here}' must name one event, not what it is about"
    )
