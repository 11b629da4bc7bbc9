"""Files of which nothing can be read before its end is there: what all such formats share.

Formats are of two sorts. *One piece*: Parquet and Arrow files exist once they can be read to the end (`measure`), and
never change after that. *Pieces in a row*: Avro files (blocks), gzip (members), zstd (frames) and Arrow streams may
grow; every whole piece can be read as soon as it is there, and what it holds never moves.

What lies behind the last whole piece is *torn*. It is waited for in the last file of a folder, since it may be being
written. Once a later file exists, or on drain, it is refused as one event: reading it gives a `Broken` block. So does a
piece whose bytes turn out to be damaged. Neighbours never notice. A torn end that no further bytes can make whole is
*hopeless*: it is refused at once, and once, however much is appended. One that ends with zeros is not: the file may
have had its full size from the beginning. When a whole piece follows, it is a gap (`pipelines.sources.pieces`).

A failure counts as such only when it repeats on bytes that the store has given: one that does not answer is an outage.
A file with a torn end is looked into again once it stops changing, or once the torn end is twice as long.
"""

from __future__ import annotations

import errno
import io
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from itertools import groupby
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import pyarrow as pa

from headrace.errors import HeadraceError, SourceError
from pipelines.sources.base import Block, Broken, Extent, Gap, Lines, Rows, Span
from pipelines.sources.pieces import NOTHING, Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = ["NotWhole", "RowFiles", "WholeFiles", "is_of_the_bytes"]

KNOWN = 1024  # measures kept; a source may live through many more files
RAW_BYTES = 4096
IN_MEMORY = 256 << 20  # bytes of a file that fails
CHUNK = 8 << 20
UNWRITTEN = bytes(16)  # the length of an empty gzip member and its checksum are 8 zeros
SPAN_ROWS = 1 << 16
CHANGES = ("mtime", "created", "LastModified", "last_modified", "updated", "ETag", "etag")

Found = TypeVar("Found")


@dataclass(frozen=True)
class _Wait:
    """A file with a torn end. state: as last seen; looked: into that; due: size from which it is looked into anyway."""

    state: tuple[Any, ...]
    looked: bool
    due: int


class NotWhole(Exception):
    """The bytes, all of them, cannot be read as the format says."""


class WholeFiles(ABC):
    """One format on any fsspec file system. A format says `measure`, `cut`, `pieces`, `take` and whether it `grows`."""

    unit: str
    whole = True

    def __init__(self, fs: Any) -> None:
        self.fs = fs
        self._measures: dict[str, tuple[int, Measure]] = {}  # by path: of its first so many bytes
        self._waits: dict[str, _Wait] = {}

    @abstractmethod
    def measure(self, stream: IO[bytes], size: int, known: Measure) -> Measure:
        """Of the first `size` bytes, of which `known` are measured already. Raises anything where nothing is whole."""

    @abstractmethod
    def take(self, path: str, stream: IO[bytes], span: Span, columns: Collection[str] | None) -> Block:
        """One piece of what is whole; raises anything where it is damaged."""

    @abstractmethod
    def at(
        self, path: str, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None
    ) -> Lines | Rows:
        """The events at some offsets (`pipelines.sources.base`)."""

    @abstractmethod
    def cut(self, path: str, size: int, start: int, end: int, max_bytes: int) -> tuple[int, int]: ...

    @abstractmethod
    def pieces(self, file: str, low: int, high: int, gaps: Sequence[Gap]) -> list[Span]: ...

    def grows(self, path: str) -> bool:  # noqa: ARG002  (of Arrow it depends on the file)
        """Whether a whole file may become a longer one."""
        return False

    def end(self, path: str, size: int, start: int, *, final: bool) -> Extent | None:
        """What may be read; None = nothing behind `start` yet, and it is waited for."""
        if final:
            return self.extent(path, size)
        seen, known = self._measures.get(path, (0, NOTHING))
        if not seen == size == known.end and self._due(path, size):
            state = self._state(path, size)  # what is written from here on is looked into again
            known = self.measured(path, size, sure=False)
            if not known.end or known.end < size:
                self._waits[path] = _Wait(state, looked=True, due=2 * size - known.end)
            elif not self.grows(path) and int(self.fs.size(path)) != size:  # it was being written while it was measured
                self._measures.pop(path, None)
                self._waits[path] = _Wait(state, looked=True, due=size)
                return None
            else:
                self._waits.pop(path, None)
        units = self.readable(path, known, torn=True) if known.units > start else start
        if known.hopeless:
            return Extent(units, torn=True, hopeless=True)
        return Extent(units) if units > start or 0 < known.end == size else None

    def extent(self, path: str, size: int, *, over_gaps: bool = True) -> Extent:
        """Of the first `size` bytes of a file that nothing is waited for in."""
        measure = self.measured(path, size)
        measure = measure if over_gaps else measure.before_gaps()
        torn = not measure.whole(size)
        return Extent(self.readable(path, measure, torn=torn), torn, measure.hopeless)

    def readable(self, path: str, measure: Measure, *, torn: bool) -> int:  # noqa: ARG002  (text ends with a line)
        """Units that can be read, of those that are whole."""
        return measure.units

    def gaps(self, path: str, size: int, end: int) -> list[Gap]:
        """Those before unit `end`, which the first `size` bytes of a file hold."""
        _, known = self._measures.get(path, (0, NOTHING))
        known = known if known.units >= end else self.measured(path, size)
        return [gap for gap in known.gaps if gap.unit < end]

    def whole_bytes(self, path: str, offset: int, size: int) -> int:  # noqa: ARG002  (of text the offset says it)
        """How far the bytes of a file, as measured last, will never change."""
        return min(self._measures.get(path, (0, NOTHING))[1].end, size)

    def read(self, path: str, span: Span, columns: Collection[str] | None) -> Block:
        if span.torn is not None:
            measure = self.measured(path, span.torn)
            end = measure.end if measure.units else 0
            end = next((gap.start for gap in measure.gaps if gap.unit >= span.start), end)
            return Broken(span.file, span.start, self._raw(path, end, span.torn), span.torn - end)
        if span.gap is not None:
            start, end = span.gap.start, span.gap.end
            return Broken(span.file, span.start, self._raw(path, start, end), end - start, piece=True)
        try:
            return self._surely(path, lambda stream: self.take(path, stream, span, columns))
        except NotWhole:
            size = int(self.fs.size(path))
            raw = self._raw(path, 0, size) if span.start == 0 else b""
            return Broken(span.file, span.start, raw, size, piece=True)

    def _raw(self, path: str, start: int, end: int) -> bytes:
        """The first bytes of `[start, end)`."""
        return bytes(self.fs.cat_file(path, start, min(end, start + RAW_BYTES))) if start < end else b""

    def measured(self, path: str, size: int, *, sure: bool = True) -> Measure:
        """What is whole of the first `size` bytes. `sure`: a torn end is looked at twice, the second time in memory,
        as what can never be read always is."""
        if not size:
            return NOTHING
        before, known = self._measures.get(path, (0, NOTHING))
        if before == size == known.end:
            return known
        known = known if 0 < known.end <= size and self.grows(path) else NOTHING
        lost_at, known = (known.end if known.hopeless else None), replace(known, hopeless=False)

        def attempt(stream: IO[bytes]) -> Measure:
            found = self.measure(cast("IO[bytes]", _Prefix(stream, size)), size, known)
            return replace(found, hopeless=False) if found.hopeless and _is_unwritten(stream, size) else found

        try:
            found = self._once(path, attempt)
        except NotWhole:
            found = known
        lost = (found.hopeless and found.end != lost_at) or found.gaps != known.gaps
        if lost or (sure and not found.whole(size)):
            try:
                found = self._again(path, attempt)
            except NotWhole:
                found = known
        self._measures.pop(path, None)
        self._measures[path] = size, found
        if len(self._measures) > KNOWN:
            self._measures.pop(next(iter(self._measures)))
        return found

    def _due(self, path: str, size: int) -> bool:
        """Whether to look into a file."""
        wait = self._waits.get(path)
        if wait is None:
            return True
        state = self._state(path, size)
        if state == wait.state:
            return not wait.looked
        self._waits[path] = _Wait(state, looked=False, due=wait.due)
        return size >= wait.due

    def _state(self, path: str, size: int) -> tuple[Any, ...]:
        """What changes when a file is written, even one that had its full size from the beginning."""
        about = self.fs.info(path)
        return (size, *(about.get(key) for key in CHANGES))

    def _once(self, path: str, attempt: Callable[[IO[bytes]], Found]) -> Found:
        with self.fs.open(path, "rb") as stream:
            return _tried(attempt, stream)

    def _surely(self, path: str, attempt: Callable[[IO[bytes]], Found]) -> Found:
        try:
            return self._once(path, attempt)
        except NotWhole:
            return self._again(path, attempt)

    def _again(self, path: str, attempt: Callable[[IO[bytes]], Found]) -> Found:
        """On bytes that the store has surely given. OSError: the store fails, not the file."""
        if self.fs.size(path) > IN_MEMORY:
            with self.fs.open(path, "rb") as stream:
                while stream.read(CHUNK):
                    pass
            return self._once(path, attempt)
        return _tried(attempt, io.BytesIO(self.fs.cat_file(path)))


class _Prefix(io.RawIOBase):
    """The first `size` bytes of a stream, which may be longer. However much is asked for, as by a damaged length, it
    takes memory for what is there."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.path = getattr(stream, "path", "")
        self._stream = stream
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        self._stream.seek(self._at)
        data = self._stream.read(left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _is_unwritten(stream: IO[bytes], size: int) -> bool:
    """Whether the end of a file may still have to be written, as that of one which has its full size already."""
    stream.seek(max(0, size - len(UNWRITTEN)))
    return stream.read(min(size, len(UNWRITTEN))).strip(b"\0") == b""


def _tried(attempt: Callable[[IO[bytes]], Found], stream: IO[bytes]) -> Found:
    try:
        return attempt(stream)
    except Exception as error:
        if is_of_the_bytes(error):
            raise NotWhole from error
        raise


def is_of_the_bytes(error: Exception) -> bool:
    """Whether a decoder may have raised this on bytes that it does not expect: it raises anything then."""
    if isinstance(error, FileNotFoundError | PermissionError | MemoryError | HeadraceError):
        return False
    # one of the system, such as a full disk, has a number: decoders give none, but seek before the beginning
    return not isinstance(error, OSError) or error.errno in (None, errno.EINVAL)


class RowFiles(WholeFiles):
    """Formats whose unit is a row."""

    unit = "row"

    def at(
        self, path: str, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None
    ) -> Rows:
        del raws  # what quarantine has of them is text, without their types
        found: list[pa.Table] = []
        gaps = self.gaps(path, int(self.fs.size(path)), max(offsets) + 1) if offsets else []
        for _, group in groupby(offsets, lambda row: row // SPAN_ROWS):
            rows = list(group)
            low, high = min(rows), max(rows) + 1
            block = self.read(path, Span(file, low, high, low, high, gaps=_before(gaps, high)), columns)
            if not isinstance(block, Rows) or block.table.num_rows < high - low:
                raise SourceError(f"{path} cannot be read any more", hint="put it back as it was", path=path)
            found.append(block.table.take(pa.array([row - low for row in rows], pa.int64())))
        return Rows(pa.concat_tables(found, promote_options="permissive"), file, 0, tuple(offsets))

    def cut(self, path: str, size: int, start: int, end: int, max_bytes: int) -> tuple[int, int]:
        """(row, bytes): about `max_bytes` from row `start`; at least one row."""
        if start >= end:
            return start, 0
        measure = self.measured(path, size)
        per_row = max(1, measure.size_bytes // max(1, measure.units))
        at = min(end, start + max(1, max_bytes // per_row))
        return at, (at - start) * per_row

    def pieces(self, file: str, low: int, high: int, gaps: Sequence[Gap]) -> list[Span]:
        cuts = [(at, min(at + SPAN_ROWS, high)) for at in range(low, high, SPAN_ROWS)]
        return [Span(file, start, end, low, high, gaps=_before(gaps, end)) for start, end in cuts]


def _before(gaps: Sequence[Gap], end: int) -> tuple[Gap, ...]:
    return tuple(gap for gap in gaps if gap.unit < end)
