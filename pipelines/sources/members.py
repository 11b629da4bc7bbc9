"""Compressed text, member by member: what gzip appends when it is asked to, and zstd calls frames."""

from __future__ import annotations

import zlib
from typing import IO, TYPE_CHECKING, Any

from pipelines.sources.pieces import NoPiece, places, resumed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["COMPRESSIONS", "is_padding", "next_member", "unpacked"]

COMPRESSIONS = {"gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd"}
READ_BYTES = 8 << 10  # at most 256 MB of text
GZIP_WRAPPER = 31
MARKERS = {"gzip": b"\x1f\x8b\x08", "zstd": b"\x28\xb5\x2f\xfd"}


def unpacked(
    stream: IO[bytes], compression: str, at: int, size: int, resume: Callable[[int], int | None]
) -> Iterator[tuple[bytes, int, bool]]:
    """The text of the members in bytes `[at, size)`, in pieces, each with 0 or, behind the last of a member, its end.

    Ends at the first member that is not whole, some of whose text may have come. Where one can never be, `resume` says
    where the gap that it begins ends: then comes (a line break, that end, True), and what came of it is void; None =
    NoPiece.
    """
    while True:
        try:
            for text, behind in _members(stream, compression, at, size):
                yield text, behind, False
                at = behind or at
            return
        except NoPiece:
            begin = resume(at)
            if begin is None:
                raise
        yield b"\n", begin, True
        at = begin


def next_member(stream: IO[bytes], compression: str, at: int, size: int) -> int | None:
    """Where reading goes on behind a gap (`pipelines.sources.pieces.resumed`)."""
    begins = places(stream, MARKERS[compression], at + 1, size)
    return resumed(stream, at, begins, lambda place: any(end for _, end in _members(stream, compression, place, size)))


def _members(stream: IO[bytes], compression: str, at: int, size: int) -> Iterator[tuple[bytes, int]]:
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
                raise NoPiece from error
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
