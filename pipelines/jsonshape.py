"""JSON lines of one shape -> typed columns, at half of what a JSON parser costs.

What one program wrote mostly has the same keys in the same order, and no commas inside values. Cut at its commas, such
a line is a row of fields

    <head> <value> <tail>       head: `{"id": "` or ` "price": `, tail: `"`, `}`, `"}` or nothing, the same in all lines

The columns count only if every line has as many fields as the first, every field the head and tail of the first line's,
and every value is one whole JSON value of its kind: text without quotes, backslashes and control characters, a number
without an exponent, true or false. Put together again, that is one object per line with the keys of the first line, so
a JSON parser would say the same. Everything else (escapes, null, lists, other orders) is None: for a JSON parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["shaped"]

FIELD = re.compile(rb"""([ \t]*"([^"\\\x00-\x1f]*)"[ \t]*:[ \t]*)("?)([^"\\]*)\3""")
QUOTE, BACKSLASH, MINUS, POINT, ZERO = b'"\\-.0'
SPACE = 0x20
UNTYPED = pa.float64()  # of a number that nobody needs


@dataclass(frozen=True)
class Field:
    """One key of a shape, and what stands around its values."""

    key: bytes
    head: bytes
    tail: bytes
    kind: pa.DataType


def shaped(lines: memoryview, rows: int, first: bytes, schema: pa.Schema) -> pa.Table | None:
    """The columns of `schema` of so many lines, each `{…}`; None if they are not all of the shape of the first."""
    fields = _shape(first, schema)
    if fields is None:
        return None
    try:
        cut = _cut(lines, len(fields))
        if cut.num_rows != rows:
            return None
        columns = [_values(field, column.chunk(0)) for field, column in zip(fields, cut.columns, strict=True)]
    except pa.ArrowInvalid:
        return None
    if any(column is None for column in columns):
        return None
    found = {field.key: column for field, column in zip(fields, columns, strict=True)}
    return pa.table([found[name.encode()] for name in schema.names], schema=schema)


def _shape(line: bytes, schema: pa.Schema) -> list[Field] | None:
    """The fields of the first line; None if it has no shape, or not all columns."""
    types = {field.name.encode(): field.type for field in schema}
    texts = line[1:-1].split(b",")
    fields: dict[bytes, Field] = {}
    for number, text in enumerate(texts):
        found = FIELD.fullmatch(text)
        if found is None:
            return None
        head, key, quote, value = found.groups()
        kind = types.get(key) or (pa.string() if quote else pa.bool_() if value in (b"true", b"false") else UNTYPED)
        if bool(quote) != pa.types.is_string(kind):
            return None
        head, tail = (b"" if number else b"{") + head + quote, quote + (b"" if number + 1 < len(texts) else b"}")
        fields[key] = Field(key, head, tail, kind)
    return list(fields.values()) if len(fields) == len(texts) and types.keys() <= fields.keys() else None


def _cut(lines: memoryview, fields: int) -> pa.Table:
    """The bytes between commas; [rows, fields]. ArrowInvalid when a line has more or fewer."""
    names = [str(number) for number in range(fields)]
    return pv.read_csv(
        pa.BufferReader(pa.py_buffer(lines)),
        read_options=pv.ReadOptions(use_threads=False, block_size=len(lines) + 1, column_names=names),
        parse_options=pv.ParseOptions(quote_char=False),
        convert_options=pv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False),
    )


def _values(field: Field, column: pa.Array) -> pa.Array | None:
    """The values between head and tail, typed; None or ArrowInvalid if they are not all of the kind."""
    around = pc.starts_with(column, field.head), pc.ends_with(column, field.tail)
    length = pc.min_max(pc.binary_length(column)).as_py()
    if not all(pc.all(flags).as_py() for flags in around) or length["min"] < len(field.head) + len(field.tail):
        return None
    values = pc.binary_slice(column, len(field.head), -len(field.tail) or length["max"])
    if pa.types.is_string(field.kind):
        return values.cast(pa.string()) if _plain(values) else None  # casting checks that it is UTF-8
    if pa.types.is_boolean(field.kind):
        return _booleans(values)
    if field.kind not in (pa.int64(), pa.float64()) or not _numbers(values, points=field.kind == pa.float64()):
        return None
    return values.view(pa.string()).cast(field.kind)


def _plain(values: pa.Array) -> bool:
    """Whether texts are what stands in the JSON: no escapes, nothing that needs one."""
    raw, _ = _bytes(values)
    return not ((raw == QUOTE) | (raw == BACKSLASH) | (raw < SPACE)).any()


def _booleans(values: pa.Array) -> pa.Array | None:
    true = pc.equal(values, b"true")
    return true if pc.all(pc.or_(true, pc.equal(values, b"false"))).as_py() else None


def _numbers(values: pa.Array, *, points: bool) -> bool:
    """Whether these are numbers as JSON has them: -? digits, no zero before a digit, digits after a point.

    What is left to the cast: a second point, and too large an integer.
    """
    raw, offsets = _bytes(values)
    start, end = offsets[:-1], offsets[1:]
    if not (end > start).all():
        return False
    digit = raw - np.uint8(ZERO) < 10
    minus = raw == MINUS
    if minus.any():
        signed = minus[start]
        if signed.sum() != minus.sum():
            return False
        start = start + signed
        if not (end > start).all():
            return False
    if not (digit | minus | (raw == POINT) if points else digit | minus).all():
        return False
    zero = (raw[start] == ZERO) & (end > start + 1)
    return bool(digit[start].all() and digit[end - 1].all() and not digit[start[zero] + 1].any())


def _bytes(values: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The bytes of all values, and where each begins and ends; uint8 [m], int32 [n + 1]."""
    _, bounds, data = values.buffers()
    offsets = np.frombuffer(bounds, np.int32)[values.offset : values.offset + len(values) + 1]
    return np.frombuffer(data or b"", np.uint8)[: offsets[-1]], offsets
