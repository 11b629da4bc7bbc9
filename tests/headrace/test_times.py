from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import SettingsError, WrongType
from headrace.times import local_parts, parse_time

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
NOON_US = 1_357_041_600_000_000


@pytest.mark.parametrize(
    ("column", "unit", "zone"),
    [
        (pa.array([NOON_US // 10**6]), "s", None),
        (pa.array([NOON_US // 10**3]), "ms", None),
        (pa.array([NOON_US]), "us", None),
        (pa.array([NOON_US * 1000 + 999]), "ns", None),
        (pa.array([NOON_US / 1e6]), "s", None),
        (pa.array([NOON_US // 10**6], pa.uint32()), "s", None),
        (pa.array(["2013-01-01T12:00:00Z"]), None, None),
        (pa.array(["2013-01-01 12:00+00"]), "iso", None),
        (pa.array(["2013-01-01T07:00:00.000-05:00"]), "iso", "Asia/Tokyo"),
        (pa.array(["2013-01-01T07:00:00"]), "iso", "America/New_York"),
        (pa.array(["2013-01-01T12:00:00.0000009Z"]), None, None),
        (pa.array([NOON], pa.timestamp("ms", "Europe/Berlin")), None, None),
        (pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ns")), None, "UTC"),
        (pa.array(["2013-01-01T12:00:00Z"]).dictionary_encode(), None, None),
        (pa.chunked_array([["2013-01-01T12:00:00Z"]], pa.large_string()), None, None),
    ],
)
def test_forms_of_one_moment(column: pa.Array, unit: str | None, zone: str | None) -> None:
    assert parse_time(column, unit, zone).to_pylist() == [NOON_US]


@pytest.mark.parametrize("value", [
    "", "soon", "2013-01-01", "2013-02-30T12:00:00Z", "2013-13-01T12:00:00Z", "2013-01-01T25:00:00Z",
    "2013-01-01T12:00:00", "2013-01-01T12:00:60Z", " 2013-01-01T12:00:00Z", "0001-01-01T00:00:00Z", "1357041600", None,
])  # fmt: skip
def test_what_cannot_be_read_is_null_and_alone(value: str | None) -> None:
    column = pa.array(["2013-01-01T12:00:00Z", value, "2013-01-01T12:00:00+00:00"])
    assert parse_time(column).to_pylist() == [NOON_US, None, NOON_US]


@pytest.mark.parametrize("value", [2**63 - 1, -(2**62), None])
def test_numbers_beyond_the_calendar_are_null(value: int | None) -> None:
    assert parse_time(pa.array([value, 0]), "s").to_pylist() == [None, 0]


def test_floats_that_are_no_time_are_null() -> None:
    column = pa.array([1.5, None, float("nan"), float("inf"), -float("inf"), 1e300])
    assert parse_time(column, "s").to_pylist() == [1_500_000, None, None, None, None, None]


def test_integers_without_a_unit_are_refused() -> None:
    for unit in (None, "iso"):
        with pytest.raises(SettingsError, match="their unit is not set") as error:
            parse_time(pa.array([NOON_US]), unit)
        assert error.value.hint.startswith('add time_unit = "s", "ms", "us" or "ns"')


def test_timestamps_without_a_zone_are_refused() -> None:
    with pytest.raises(SettingsError, match="do not say their zone") as error:
        parse_time(pa.array([NOON], pa.timestamp("us")))
    assert error.value.hint.startswith('add time_zone = "UTC"')


def test_other_columns_cannot_be_times() -> None:
    with pytest.raises(WrongType, match="times cannot be read from a column of bool"):
        parse_time(pa.array([True]))


def test_clocks_that_change() -> None:
    column = pa.array(["2013-03-10T02:30:00", "2013-11-03T01:30:00"])
    gap, twice = parse_time(column, None, "America/New_York").to_pylist()
    assert datetime.fromtimestamp(gap / 1e6, UTC) == datetime(2013, 3, 10, 7, tzinfo=UTC)
    assert datetime.fromtimestamp(twice / 1e6, UTC) == datetime(2013, 11, 3, 5, 30, tzinfo=UTC)


ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]
MOMENTS = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001  hypothesis wants bounds without a zone
    datetime(2037, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from(ZONES).map(ZoneInfo),
)


@given(st.lists(MOMENTS, max_size=20))
def test_iso_8601_reads_as_python_reads_it(moments: list[datetime]) -> None:
    texts = [moment.isoformat() for moment in moments]
    expected = [(datetime.fromisoformat(t) - datetime(1970, 1, 1, tzinfo=UTC)) for t in texts]
    micros = [(d.days * 86_400 + d.seconds) * 10**6 + d.microseconds for d in expected]
    assert parse_time(pa.array(texts, pa.string())).to_pylist() == micros


@given(st.lists(MOMENTS, min_size=1, max_size=20), st.sampled_from(ZONES))
def test_parts_are_those_of_local_clocks(moments: list[datetime], zone: str) -> None:
    times = np.array([int(moment.timestamp()) * 10**6 for moment in moments])
    local = [datetime.fromtimestamp(moment.timestamp(), ZoneInfo(zone)) for moment in moments]  # out of skipped hours
    for part, of in {"minute": lambda t: t.minute, "hour": lambda t: t.hour, "weekday": lambda t: t.weekday(),
                     "day": lambda t: t.day}.items():  # fmt: skip
        assert local_parts(times, part, zone).tolist() == [of(t) for t in local]
