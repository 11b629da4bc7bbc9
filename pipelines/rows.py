"""Typed rows (Parquet, Arrow, Avro) -> events. A row with a value that its type does not allow is refused alone."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.column import plain
from pipelines.check import check, require
from pipelines.events import RAW_BYTES, Columns, Limits, Parsed, Refused, Stream
from pipelines.sound import holds_text, unsound

if TYPE_CHECKING:
    from pipelines.sources.base import Rows

__all__ = ["parse_rows"]


def parse_rows(stream: Stream, limits: Limits, block: Rows) -> Parsed:
    """Accepted and refused events of one block."""
    require(stream, block.table.schema, block.file)
    offsets = np.arange(block.start, block.start + block.table.num_rows)
    if block.offsets is not None:
        offsets = np.array(block.offsets)
    columns = {name: plain(block.table.column(name)) for name in sorted(stream.columns)}
    marks = {name: unsound(column) for name, column in columns.items()}
    table = pa.table(columns)
    wrong = np.logical_or.reduce(list(marks.values()))
    good = np.flatnonzero(~wrong)

    def raw(row: int) -> tuple[bytes, int]:
        return _raw(block.table, int(good[row]))

    kept = table.filter(pa.array(~wrong)) if wrong.any() else table
    limits = replace(limits, nan_is_null=True)
    parsed = check(stream, limits, Columns.of(stream, kept), offsets[good], raw)
    parsed = replace(parsed, unseen=frozenset())
    return _without(stream, block, table, marks, offsets, parsed) if wrong.any() else parsed


def _without(
    stream: Stream, block: Rows, table: pa.Table, marks: dict[str, np.ndarray], offsets: np.ndarray, parsed: Parsed
) -> Parsed:
    """What was made of the other rows, and the refusals of those that are marked."""
    wrong = np.flatnonzero(np.logical_or.reduce(list(marks.values())))
    mine = _mine(stream, table.take(pa.array(wrong)), {name: mark[wrong] for name, mark in marks.items()})
    refused = []
    for row in wrong[mine].tolist():
        text = any(mark[row] and holds_text(table.schema.field(name).type) for name, mark in marks.items())
        data, size = _raw(block.table, row)
        refused.append(Refused(int(offsets[row]), "utf8" if text else "out_of_range", data, size))
    every = sorted([*parsed.refused, *refused], key=lambda one: one.offset)
    return replace(parsed, refused=tuple(every), passed=parsed.passed + int((~mine).sum()))


def _mine(stream: Stream, table: pa.Table, marks: dict[str, np.ndarray]) -> np.ndarray:
    """Which of these rows are of this stream; where that cannot be told, they are of the first one of their source."""
    deciding = {path[0] for path in (*stream.where_paths, *((stream.time_path,) if stream.shared else ()))}
    untold = np.logical_or.reduce([np.zeros(table.num_rows, bool), *(marks[name] for name in deciding)])
    told = table.filter(pa.array(~untold))
    for number, (name, mark) in enumerate(marks.items()):
        if mark.any() and name not in deciding:  # not looked at, and not fit to be
            told = told.set_column(number, name, pa.nulls(told.num_rows, told.schema.field(name).type))
    columns = Columns.of(stream, told)
    mine = np.full(table.num_rows, stream.first)
    mine[~untold] = columns.mine
    if stream.shared:
        mine[~untold] &= columns.time.is_valid().to_numpy(zero_copy_only=False)
    return mine


def _raw(table: pa.Table, row: int) -> tuple[bytes, int]:
    """A row as JSON: its first bytes, and how long it is."""
    values = {name: _shown(column[row]) for name, column in zip(table.column_names, table.columns, strict=True)}
    text = json.dumps(values, default=_as_json).encode("utf-8", "backslashreplace")
    return text[:RAW_BYTES], len(text)


def _as_json(value: Any) -> float | str:
    return float(value) if isinstance(value, Decimal) else str(value)


def _shown(value: pa.Scalar) -> Any:
    """A value as Python has it; what Python cannot hold, as bytes or a number."""
    try:
        return value.as_py()
    except (ValueError, OverflowError):  # not UTF-8; a time beyond the year 9999, or of nanoseconds
        pass
    try:
        if hasattr(value, "as_buffer"):
            return bytes(value.as_buffer()).decode("utf-8", "backslashreplace")
        return value.value if hasattr(value, "value") else f"a {value.type} that cannot be shown"
    except (ValueError, OverflowError):
        return f"a {value.type} that cannot be shown"
