"""What a column of events holds."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.column import is_list, is_number, is_text, plain
from headrace.times import parse_time

if TYPE_CHECKING:
    from headrace.features import TimeUnit
    from headrace.place import Path

What = Literal["time", "list", "number", "integer", "text", "boolean", "empty", "nested"]

TIME_NAME: Final = re.compile(r"time|date|stamp|(^|_)(ts|at|when)$", re.IGNORECASE)
EARLIEST_S, LATEST_S = 946_684_800, 4_102_444_800  # 2000, 2100
PER_S: Final[dict[TimeUnit, int]] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class Column:
    """One column of the sample, or a field inside one, whose name is its path: `user.age`.

    Integers that came as floats, because some are missing, count as integers.
    """

    name: str
    values: pa.Array
    what: What
    time_unit: TimeUnit | None = None
    naive: bool = False
    nested: bool = False

    @property
    def path(self) -> Path:
        return tuple(self.name.split(".")) if self.nested else (self.name,)

    @property
    def word(self) -> str:
        """What names of roles are compared with: `event_id` of `event.id`, in small letters."""
        return self.name.replace(".", "_").lower()

    @property
    def last(self) -> str:
        """The name of the field itself, in small letters: `ts` of `meta.ts`."""
        return self.path[-1].lower()

    @cached_property
    def distinct(self) -> int:
        """How many values it has, null not counted."""
        if self.what in ("list", "nested"):
            return len(self.values)
        return int(pc.count_distinct(self.values, mode="only_valid").as_py())

    @cached_property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which values are not missing, bool [n]."""
        mask: npt.NDArray[np.bool_] = self.values.is_valid().to_numpy(zero_copy_only=False)
        return mask

    @cached_property
    def times_us(self) -> npt.NDArray[np.float64]:
        """float64 [n], NaN where missing; exact enough to compare."""
        times = parse_time(self.values, self.time_unit, "UTC" if self.naive else None)
        found: npt.NDArray[np.float64] = times.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return found

    @cached_property
    def numbers(self) -> npt.NDArray[np.float64]:
        """float64 [n] of numbers and booleans, NaN where missing."""
        values = self.values.cast(pa.int8()) if pa.types.is_boolean(self.values.type) else self.values
        found: npt.NDArray[np.float64] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return found

    def equal(self, value: Any) -> npt.NDArray[np.bool_]:
        """Where the column has the value, bool [n]."""
        mask: npt.NDArray[np.bool_] = pc.fill_null(pc.equal(self.values, value), False).to_numpy(zero_copy_only=False)
        return mask


def look_at(sample: pa.Table) -> dict[str, Column]:
    """Every column, in order; of objects their fields, if their path can be written as `a.b`."""
    found: dict[str, Column] = {}
    for name in sample.column_names:
        for column in _inside(_look(name, plain(sample.column(name)))):
            found.setdefault(column.name, column)
    return found


def _inside(column: Column) -> list[Column]:
    """The column, or the columns inside an object."""
    kind = column.values.type
    names = [kind.field(i).name for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []
    dotted = any("." in name for name in names) or ("." in column.name and not column.nested)
    if not names or dotted:
        return [column]
    fields = [_look(f"{column.name}.{name}", plain(pc.struct_field(column.values, name))) for name in names]
    return [inner for field in fields for inner in _inside(replace(field, nested=True))]


def _look(name: str, values: pa.Array) -> Column:
    kind = values.type
    if values.null_count == len(values):
        return Column(name, values, "empty")
    if is_list(kind):
        return Column(name, values, "list")
    if pa.types.is_boolean(kind):
        return Column(name, values, "boolean")
    if pa.types.is_timestamp(kind):
        return Column(name, values, "time", naive=kind.tz is None)
    if is_text(kind):
        return _look_at_text(name, values)
    if is_number(kind) or pa.types.is_decimal(kind):
        return _look_at_numbers(name, values)
    return Column(name, values, "nested")


def _look_at_text(name: str, values: pa.Array) -> Column:
    """Times, if nine of ten read as ISO 8601."""
    read = parse_time(values, "iso", "UTC")
    if len(values) - read.null_count < 0.9 * (len(values) - values.null_count):
        return Column(name, values, "text")
    zoned = parse_time(values, "iso", None)
    return Column(name, values, "time", naive=zoned.null_count > read.null_count)


def _look_at_numbers(name: str, values: pa.Array) -> Column:
    numbers = values.cast(pa.float64(), safe=False).drop_null().to_numpy(zero_copy_only=False)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return Column(name, values, "empty")
    unit = _epoch_unit(numbers) if TIME_NAME.search(name.replace(".", "_")) else None
    if unit is not None:
        return Column(name, values, "time", time_unit=unit)
    return Column(name, values, "integer" if bool((numbers == np.floor(numbers)).all()) else "number")


def _epoch_unit(numbers: npt.NDArray[np.float64]) -> TimeUnit | None:
    """The unit in which nine of ten numbers are times of this century."""
    low, high = np.quantile(numbers, [0.05, 0.95], method="nearest")
    return next((unit for unit, n in PER_S.items() if low >= EARLIEST_S * n and high < LATEST_S * n), None)


def values_of(column: Column) -> list[Any]:
    """The distinct values, the most frequent first."""
    pairs = sorted(pc.value_counts(column.values.drop_null()).to_pylist(), key=lambda pair: -pair["counts"])
    return [pair["values"] for pair in pairs]
