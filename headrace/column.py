"""The plain form of a column: what the rest of headrace may assume of an Arrow array that comes from outside."""

from __future__ import annotations

import pyarrow as pa


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array with the same values, not in chunks, not dictionary-encoded, no string view."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def is_text(kind: pa.DataType) -> bool:
    """Whether a plain column holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether a plain column holds integers or floats."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a plain column holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
