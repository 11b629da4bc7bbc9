"""The `[features]` section: one line per feature -> `headrace.features.Feature`.

key = name;  kind;  then where the raw value stands: column = "…", or path = "a.b" for a field inside a column, or
nothing (the column has the feature's name). `bucket` and `time` may say instead  of = "…", a place or another
feature, whose place they then share; `time` without a place takes the impressions' time.
ttl: how long an id is remembered that no event has; admission: from how many events on it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BeforeValidator, Field

from headrace.config.sections import Count, Place, Section, StreamSettings, Text
from headrace.errors import SettingsError
from headrace.features import Feature, Kind, Part, TimeUnit, Transform
from headrace.place import path_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _seconds(value: object) -> object:
    """
    >>> _seconds("36h"), _seconds("90")
    (129600.0, 90.0)
    """
    if not isinstance(value, str | bool):
        return value
    text = str(value).strip()
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS_S else (text, "s")
    try:
        return float(number) * _UNITS_S[unit]
    except ValueError:
        raise ValueError('must be like "7d", "36h", "90m" or "30s", or seconds') from None


_UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}

Lifetime = Annotated[float, BeforeValidator(_seconds), Field(ge=1, le=3_153_600_000)]
"""Seconds, 1 to 100 years."""


class FeatureSettings(Section):
    """One feature as it is written in the file."""

    kind: Kind
    column: Text | None = None
    path: Place | None = None
    of: Annotated[tuple[Place, ...], BeforeValidator(_as_tuple)] = ()
    edges: tuple[float, ...] = ()
    transform: Transform = "none"
    part: Part | None = None
    time_zone: str | None = None
    time_unit: TimeUnit | None = None
    max: Annotated[Count, Field(le=10_000)] = 16
    ttl: Lifetime | None = None
    admission: Count | None = None


KEYS: Final[dict[str, tuple[str, ...]]] = {
    "id": ("column", "path", "ttl", "admission"),
    "category": ("column", "path"),
    "number": ("column", "path", "transform"),
    "bucket": ("column", "path", "of", "edges"),
    "time": ("column", "path", "of", "part", "time_zone", "time_unit"),
    "ids": ("column", "path", "max", "ttl", "admission"),
    "cross": ("of", "ttl", "admission"),
}


def features_of(lines: Mapping[str, FeatureSettings], impression: StreamSettings) -> tuple[Feature, ...]:
    """All features, in the order of the file. SettingsError for a line that contradicts itself."""
    return tuple(_feature(name, line, lines, impression) for name, line in lines.items())


def _feature(
    name: str, line: FeatureSettings, lines: Mapping[str, FeatureSettings], impression: StreamSettings
) -> Feature:
    _check_keys(name, line)
    if line.kind == "cross":
        return Feature(name, "cross", of=line.of)
    path = _path(name, line, lines, impression)
    if line.kind == "time":
        return _time(name, line, path, impression)
    return Feature(
        name,
        line.kind,
        path,
        edges=line.edges,
        transform=line.transform,
        max=line.max if line.kind == "ids" else 0,
    )


def _check_keys(name: str, line: FeatureSettings) -> None:
    allowed = KEYS[line.kind]
    for key in line.told - {"kind", *allowed}:
        raise SettingsError(
            f"[features] {name}: {key} does not belong to kind = '{line.kind}'",
            hint=f"kind '{line.kind}' takes {', '.join(allowed)}",
            feature=name,
            key=key,
        )
    places = sorted(line.told & {"column", "path", "of"})
    if len(places) > 1:
        raise SettingsError(
            f"[features] {name}: {' and '.join(places)} both say where the value stands", hint="keep one", feature=name
        )
    if line.kind == "time" and line.part is None:
        raise SettingsError(
            f"[features] {name}: part is missing",
            hint='add part = "minute", "hour", "weekday" or "day" (of the month)',
            feature=name,
        )


def _path(
    name: str, line: FeatureSettings, lines: Mapping[str, FeatureSettings], impression: StreamSettings
) -> tuple[str, ...]:
    if line.path is not None:
        return path_of(line.path)
    if line.column is not None:
        return (line.column,)
    if not line.of:
        return path_of(impression.time) if line.kind == "time" else (name,)
    if len(line.of) > 1:
        raise SettingsError(
            f"[features] {name}: a {line.kind} is of one column or feature", hint=f'of = "{line.of[0]}"', feature=name
        )
    other = lines.get(line.of[0])
    if other is None or line.of[0] == name:
        return path_of(line.of[0])
    if other.kind == "cross" or other.of:
        raise SettingsError(
            f"[features] {name}: of = '{line.of[0]}' is a {other.kind} that is itself made of something else",
            hint="name the column",
            feature=name,
        )
    return _path(line.of[0], other, lines, impression)


def _time(name: str, line: FeatureSettings, path: tuple[str, ...], impression: StreamSettings) -> Feature:
    """The impressions' own time column is read as the stream says; any other as the feature says."""
    own = path == path_of(impression.time)
    if own and line.time_unit is not None:
        raise SettingsError(
            f"[features] {name}: the time_unit of '{impression.time}' is a matter of [streams.impression]",
            hint="remove time_unit here",
            feature=name,
        )
    assert line.part is not None
    return Feature(
        name,
        "time",
        path,
        part=line.part,
        time_zone=line.time_zone or impression.time_zone or "UTC",
        time_unit=impression.time_unit if own else line.time_unit,
        source_zone=impression.time_zone if own else line.time_zone,
    )
