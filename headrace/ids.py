"""What an id is. One function decides it for pipelines, trainer and server, which therefore cannot disagree.

    id(name, text)   = Fingerprint64(name "=" text)                    & (2^63 - 1)
    null id          = Fingerprint64(name)                             & (2^63 - 1)     the value is missing
    unknown id       = Fingerprint64(name "?")                         & (2^63 - 1)     row of all ids without a row
    cross(name, …)   = Fingerprint64(name "=" id_1 "," id_2 "," …)     & (2^63 - 1)     member ids in decimal

Fingerprint64 is farmhash's, the one behind `tf.strings.to_hash_bucket_fast`; names have no `=` or `?`, so the four
never meet. Text of a value, in UTF-8: strings as they are, integers and integral floats in decimal (`7`, `7.0`
-> `7`), other floats as their shortest decimal that reads back the same, booleans `true` / `false`. Null and NaN are
missing. An infinite number has no id.

Columns are factorised first: only distinct values are hashed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import farmhash
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.column import is_number, is_text, plain
from headrace.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Sequence

Ids = npt.NDArray[np.int64]

MASK: Final = (1 << 63) - 1
BYTES: Final = pa.large_binary()


def id_of(name: str, text: str) -> int:
    """Id of one value.

    >>> id_of("user", "42")
    8170751544122350154
    """
    return int(farmhash.fingerprint64(f"{name}={text}")) & MASK


def null_id(name: str) -> int:
    """Id of a missing value of the feature."""
    return int(farmhash.fingerprint64(name)) & MASK


def unknown_id(name: str) -> int:
    """Id of the row that stands for all ids of the feature that have no row."""
    return int(farmhash.fingerprint64(f"{name}?")) & MASK


def ids_of(name: str, column: pa.Array | pa.ChunkedArray) -> Ids:
    """Ids int64 [n] of a column of values; null gives the null id. WrongType for what has no text (see above).

    >>> ids_of("user", pa.array([42, None])).tolist() == [id_of("user", "42"), null_id("user")]
    True
    """
    codes, values = _factorise(_with_text(name, plain(column)))
    table = np.empty(len(values) + 1, np.int64)
    table[:-1] = _hashes(name, _texts(name, values))
    table[-1] = null_id(name)  # code -1
    return table[codes]


def cross_of(name: str, members: Sequence[Ids]) -> Ids:
    """Ids int64 [n] of a cross, from the ids int64 [n] of its members.

    >>> members = np.array([5]), np.array([7])
    >>> cross_of("a_x_b", members).tolist() == [id_of("a_x_b", "5,7")]
    True
    """
    rows, codes = _distinct_rows(members)
    texts = [pa.array(member[rows]).cast(pa.string()).cast(BYTES) for member in members]
    return _hashes(name, pc.binary_join_element_wise(*texts, pa.scalar(b",", BYTES)))[codes]


def _hashes(name: str, texts: pa.Array) -> Ids:
    """Ids of distinct texts, given as bytes; null (it was NaN) is missing."""
    salted = pc.binary_join_element_wise(pa.scalar(f"{name}=".encode(), BYTES), texts, pa.scalar(b"", BYTES))
    keys = salted.fill_null(name.encode()).to_pylist()
    hashes = np.fromiter(map(farmhash.fingerprint64, keys), np.uint64, len(keys))
    return (hashes & np.uint64(MASK)).astype(np.int64)


def _with_text(name: str, column: pa.Array) -> pa.Array:
    """The column, if its values have a text by the rules of this module; WrongType."""
    kind = column.type
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    if is_text(kind) or is_number(kind) or pa.types.is_boolean(kind):
        return column
    raise WrongType(
        f"feature '{name}' is {kind} in the events; ids are made of strings, integers or booleans",
        hint="for a time use kind = 'time', for a list kind = 'ids'",
        feature=name,
        type=str(kind),
    )


def _factorise(column: pa.Array) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Codes int64 [n] into the distinct values, -1 for null, and those values."""
    encoded = column.dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int64, copy=False), encoded.dictionary


def _texts(name: str, values: pa.Array) -> pa.Array:
    """UTF-8 text of distinct non-null values, as bytes; null for NaN."""
    if pa.types.is_floating(values.type):
        return pa.array([_float_text(name, value) for value in values.to_numpy(zero_copy_only=False)], BYTES)
    text = values if is_text(values.type) else values.cast(pa.string())  # decimal; true, false
    return text.cast(BYTES)


def _float_text(name: str, value: Any) -> bytes | None:
    if np.isnan(value):
        return None
    if np.isinf(value):
        raise WrongType(f"feature '{name}' has an infinite value, which has no id", feature=name)
    return (b"%d" % int(value)) if value == np.floor(value) else str(value).encode()


def _distinct_rows(members: Sequence[Ids]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The first row of each distinct combination of members, and each row's index into those."""
    codes, _ = _factorise(pa.array(members[0]))
    for member in members[1:]:
        other, values = _factorise(pa.array(member))
        codes, _ = _factorise(pa.array(codes * len(values) + other))  # < n^2: fits int64 for n < 3e9
    rows = np.empty(int(codes.max(initial=-1)) + 1, np.int64)
    rows[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return rows, codes
