"""The codecs of Avro blocks, by Arrow and the standard library: none needs a library of its own.

deflate, bzip2, xz   as the standard library reads them (deflate without a wrapper)
zstandard            frames
snappy               raw, then the CRC-32 of the data, big-endian
lz4                  the size of the data, uint32 little-endian, then one raw block
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CODECS", "codec_of"]

RATIO = 512  # neither snappy nor lz4 packs closer: a block that says so is damaged
SIZE_BYTES = 4
CRC_BYTES = 4


def codec_of(name: str, file: str = "") -> Callable[[bytes], bytes]:
    """What unpacks a block. SourceError: no codec that is known."""
    if name not in CODECS:
        raise SourceError(
            f"{file or 'an Avro file'} is packed with codec '{name}', which is not read",
            hint=f"write it with one of {', '.join(CODECS)}",
            codec=name,
            file=file,
        )
    return CODECS[name]


def _deflate(data: bytes) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data)


def _zstandard(data: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        return bytes(stream.read())


def _snappy(data: bytes) -> bytes:
    packed, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
    unpacked = _raw(packed, _varint(packed), "snappy")
    if zlib.crc32(unpacked) != int.from_bytes(crc, "big"):
        raise ValueError("the CRC-32 of a block differs")
    return unpacked


def _lz4(data: bytes) -> bytes:
    return _raw(data[SIZE_BYTES:], int.from_bytes(data[:SIZE_BYTES], "little"), "lz4_raw")


def _raw(data: bytes, size: int, codec: str) -> bytes:
    if size > RATIO * len(data):
        raise ValueError("a block says that it holds more than it can")
    return bytes(pa.decompress(data, size, codec=codec)) if size else b""


def _varint(data: bytes) -> int:
    """The number at the beginning, seven bits a byte, the lowest first: of snappy, the size of the data."""
    value = 0
    for place, byte in enumerate(data[:5]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value
    raise ValueError("no size")


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "null": bytes,
    "deflate": _deflate,
    "snappy": _snappy,
    "zstandard": _zstandard,
    "bzip2": bz2.decompress,
    "xz": lzma.decompress,
    "lz4": _lz4,
}
