"""What a feature is: a name, a kind, and where its raw value stands in an event.

    kind      raw value                      encoded as             settings of its own
    id        string, integer, boolean       one id                 (open vocabulary)
    category  the same                       one id                 (small vocabulary)
    bucket    number                         id of the bucket       edges
    time      time                           id of the local part   part, time_zone, time_unit
    cross     ids of its members             one id                 of
    ids       list of what an id may be      several ids            max
    number    number                         float32, null missing  transform

This module has the words and their rules and needs nothing but the standard library, so that settings can be checked
without loading Arrow. `headrace.ids` says what an id is, `headrace.schema` encodes.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args
from zoneinfo import ZoneInfo

from headrace.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["id", "category", "number", "bucket", "time", "ids", "cross"]
Part = Literal["minute", "hour", "weekday", "day"]
Transform = Literal["none", "log1p"]
TimeUnit = Literal["s", "ms", "us", "ns", "iso"]

KINDS: Final = get_args(Kind)
SPARSE_KINDS: Final = ("id", "category", "bucket", "time", "cross")
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
SHARD_COLUMNS: Final = frozenset(
    ["impression_id", "event_time_us", "emit_time_us", "window", "label", "row_kind", "delay_us", "sample_rate"]
)


@dataclass(frozen=True)
class Feature:
    """One feature. `path` leads to the raw value: `("user",)` is a column, `("user", "age")` a field inside one.

    `part` and `time_zone` say what a `time` feature takes from its time (weekday: Monday = 0; day: of the month);
    `time_unit` and `source_zone` how the raw time is written (see `headrace.times`). A cross has members in `of` and
    no path.
    """

    name: str
    kind: Kind
    path: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    transform: Transform = "none"
    part: Part = "hour"
    time_zone: str = "UTC"
    time_unit: TimeUnit | None = None
    source_zone: str | None = None
    max: int = 0

    @property
    def column(self) -> str:
        """The event column that is read; empty for a cross."""
        return self.path[0] if self.path else ""

    @property
    def place(self) -> str:
        """Where the raw value stands, as one writes it in the settings: `user.age`."""
        return ".".join(self.path)


def check_features(features: Sequence[Feature]) -> None:
    """Raise SettingsError for the first rule that the features break, together or alone."""
    if not features:
        raise SettingsError("no features are defined", hint="add at least one line below [features]")
    kinds: dict[str, Kind] = {}
    for feature in features:
        _check_name(feature.name)
        if feature.name in kinds:
            raise SettingsError(f"feature '{feature.name}' is defined twice", feature=feature.name)
        kinds[feature.name] = feature.kind
    for feature in features:
        _CHECKS.get(feature.kind, _check_path)(feature, kinds)


def _check_name(name: str) -> None:
    if name in SHARD_COLUMNS:
        raise SettingsError(
            f"a feature cannot be called '{name}': shards have a column of that name",
            hint=f'call it my_{name} and add column = "{name}"',
            feature=name,
        )
    if not NAME.fullmatch(name):
        raise SettingsError(
            f"'{name}' cannot name a feature",
            hint="use letters, digits and _, starting with a letter, at most 64; "
            'what the event calls it goes into column = "…"',
            feature=name,
        )


def _check_path(feature: Feature, _kinds: dict[str, Kind]) -> None:
    if not feature.path or not all(feature.path):
        raise SettingsError(
            f"feature '{feature.name}' does not say where its value stands",
            hint='add column = "…", or path = "a.b" for a nested field',
            feature=feature.name,
        )


def _check_bucket(feature: Feature, kinds: dict[str, Kind]) -> None:
    _check_path(feature, kinds)
    edges = feature.edges
    if not edges or any(not low < high for low, high in itertools.pairwise(edges)):
        raise SettingsError(
            f"the edges of bucket '{feature.name}' must be numbers that grow",
            hint="edges = [1, 6, 24] makes the four buckets below 1, 1 to 6, 6 to 24, from 24 on",
            feature=feature.name,
        )


def _check_time(feature: Feature, kinds: dict[str, Kind]) -> None:
    _check_path(feature, kinds)
    for zone in (feature.time_zone, feature.source_zone):
        if zone is not None:
            check_time_zone(zone, f"feature '{feature.name}'")


def check_time_zone(zone: str, whose: str) -> None:
    """Raise SettingsError unless the IANA data base has the zone."""
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise SettingsError(
            f"{whose}: '{zone}' is not a time zone",
            hint='use an IANA name such as "Europe/Berlin" or "UTC"',
            time_zone=zone,
        ) from None


def _check_ids(feature: Feature, kinds: dict[str, Kind]) -> None:
    _check_path(feature, kinds)
    if feature.max < 1:
        raise SettingsError(
            f"feature '{feature.name}' needs max >= 1: how many of its values are kept",
            hint="add max = 16: of longer lists the first 16 count",
            feature=feature.name,
        )


def _check_cross(feature: Feature, kinds: dict[str, Kind]) -> None:
    if len(feature.of) < 2 or len(set(feature.of)) < len(feature.of):
        raise SettingsError(
            f"cross '{feature.name}' needs two or more different members",
            hint='of = ["user", "surface"]',
            feature=feature.name,
        )
    for member in feature.of:
        kind = kinds.get(member)
        if kind is None:
            raise SettingsError(
                f"cross '{feature.name}' is made of '{member}', which is not a feature",
                hint=_nearest(member, kinds),
                feature=feature.name,
            )
        if kind in ("number", "ids", "cross"):
            raise SettingsError(
                f"cross '{feature.name}' cannot be made of '{member}': its kind is {kind}",
                hint=_CROSS_HINTS[kind],
                feature=feature.name,
            )


_CROSS_HINTS: Final = {
    "number": "define a bucket of the number and cross that",
    "ids": "only features with one id per event can be crossed",
    "cross": "name the members of both crosses in one",
}


def _nearest(name: str, names: dict[str, Kind]) -> str:
    return nearest(name, names) or "members are names of features: define it below [features] first"


def nearest(word: str, words: Sequence[str] | dict[str, Kind]) -> str:
    """The hint "did you mean 'x'?" with the most similar of `words`, or nothing.

    >>> nearest("wait", ["wait_s", "mode"])
    "did you mean 'wait_s'?"
    """
    from difflib import get_close_matches

    close = get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


_CHECKS: Final = {"bucket": _check_bucket, "time": _check_time, "ids": _check_ids, "cross": _check_cross}
