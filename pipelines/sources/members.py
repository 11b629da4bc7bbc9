"""Compressed text, member by member: what gzip appends when it is asked to, and zstd calls frames."""

from __future__ import annotations

import zlib
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["COMPRESSIONS", "NoMember", "is_padding", "unpacked"]

COMPRESSIONS = {"gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd"}
READ_BYTES = 8 << 10  # at most 256 MB of text
GZIP_WRAPPER = 31


class NoMember(Exception):
    """What lies there is no member, and none begins so: more bytes do not help."""


def unpacked(stream: IO[bytes], compression: str, at: int, size: int) -> Iterator[tuple[bytes, int]]:
    """The text of the members in bytes `[at, size)`, in pieces, each with 0 or, behind the last of a member, its end.

    Ends at the first member that is not whole, some of whose text may have come. NoMember if it can never be.
    """
    stream.seek(at)
    data = b""
    begin, failure = _format(compression)
    while True:
        decoder = begin()
        while not decoder.eof:
            if not data:
                data = stream.read(min(READ_BYTES, size - at))
                at += len(data)
            if not data:
                return
            try:
                text = decoder.decompress(data)
            except failure as error:
                raise NoMember from error
            data = decoder.unused_data
            yield text, at - len(data) if decoder.eof else 0


def is_padding(stream: IO[bytes], compression: str, at: int, size: int) -> bool:
    """Whether nothing but zeros lies in bytes `[at, size)` of a gzip file: gzip(1) ignores them (tapes, blocks)."""
    if compression != "gzip":
        return False
    stream.seek(at)
    while at < size:
        data = stream.read(min(READ_BYTES, size - at))
        if not data or data.strip(b"\0"):
            return False
        at += len(data)
    return True


def _format(compression: str) -> tuple[Callable[[], Any], type[Exception]]:
    """(what begins to decode a member, what it raises)."""
    if compression == "gzip":
        return lambda: zlib.decompressobj(GZIP_WRAPPER), zlib.error
    import zstandard  # 30 ms that others need not wait for

    return zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError
