"""The plain form of a column: what the rest of headrace may assume of an Arrow array that comes from outside."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UUID_BYTES: Final = 16
UUID_TEXT: Final = 36
HEX: Final = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)
HEX_PLACES: Final = [at for at in range(UUID_TEXT) if at not in (8, 13, 18, 23)]  # the others have a dash


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array with the same values: not in chunks or dictionary-encoded, no views; UUIDs and JSON as text.

    Text may be anything: it is not looked at here.

    >>> plain(pa.chunked_array([pa.array(["a", "b", "a"]).dictionary_encode()])).type
    DataType(string)
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies even one
    kind = column.type
    if _is_plain(kind):
        return column
    if pa.types.is_dictionary(kind):
        return plain(pc.cast(column, kind.value_type, safe=False))
    if pa.types.is_string_view(kind):
        return pc.cast(column, pa.string(), safe=False)
    if isinstance(kind, pa.UuidType):
        return _uuid_text(column.storage)
    if isinstance(kind, pa.JsonType):
        return plain(column.storage)
    if pa.types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays([plain(field) for field in column.flatten()], names, mask=column.is_null())
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, plain(pc.list_flatten(column)), mask=column.is_null())


def is_text(kind: pa.DataType) -> bool:
    """Whether a plain column holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether a plain column holds integers or floats."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_whole_decimal(kind: pa.DataType) -> bool:
    """Whether a plain column holds decimals without places: integers of any length."""
    return bool(pa.types.is_decimal(kind) and kind.scale == 0)


def is_list(kind: pa.DataType) -> bool:
    """Whether a plain column holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    if is_list(kind):
        return _is_plain(kind.value_type)
    views = pa.types.is_string_view(kind) or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return not (views or pa.types.is_dictionary(kind) or isinstance(kind, pa.UuidType | pa.JsonType))


def _uuid_text(column: pa.Array) -> pa.Array:
    """16 bytes as 8-4-4-4-12 hexadecimal digits."""
    raw = np.frombuffer(b"".join(pc.fill_null(column, bytes(UUID_BYTES)).to_pylist()), np.uint8)
    text = np.full((len(column), UUID_TEXT), ord("-"), np.uint8)
    text[:, HEX_PLACES] = HEX[raw].reshape(len(column), 2 * UUID_BYTES)
    offsets = np.arange(len(column) + 1, dtype=np.int32) * UUID_TEXT
    made = pa.StringArray.from_buffers(len(column), pa.py_buffer(offsets), pa.py_buffer(text))
    return pc.if_else(column.is_valid(), made, None) if column.null_count else made
