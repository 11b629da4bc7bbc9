"""Pieces of a file and the gaps between them: what is whole so far, and where reading goes on behind what is not.

A *gap* is what lies between two whole pieces and can never be read: a torn piece behind which a writer went on, a
damaged one, or anything else that does not belong there. It is refused as one event, and what follows is read.

A position counts what was read of a file. So a gap must be the same however far the file had grown when it was looked
into, and only what no further bytes can change decides:

1. What begins with it is no piece, whatever follows (`NoPiece`).
2. Of the places behind where a piece may begin, in their order, none is a piece either (`NoPiece`), up to the first
   that is whole. One that may still become whole is waited for, and so is all that lies behind it.
3. No 512 zeros in a row lie in it: they may be a hole in a file that is not written in order.

Where one of them does not hold, what begins there is *torn* (`pipelines.sources.whole`), as if nothing followed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from pipelines.sources.base import Gap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["NOTHING", "Measure", "NoPiece", "Piece", "followed", "places", "resumed"]

HOLE = bytes(512)
CHUNK = 1 << 20


class NoPiece(Exception):
    """What lies there is no piece, and none begins so: more bytes do not help."""


@dataclass(frozen=True)
class Piece:
    """A whole one: its units, about how many bytes they take, and where it ends in the file."""

    units: int
    size_bytes: int
    end: int


@dataclass(frozen=True)
class Measure:
    """What the first `end` bytes of a file hold, all whole but the gaps: units (rows, or bytes of unpacked text), and
    about how many bytes they take. `padded`: nothing but padding, as the format allows it, lies behind them;
    `hopeless`: what does can never become whole."""

    units: int
    size_bytes: int
    end: int
    padded: bool = False
    hopeless: bool = False
    gaps: tuple[Gap, ...] = ()

    def whole(self, size: int) -> bool:
        """Whether a file of that many bytes has no torn end."""
        return size > 0 and (self.end == size or (self.padded and self.end > 0))

    def before_gaps(self) -> Measure:
        """What was known of it to those who did not read on behind a gap."""
        if not self.gaps:
            return self
        first = self.gaps[0]
        return Measure(first.unit, min(self.size_bytes, first.start), first.start, hopeless=True)


NOTHING = Measure(0, 0, 0)


def followed(
    stream: IO[bytes],
    known: Measure,
    size: int,
    piece: Callable[[int], Piece | None],
    begins: Callable[[int], Iterator[int]],
) -> Measure:
    """`known`, with the pieces that follow in the first `size` bytes of a file.

    piece: the one that begins at a byte; None = it is not whole yet; NoPiece. begins: where one may, behind a byte.
    """

    def has_units(at: int) -> bool:
        one = piece(at)
        if one is not None and not one.units:
            raise NoPiece  # a position tells a gap from the next by what lies between
        return one is not None

    while known.end < size:
        try:
            one = piece(known.end)
        except NoPiece:
            begin = resumed(stream, known.end, begins(known.end), has_units)
            if begin is None:
                return replace(known, hopeless=True)
            known = replace(known, end=begin, gaps=(*known.gaps, Gap(known.units, known.end, begin)))
            continue
        if one is None:
            break
        known = replace(known, units=known.units + one.units, size_bytes=known.size_bytes + one.size_bytes, end=one.end)
    return known


def resumed(stream: IO[bytes], start: int, begins: Iterator[int], is_whole: Callable[[int], bool]) -> int | None:
    """Where reading goes on behind the gap that begins at `start`; None = nowhere yet.

    begins: where a piece may begin, in order. is_whole: whether one does; False = it may become one; NoPiece.
    """
    for place in begins:
        try:
            if not is_whole(place):
                return None
        except NoPiece:
            continue
        return None if next(places(stream, HOLE, start, place), None) is not None else place
    return None


def places(stream: IO[bytes], marker: bytes, start: int, end: int) -> Iterator[int]:
    """Where a marker stands in bytes `[start, end)`, whole. The stream may be read elsewhere meanwhile."""
    while start + len(marker) <= end:
        stream.seek(start)
        data = stream.read(min(CHUNK, end - start))
        at = data.find(marker)
        while at >= 0:
            yield start + at
            at = data.find(marker, at + 1)
        if len(data) < len(marker):
            return
        start += len(data) - len(marker) + 1
