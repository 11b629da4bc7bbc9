"""CSV lines -> typed columns. Arrow splits fields; text becomes numbers by the settings, never by looking at the data.

Ids are text as it stands ("007" stays "007"). An empty field is missing; so are NA, NaN and null where a number or a
time stands. Labels are numbers, `true` or `false`. Times are integers or ISO 8601, as `time_unit` says. `where`
compares text. There are no objects: `a.b` is a column only as { column = "a.b" }.

Fields are separated as the header is: by `,`, `;`, tab or `|` (`pipelines.sources.lines`); numbers have a point.

A block that Arrow cannot split into one row per line, with as many fields as the header, is halved until the bad lines
are alone. A line break inside quotes is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from pipelines.check import require
from pipelines.events import RAW_BYTES, Columns, Limits, Refused, Stream, value_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.lines import LineIndex

__all__ = ["parse_csv"]

QUOTE = ord('"')
MISSING = pa.array(["NA", "N/A", "NaN", "nan", "null", "NULL", "None"])
NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
INTEGER = r"^[+-]?\d{1,18}$"

Piece = tuple[Columns, np.ndarray]


def parse_csv(stream: Stream, limits: Limits, index: LineIndex) -> tuple[list[Piece], list[Refused]]:
    """(typed columns with the line number of each row, refused records)."""
    header = index.block.header or ()
    require(stream, pa.schema([(name, pa.string()) for name in header]), index.block.file)
    reasons = np.full(len(index), "", dtype="U20")
    reasons[_odd_quotes(index)] = "quoted_newline"
    reasons[index.ends - index.starts > limits.record_bytes] = "too_long"
    pieces: list[Piece] = []
    for low, high in index.stretches(reasons == ""):
        for table, start, end in _split(stream, index, low, high):
            if table is None:
                reasons[start] = "malformed"
                continue
            columns, wrong = _typed(stream, table)
            reasons[np.arange(start, end)[wrong]] = "wrong_type"
            pieces.append((columns, np.arange(start, end)[~wrong]))
    return pieces, [_refused(index, i, str(reasons[i])) for i in np.flatnonzero(reasons != "").tolist()]


def _odd_quotes(index: LineIndex) -> np.ndarray:
    if QUOTE not in index.block.data or not len(index):
        return np.zeros(len(index), bool)
    total = np.r_[0, np.cumsum(index.raw == QUOTE)]
    odd: np.ndarray = (total[index.ends] - total[index.starts]) % 2 == 1
    return odd


def _split(stream: Stream, index: LineIndex, low: int, high: int) -> Iterator[tuple[pa.Table | None, int, int]]:
    """Text columns of lines, None for a single line that is not a row."""
    table = _block(stream, index, low, high)
    if table is not None or high - low == 1:
        yield table, low, high
        return
    middle = (low + high) // 2
    yield from _split(stream, index, low, middle)
    yield from _split(stream, index, middle, high)


def _block(stream: Stream, index: LineIndex, low: int, high: int) -> pa.Table | None:
    data = index.span(low, high)
    header = list(index.block.header or ())
    try:
        table = pcsv.read_csv(
            pa.BufferReader(pa.py_buffer(data)),
            read_options=pcsv.ReadOptions(column_names=header, use_threads=False, block_size=len(data) + 1),
            parse_options=pcsv.ParseOptions(
                delimiter=index.block.separator, newlines_in_values=False, ignore_empty_lines=False
            ),
            convert_options=pcsv.ConvertOptions(
                column_types=dict.fromkeys(stream.columns, pa.string()),
                include_columns=sorted(stream.columns),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return table if table.num_rows == high - low else None


def _typed(stream: Stream, table: pa.Table) -> tuple[Columns, np.ndarray]:
    """Columns of the rows that convert, and bool [n]: which do not."""
    wrong = np.zeros(table.num_rows, bool)
    mine = np.ones(table.num_rows, bool)
    for path, value in stream.where_paths.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        mine &= np.asarray(pc.fill_null(pc.equal(value_at(table, path), text), False)).astype(bool)
    time = _time(value_at(table, stream.time_path), stream.time_unit, wrong)
    label = _number(value_at(table, stream.label_path), wrong, boolean=True) if stream.label_path else None
    features = {}
    for feature in stream.features:
        if not feature.path:
            continue
        column = value_at(table, feature.path)
        if feature.kind in ("number", "bucket"):
            column = _number(column, wrong)
        elif feature.kind == "time":
            column = _time(column, feature.time_unit, wrong)
        features[feature.name] = column
    wrong &= mine
    columns = Columns(mine, value_at(table, stream.id_path), time, label, features)
    return (columns.filter(~wrong) if wrong.any() else columns), wrong


def _number(column: pa.Array, wrong: np.ndarray, *, boolean: bool = False) -> pa.Array:
    column = pc.if_else(pc.is_in(column, MISSING), None, column)
    if boolean:
        lower = pc.utf8_lower(column)
        column = pc.case_when(pc.make_struct(pc.equal(lower, "true"), pc.equal(lower, "false")), "1", "0", column)
    return _cast(column, NUMBER, pa.float64(), wrong)


def _time(column: pa.Array, unit: str | None, wrong: np.ndarray) -> pa.Array:
    column = pc.if_else(pc.is_in(column, MISSING), None, column)
    return column if unit in (None, "iso") else _cast(column, INTEGER, pa.int64(), wrong)


def _cast(column: pa.Array, pattern: str, kind: pa.DataType, wrong: np.ndarray) -> pa.Array:
    fits = pc.match_substring_regex(column, pattern)
    bad = np.asarray(pc.fill_null(pc.invert(fits), False)).astype(bool)
    wrong |= bad
    return (pc.if_else(pa.array(bad), None, column) if bad.any() else column).cast(kind)


def _refused(index: LineIndex, i: int, reason: str) -> Refused:
    line = index.line(i)
    return Refused(int(index.offsets[i]), reason, line[:RAW_BYTES], len(line))
