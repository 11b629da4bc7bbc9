"""Reading event times: any of the forms that sources use -> int64 microseconds since 1970 UTC.

    raw column         unit         meaning
    integer, float     s ms us ns   since 1970 UTC; without a unit the column is refused
    string             iso or none  ISO 8601: 2013-01-01T05:15:00-05:00; `T` or a space, seconds optional, a fraction of
                                    any length (cut to microseconds), `Z` or an offset. Without one it needs a zone
    Arrow timestamp    none         with a zone as it is; without one it needs a zone

A naive time that its zone has twice (clocks go back) is the first of the two; one that it does not have (they go
forward) is the moment of the change. What cannot be read, and what lies outside the years 1000 to 2999, is null in the
answer, so that its row can go to quarantine alone. A column of which no value could ever be read is an error.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.column import is_number, is_text, plain
from headrace.errors import SettingsError, WrongType

if TYPE_CHECKING:
    from headrace.features import TimeUnit

UTC_US: Final = pa.timestamp("us", "UTC")
NAIVE_US: Final = pa.timestamp("us")

FIRST_US: Final = int(datetime(1000, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
LAST_US: Final = int(datetime(3000, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000 - 1

_PER_S: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_ISO: Final = (
    r"^[12]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])[T ](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?"
    r"(?:Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?$"
)
_SHORT: Final = len("2013-01-01T05:15:00.123456")  # with more digits a text is longer
_OFFSET: Final = r"(?:Z|[+-]\d{2}(?::?\d{2})?)$"


def parse_time(column: pa.Array | pa.ChunkedArray, unit: TimeUnit | None = None, zone: str | None = None) -> pa.Array:
    """Microseconds int64 [n]; null where there is no time, or none that can be read.

    SettingsError: integers without a unit, timestamps without a zone. WrongType: a column that cannot hold times.

    >>> parse_time(pa.array(["2013-01-01T05:15:00-05:00", "soon"])).to_pylist()
    [1357035300000000, None]
    >>> parse_time(pa.array([1357035300]), "s").to_pylist()
    [1357035300000000]
    """
    column = plain(column)
    kind = column.type
    if pa.types.is_null(kind):
        return column.cast(pa.int64())
    if pa.types.is_timestamp(kind):
        return _timestamps(column, zone)
    if is_number(kind):
        return _scaled(column, _known(unit, kind))
    if is_text(kind):
        return _iso(column.cast(pa.string()), zone) if unit in (None, "iso") else pa.nulls(len(column), pa.int64())
    raise WrongType(
        f"times cannot be read from a column of {kind}",
        hint="times are integers with a time_unit, ISO 8601 strings or timestamps",
        type=str(kind),
    )


def _known(unit: TimeUnit | None, kind: pa.DataType) -> TimeUnit:
    if unit is None or unit == "iso":
        raise SettingsError(
            f"the times are numbers ({kind}) and their unit is not set",
            hint='add time_unit = "s", "ms", "us" or "ns": what they count since 1970',
        )
    return unit


def _scaled(column: pa.Array, unit: TimeUnit) -> pa.Array:
    """v [unit] -> floor(v * 10^6 / per_s) us for integers, rounded for floats; null outside FIRST_US .. LAST_US."""
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.fill_null(0).to_numpy(zero_copy_only=False)
    per_s = _PER_S[unit]
    low, high = FIRST_US * per_s // 1_000_000, LAST_US * per_s // 1_000_000
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            valid &= (values >= low) & (values <= high)
        times = np.rint(np.where(valid, values, 0).astype(np.float64) * (1_000_000 / per_s)).astype(np.int64)
    else:
        low, high = max(low, -(2**63)), min(high, 2**63 - 1)
        valid &= (values >= low) & (values <= high)
        whole = np.where(valid, values, 0).astype(np.int64)
        times = whole * (1_000_000 // per_s) if per_s <= 1_000_000 else whole // (per_s // 1_000_000)
    return pa.array(times, pa.int64(), mask=~valid)


def _timestamps(column: pa.Array, zone: str | None) -> pa.Array:
    if column.type.tz is None:
        if zone is None:
            raise SettingsError(
                f"the times ({column.type}) do not say their zone",
                hint='add time_zone = "UTC", or the zone in which they were written',
            )
        column = _localise(column, zone)
    return _scaled(column.cast(pa.int64()), column.type.unit)


def _localise(naive: pa.Array, zone: str) -> pa.Array:
    moments = pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="latest")
    return moments.cast(pa.timestamp(naive.type.unit, "UTC"))


def _iso(column: pa.Array, zone: str | None) -> pa.Array:
    column = pc.if_else(pc.match_substring_regex(column, _ISO), column, None)
    if (pc.max(pc.binary_length(column)).as_py() or 0) > _SHORT:
        column = pc.replace_substring_regex(column, r"(\.\d{6})\d+", r"\1")
    zoned = pc.match_substring_regex(column, _OFFSET)
    times = _cast(pc.if_else(zoned, column, None), UTC_US)
    if zone is not None and not pc.all(zoned).as_py():
        naive = _cast(pc.if_else(zoned, None, column), NAIVE_US)
        times = pc.coalesce(times, _localise(naive, zone))
    return _scaled(times.cast(pa.int64()), "us")


def _cast(texts: pa.Array, to: pa.DataType) -> pa.Array:
    """Texts in the form of _ISO -> timestamps; null for days that the calendar does not have."""
    try:
        return texts.cast(to)
    except pa.ArrowInvalid:
        days = pc.utf8_slice_codeunits(texts, 0, 10)
        real = [day for day in days.unique().to_pylist() if day is not None and _is_day(day)]
        return pc.if_else(pc.is_in(days, pa.array(real, pa.string())), texts, None).cast(to)


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def local_parts(times_us: npt.NDArray[np.int64], part: str, zone: str) -> npt.NDArray[np.int64]:
    """A part of each time on the clocks and calendars of a zone: minute, hour, weekday (Monday = 0), day of the month.

    Arrow knows summer time up to 2037.

    >>> local_parts(np.array([1357035300000000]), "hour", "America/New_York").tolist()
    [5]
    """
    local = pa.array(times_us, pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone))
    parts = {"minute": pc.minute, "hour": pc.hour, "weekday": pc.day_of_week, "day": pc.day}[part](local)
    values: npt.NDArray[np.int64] = parts.to_numpy(zero_copy_only=False)
    return values
