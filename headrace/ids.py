"""What an id is. One function decides it for pipelines, trainer and server, which therefore cannot disagree.

    id(name, text)   = Fingerprint64(name "=" text)                    & (2^63 - 1)
    null id          = Fingerprint64(name)                             & (2^63 - 1)     the value is missing
    unknown id       = Fingerprint64(name "?")                         & (2^63 - 1)     row of all ids without a row
    cross(name, …)   = Fingerprint64(name "=" id_1 "," id_2 "," …)     & (2^63 - 1)     member ids in decimal

Fingerprint64 is farmhash's, the one behind `tf.strings.to_hash_bucket_fast`; names have no `=` or `?`, so the four
never meet. Text of a value, in UTF-8: strings as they are, integers and integral floats in decimal (`7`, `7.0`
-> `7`), other floats as their shortest decimal that reads back the same, booleans `true` / `false`. Null and NaN are
missing. An infinite number has no id.

Columns are factorised first: only distinct values are hashed. `fingerprints` is Fingerprint64 for whole columns, after
farmhash's `farmhashna.cc` (MIT): numpy does in 20 ns per text what a call per text does in 150, and releases the GIL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import farmhash
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.column import is_number, is_text, is_whole_decimal, plain
from headrace.errors import WrongType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Ids = npt.NDArray[np.int64]

MASK: Final = (1 << 63) - 1
BYTES: Final = pa.large_binary()

K1: Final = np.uint64(0xB492B66FBE98F273)
K2: Final = np.uint64(0x9AE16A3B2F90404F)

Words = npt.NDArray[np.uint64]


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


def fingerprints(texts: pa.Array) -> Words:
    """Fingerprint64 of every text or bytes, uint64 [n]; null is hashed as "".

    >>> [hex(word) for word in fingerprints(pa.array(["user=42", "a text of more than sixteen bytes"]))]
    ['0xf164573d27631a4a', '0x4a7f550d9a873ae']
    """
    texts = texts.cast(BYTES)
    if not len(texts):
        return np.empty(0, np.uint64)
    _, bounds, data = texts.buffers()
    offsets = np.frombuffer(bounds, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    raw = np.frombuffer(data or b"", np.uint8)
    start, length = offsets[:-1], np.diff(offsets)
    if texts.null_count:
        length = np.where(texts.is_null().to_numpy(zero_copy_only=False), 0, length)
    out = np.empty(len(length), np.uint64)
    least, most = int(length.min()), int(length.max())
    for low, high, hashed in ((4, 7, _to_7), (8, 16, _to_16), (17, 32, _to_32), (33, 64, _to_64)):
        if low <= least and most <= high:
            return hashed(raw, start, length)
        some = np.flatnonzero((length >= low) & (length <= high))
        if len(some):
            out[some] = hashed(raw, start[some], length[some])
    for i in np.flatnonzero((length < 4) | (length > 64)).tolist():
        out[i] = farmhash.fingerprint64(raw[start[i] : start[i] + length[i]].tobytes())
    return out


def _to_7(raw: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> Words:
    """Of 4 to 7 bytes."""
    at, mul = _fetcher(raw, start, length, 4)
    return _mixed(length.astype(np.uint64) + (at(0) << np.uint64(3)), at(-4), mul)


def _to_16(raw: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> Words:
    """Of 8 to 16 bytes."""
    at, mul = _fetcher(raw, start, length)
    a, b = at(0) + K2, at(-8)
    return _mixed(_turned(b, 37) * mul + a, (_turned(a, 25) + b) * mul, mul)


def _to_32(raw: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> Words:
    """Of 17 to 32 bytes."""
    at, mul = _fetcher(raw, start, length)
    a, b, c, d = at(0) * K1, at(8), at(-8) * mul, at(-16) * K2
    return _mixed(_turned(a + b, 43) + _turned(c, 30) + d, a + _turned(b + K2, 18) + c, mul)


def _to_64(raw: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> Words:
    """Of 33 to 64 bytes."""
    at, mul = _fetcher(raw, start, length)
    a, b, c, d = at(0) * K2, at(8), at(-8) * mul, at(-16) * K2
    y = _turned(a + b, 43) + _turned(c, 30) + d
    z = _mixed(y, a + _turned(b + K2, 18) + c, mul)
    e, f, g, h = at(16) * mul, at(24), (y + at(-32)) * mul, (z + at(-24)) * mul
    return _mixed(_turned(e + f, 43) + _turned(g, 30) + h, e + _turned(f + a, 18) + g, mul)


def _fetcher(
    raw: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], length: npt.NDArray[np.int64], width: int = 8
) -> tuple[Callable[[int], Words], Words]:
    """(the `width` bytes of each text at a place, from its end when negative; the multiplier of its length)."""
    words = np.ndarray(len(raw) - width + 1, f"<u{width}", raw, strides=(1,))  # at every byte; its `take` copies it all

    def at(place: int) -> Words:
        return words[(start if place >= 0 else start + length) + place].astype(np.uint64, copy=False)

    return at, K2 + length.astype(np.uint64) * np.uint64(2)


def _turned(word: Words, right: int) -> Words:
    return (word >> np.uint64(right)) | (word << np.uint64(64 - right))


def _mixed(u: Words, v: Words, mul: Words) -> Words:
    """HashLen16."""
    a = (u ^ v) * mul
    a ^= a >> np.uint64(47)
    b = (v ^ a) * mul
    b ^= b >> np.uint64(47)
    return b * mul


def _hashes(name: str, texts: pa.Array) -> Ids:
    """Ids of distinct texts, given as bytes; null (it was NaN) is missing."""
    salted = pc.binary_join_element_wise(pa.scalar(f"{name}=".encode(), BYTES), texts, pa.scalar(b"", BYTES))
    return (fingerprints(salted.fill_null(name.encode())) & np.uint64(MASK)).astype(np.int64)


def _with_text(name: str, column: pa.Array) -> pa.Array:
    """The column, if its values have a text by the rules of this module; WrongType."""
    kind = column.type
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    if is_text(kind) or is_number(kind) or is_whole_decimal(kind) or pa.types.is_boolean(kind):
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
