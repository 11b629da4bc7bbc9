"""What an event of a stream must have, and what becomes of one that does not: the vocabulary of parsing.

Raw blocks of a source become `Parsed`: accepted events as an Arrow table with `_id` (string), `_ts` (int64, us),
`_offset` (int64, in the file of the block), `_label` (float32, feedback only) and the raw values of each feature under
its name, and refused events with their offset, reason and first bytes. An event is refused alone; its neighbours
never notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import WrongType
from headrace.place import Path, path_of, place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.features import Feature, TimeUnit

__all__ = [
    "RAW_BYTES",
    "REASONS",
    "UNATTRIBUTED",
    "Columns",
    "Limits",
    "Parsed",
    "Refused",
    "Stream",
    "places",
    "value_at",
]

RAW_BYTES = 4096

UNATTRIBUTED = frozenset(
    {"too_long", "malformed", "too_deep", "quoted_newline", "broken_file", "broken_piece"}
)  # no telling whose record it is

REASONS = {
    "too_long": "is longer than pipeline.record_bytes",
    "malformed": "is not one whole record (JSON: one object per line; CSV: as many fields as the header)",
    "duplicate_key": "names a needed key twice",
    "utf8": "has text that is not UTF-8",
    "too_deep": "is nested too deeply",
    "wrong_type": "has a value of another type than the settings say",
    "infinite": "has a number that is infinite or not a number",
    "out_of_range": "has a number that its feature or its type cannot take (float32; log1p takes numbers above -1)",
    "quoted_newline": "has a line break inside quotes; write it as \\n, or use JSON lines or Parquet",
    "broken_file": "is a file that cannot be read as its format says; write it anew under a later name",
    "broken_piece": "is a piece of a file, from this offset, that cannot be read; write it anew under a later name",
    "missing_id": "has no id; see `id` of the stream",
    "missing_time": "has no time; see `time` of the stream",
    "bad_time": "has a time that cannot be read; see `time`, `time_unit` and `time_zone` of the stream",
    "time_without_unit": 'has a number as time; add time_unit = "s", "ms", "us" or "ns" to the stream',
    "time_range": "has a time before 1970",
    "future": "lies more than pipeline.future_s in the future",
    "missing_label": "has no label; see `label` of the stream",
    "label_range": "has a label that is not between 0 and 1",
    "late": "came after the watermark had passed the end of its life",
    "before_impression": "is feedback before its impression",
}


@dataclass(frozen=True)
class Stream:
    """What parsing needs to know of one stream. id, time, label and the keys of `where` are places (`headrace.place`).

    `shared`: other streams read the same source, so a record without this stream's time is theirs. `first`: records of
    a shared source that cannot be parsed count in the first of its streams.
    """

    name: str
    role: str
    id: str
    time: str
    time_unit: TimeUnit | None = None
    time_zone: str | None = None
    label: str | None = None
    where: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    features: tuple[Feature, ...] = ()
    shared: bool = False
    first: bool = True

    @cached_property
    def id_path(self) -> Path:
        return path_of(self.id)

    @cached_property
    def time_path(self) -> Path:
        return path_of(self.time)

    @cached_property
    def label_path(self) -> Path | None:
        return path_of(self.label) if self.label else None

    @cached_property
    def where_paths(self) -> Mapping[Path, str | int | float | bool]:
        return {path_of(place): value for place, value in self.where.items()}

    @cached_property
    def paths(self) -> frozenset[Path]:
        """Every place that is needed."""
        named = {self.id_path, self.time_path, *self.where_paths, *(f.path for f in self.features if f.path)}
        return frozenset(named | ({self.label_path} if self.label_path else set()))

    @cached_property
    def columns(self) -> frozenset[str]:
        """Top-level columns that are needed."""
        return frozenset(path[0] for path in self.paths)


@dataclass(frozen=True)
class Limits:
    """Bounds of one record. `latest_us`: events after it are refused as `future`. `nan_is_null`: of typed columns."""

    record_bytes: int
    latest_us: int
    nan_is_null: bool = False


@dataclass(frozen=True)
class Columns:
    """Typed raw values of n records: mine bool [n] (what `where` picks), an array [n] for each thing a stream needs."""

    mine: np.ndarray
    id: pa.Array
    time: pa.Array
    label: pa.Array | None
    features: Mapping[str, pa.Array]

    @staticmethod
    def of(stream: Stream, table: pa.Table) -> Columns:
        """From a table that has all of `stream.paths`."""
        return Columns(
            mine=_where(stream, table),
            id=value_at(table, stream.id_path),
            time=value_at(table, stream.time_path),
            label=value_at(table, stream.label_path) if stream.label_path else None,
            features={f.name: value_at(table, f.path) for f in stream.features if f.path},
        )

    def filter(self, keep: np.ndarray) -> Columns:
        mask = pa.array(keep)
        label = None if self.label is None else self.label.filter(mask)
        features = {name: column.filter(mask) for name, column in self.features.items()}
        return Columns(self.mine[keep], self.id.filter(mask), self.time.filter(mask), label, features)


@dataclass(frozen=True)
class Refused:
    """One event that was kept aside. `raw`: its first 4 KiB; `size`: its whole length."""

    offset: int
    reason: str
    raw: bytes
    size: int


@dataclass(frozen=True)
class Parsed:
    """What one block gave. `unseen`: features that no record of the block named; `passed`: records of other streams.

    `events` are several tables where the raw values of a feature have several types; encoded they are of one.
    """

    events: tuple[pa.Table, ...]
    refused: tuple[Refused, ...] = ()
    passed: int = 0
    unseen: frozenset[str] = frozenset()

    @property
    def accepted(self) -> int:
        return sum(int(table.num_rows) for table in self.events)


def value_at(table: pa.Table, path: Path) -> pa.Array:
    """The column at a path such as ("user", "age"); null where an object on the way is."""
    column = table.column(path[0]).combine_chunks()
    for name in path[1:]:
        if pa.types.is_null(column.type):
            break
        column = pc.struct_field(column, [name])
    return column


def places(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The text <file>:<offset> of struct<file, offset>."""
    file, offset = (pc.struct_field(column, name).cast(pa.string()) for name in ("file", "offset"))
    return pc.binary_join_element_wise(file, offset, ":")


def _where(stream: Stream, table: pa.Table) -> np.ndarray:
    mine = np.ones(table.num_rows, bool)
    for path, value in stream.where_paths.items():
        column = value_at(table, path)
        try:
            equal = pc.equal(column, pa.scalar(value).cast(column.type))
        except pa.ArrowInvalid as error:
            raise WrongType(
                f"streams.{stream.name}.where compares '{place_of(path)}' ({column.type}) with {value!r}",
                hint="give `where` a value of the type that the events have",
                column=place_of(path),
            ) from error
        mine &= np.asarray(pc.fill_null(equal, False)).astype(bool)
    return mine
