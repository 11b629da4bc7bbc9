"""Which columns are the id, the times, the label, the type of event; and how long labels take."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import SettingsError
from headrace.guess.columns import TIME_NAME, Column, values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TYPE_NAMES: Final = ("type", "event_type", "event", "kind", "action", "event_name", "name")
SHOWN: Final = re.compile(r"impress|^imp$|view|show|serve|expos|display|request", re.IGNORECASE)
DONE: Final = re.compile(r"click|tap|buy|purchas|convert|conversion|order|install|like|feedback|play", re.IGNORECASE)
ID_NAMES: Final = ("event_id", "impression_id", "request_id", "id", "uuid", "guid")
ID_NAME: Final = re.compile(r"(^|_)(id|uuid|guid)$", re.IGNORECASE)
LABEL_NAMES: Final = ("label", "target", "y", "clicked", "click", "is_click", "converted", "outcome", "is_late")
TIME_NAMES: Final = ("event_time", "impression_time", "shown_at", "request_time", "timestamp", "time", "ts")
LABEL_TIME: Final = re.compile(r"label|outcome|feedback|click|convert|result|end|finish|arriv", re.IGNORECASE)

FULL: Final = 0.95
"""A column that so many events have is always there: a few broken lines say nothing about the others."""
YES: Final = frozenset({"yes", "y", "true", "t", "positive"})
NO: Final = frozenset({"no", "n", "false", "f", "negative", "ok"})

NICE_S: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400)


@dataclass(frozen=True)
class Roles:
    """The columns with a role. `shown`, `done`: values of `kind` for impressions and feedback.

    Without `label` and `kind`, an event with a feedback time is a positive one: `clicked_at`, mostly empty.
    """

    id: Column
    time: Column
    feedback_time: Column
    label: Column | None = None
    kind: Column | None = None
    shown: str = ""
    done: str = ""

    @property
    def explicit(self) -> bool:
        return self.label is not None

    @property
    def outcome(self) -> Column | None:
        """The label of each event of the sample, if each has its own."""
        if self.label is not None or self.kind is not None:
            return self.label
        return Column(self.feedback_time.name, pa.array(self.feedback_time.present), "boolean")


def find_roles(columns: Mapping[str, Column]) -> Roles:
    """SettingsError if there is no id, no time, or nothing that could be a label."""
    times = [column for column in columns.values() if column.what == "time"]
    if not times:
        raise _nothing(
            "time", 'integers in a column such as "timestamp", ISO 8601 text or timestamps', _like(columns, TIME_NAME)
        )
    kinds = _type_column(columns)
    if kinds is not None:
        kind, shown, done = kinds
        is_shown, is_done = (kind.equal(value) for value in (shown, done))
        time = _best(times, TIME_NAMES, lambda column: _share(column, is_shown))
        feedback_time = _best(times, (time.name,), lambda column: _share(column, is_done))
        return Roles(_id(columns, times), time, feedback_time, kind=kind, shown=shown, done=done)
    time = _event_time(times)
    try:
        label = _label(columns)
    except SettingsError:
        happened = _happened(times, time)
        if happened is None:
            raise
        return Roles(_id(columns, times), time, happened)
    return Roles(_id(columns, times), time, _label_time(times, time), label=label)


def delays_s(roles: Roles) -> npt.NDArray[np.float64]:
    """How long feedback took in the sample, float64 [k] in seconds, none negative."""
    if roles.kind is None:
        delay = (roles.feedback_time.times_us - roles.time.times_us) / 1e6
    else:
        delay = _joined_delays(roles)
    found: npt.NDArray[np.float64] = delay[np.isfinite(delay) & (delay >= 0)]
    return found


def nice_s(seconds: float) -> int:
    """The next round duration: 130 -> 300."""
    for nice in NICE_S:
        if seconds <= nice:
            return nice
    return int(np.ceil(seconds / 86_400)) * 86_400


def _joined_delays(roles: Roles) -> npt.NDArray[np.float64]:
    assert roles.kind is not None
    shown = {"id": roles.id.values, "shown": pa.array(roles.time.times_us)}
    done = {"id": roles.id.values, "done": pa.array(roles.feedback_time.times_us)}
    left = pa.table(shown).filter(pa.array(roles.kind.equal(roles.shown)))
    right = pa.table(done).filter(pa.array(roles.kind.equal(roles.done)))
    both = left.join(right, "id", join_type="inner")
    delay: npt.NDArray[np.float64] = (both.column("done").to_numpy() - both.column("shown").to_numpy()) / 1e6
    return delay


def _type_column(columns: Mapping[str, Column]) -> tuple[Column, str, str] | None:
    candidates = [c for c in columns.values() if c.what == "text" and 2 <= c.distinct <= 12]
    for column in sorted(candidates, key=lambda c: _rank(c, TYPE_NAMES)):
        values = [str(value) for value in values_of(column)]
        shown = [value for value in values if SHOWN.search(value)]
        done = [value for value in values if DONE.search(value) and value not in shown]
        if shown and done:
            return column, shown[0], done[0]
    return None


def _label(columns: Mapping[str, Column]) -> Column:
    found = [label for column in columns.values() if (label := _binary(column)) is not None]
    named = [column for column in found if _called(column, LABEL_NAMES)]
    if named:
        return min(named, key=lambda column: _rank(column, LABEL_NAMES))
    if len(found) == 1:
        return found[0]
    if found:
        raise _nothing("label", f"several columns hold 0 and 1 ({', '.join(c.name for c in found)}): call one 'label'")
    wanted = (
        "a 0/1 or true/false column for explicit labels, a time such as clicked_at that only positive events have, or a"
        " column of types such as impression and click"
    )
    raise _nothing("label", wanted, _nearly_label(columns))


def _binary(column: Column) -> Column | None:
    """The column without what is neither 0 nor 1, if both are there and that is little."""
    if column.what not in ("integer", "boolean", "number"):
        return None
    fits = np.isin(column.numbers, (0.0, 1.0))
    if fits.sum() < FULL * column.present.sum() or len(np.unique(column.numbers[fits])) < 2:
        return None
    return column if fits.all() else replace(column, values=pc.if_else(pa.array(fits), column.values, None))


def _nearly_label(columns: Mapping[str, Column]) -> str:
    """What could be the label if it were written otherwise."""
    for column in columns.values():
        values = [str(value) for value in values_of(column)] if column.what == "text" and column.distinct <= 3 else []
        yes = [value for value in values if value.lower() in YES]
        if yes and any(value.lower() in NO for value in values):
            said = ", ".join(f"'{value}'" for value in values)
            pick = f'where = {{ {column.name} = "{yes[0]}" }} and mode = "implicit"'
            return (
                f"'{column.name}' says {said}: write 1 and 0, or true and false; or fill in a file in which feedback "
                f"is what says {yes[0]}: {pick}"
            )
    return _like(columns, re.compile("|".join(rf"^{name}$" for name in LABEL_NAMES), re.IGNORECASE))


def _like(columns: Mapping[str, Column], name: re.Pattern[str]) -> str:
    """The column that is called so, and what stands in it."""
    for column in columns.values():
        values = column.values.drop_null()
        if name.search(column.name) and len(values):
            return f"'{column.name}' is called so, but holds {', '.join(repr(v) for v in values[:2].to_pylist())[:80]}"
    return ""


def _id(columns: Mapping[str, Column], times: list[Column]) -> Column:
    """By name, then the first column whose values are all different."""
    taken = {column.name for column in times}
    others = [c for c in columns.values() if c.what in ("integer", "text") and c.name not in taken]
    able = [c for c in others if c.present.mean() >= FULL]
    named = [c for c in able if ID_NAME.search(c.word) and c.distinct > len(c.values) // 3]
    unique = [c for c in able if c.distinct >= FULL * len(c.values)]
    if not named and not unique:
        near = [c for c in others if ID_NAME.search(c.word)]
        why = [
            f"'{c.name}' has {c.distinct:,} values in {len(c.values):,} events, {c.present.mean():.0%} filled"
            for c in near
        ]
        wanted = (
            "a column that differs between impressions and is the same in their feedback; where rows have none, write"
            " one, such as the machine and the time in one text"
        )
        raise _nothing("id", wanted, "; ".join(why[:2]))
    return min([*named, *unique], key=lambda column: (_rank(column, ID_NAMES), -column.distinct))


def _event_time(times: list[Column]) -> Column:
    """By name; else the one that is always there and earliest."""
    full = [column for column in times if column.present.mean() >= FULL] or times
    named = [column for column in full if _called(column, TIME_NAMES)]
    if named:
        return min(named, key=lambda column: _rank(column, TIME_NAMES))
    return min(full, key=lambda column: (bool(LABEL_TIME.search(column.name)), float(np.nanmean(column.times_us))))


def _after(column: Column, time: Column) -> bool:
    """Whether a time is hardly ever before the event's."""
    delay = column.times_us - time.times_us
    delay = delay[np.isfinite(delay)]
    return bool(len(delay)) and bool((delay >= 0).mean() >= 0.99)


def _happened(times: list[Column], time: Column) -> Column | None:
    """A time that only some events have, after their own and called after what people do: `clicked_at`."""
    some = [column for column in times if column is not time and 0 < column.present.mean() < FULL]
    named = [column for column in some if (DONE.search(column.name) or LABEL_TIME.search(column.name))]
    return next((column for column in named if _after(column, time)), None)


def _label_time(times: list[Column], time: Column) -> Column:
    """The one called after labels, or the fullest other one, that is never before the event; else the event's time."""
    later = [column for column in times if column is not time and _after(column, time)]
    if not later:
        return time
    return min(later, key=lambda column: (not LABEL_TIME.search(column.name), -column.present.mean()))


def _share(column: Column, rows: npt.NDArray[np.bool_]) -> float:
    return float(column.present[rows].mean()) if rows.any() else 0.0


def _best(columns: list[Column], names: Iterable[str], share: Callable[[Column], float]) -> Column:
    known = tuple(names)
    return min(columns, key=lambda column: (-round(share(column), 2), _rank(column, known)))


def _called(column: Column, names: tuple[str, ...]) -> bool:
    return _rank(column, names) < len(names)


def _rank(column: Column, names: tuple[str, ...]) -> int:
    """The place of its name, with or without the object that it is in: `event.id` is an `event_id`, and an `id`."""
    words = (column.name.lower(), column.word, column.last)
    return next((names.index(word) for word in words if word in names), len(names))


def _nothing(role: str, wanted: str, near: str = "") -> SettingsError:
    return SettingsError(
        f"the events have no column that could be the {role}" + (f"; {near}" if near else ""),
        hint=f"wanted: {wanted}; `headrace init` without --from writes a file to fill in",
        role=role,
    )
