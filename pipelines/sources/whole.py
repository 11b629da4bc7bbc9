"""Files that exist once they are whole and never change after that: what all such formats share.

A file is whole when its format can be read to the end (`measure`). Until then the last file of a folder is waited for:
it may be being written. One that is still not whole once a later file exists, or on drain, is broken: it counts as one
unit, and reading it gives a `Broken` block, which goes to quarantine as one refused event. So does a piece of a whole
file whose bytes turn out to be damaged. Its neighbours never notice.

A failure counts as broken only when it repeats on bytes that the store has given: one that does not answer is an
outage. A file that is waited for is looked into again only once it has stopped growing.
"""

from __future__ import annotations

import errno
import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import groupby
from typing import IO, TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from headrace.errors import HeadraceError, SourceError
from pipelines.sources.base import Block, Broken, Lines, Rows, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = ["Measure", "NotWhole", "RowFiles", "WholeFiles", "unreadable"]

KNOWN = 1024  # measures kept; a source may live through many more files
RAW_BYTES = 4096
IN_MEMORY = 256 << 20  # bytes of a file that fails
CHUNK = 8 << 20
SPAN_ROWS = 1 << 16

Found = TypeVar("Found")


@dataclass(frozen=True)
class Measure:
    """What a whole file holds: units (rows, or bytes of unpacked text), and about how many bytes they take."""

    units: int
    size_bytes: int


class NotWhole(Exception):
    """The bytes, all of them, cannot be read as the format says."""


class WholeFiles(ABC):
    """One format on any fsspec file system. A format says `measure`, `cut`, `pieces` and `take`."""

    unit: str
    whole = True

    def __init__(self, fs: Any) -> None:
        self.fs = fs
        self._measures: dict[tuple[str, int], Measure] = {}
        self._waits: dict[str, tuple[int, bool]] = {}  # by path: size as last seen, whether it was looked into

    @abstractmethod
    def measure(self, stream: IO[bytes]) -> Measure:
        """Of a whole file; raises anything where it is not."""

    @abstractmethod
    def take(self, path: str, stream: IO[bytes], span: Span, columns: Collection[str] | None) -> Block:
        """One piece of a whole file; raises anything where it is damaged."""

    @abstractmethod
    def at(
        self, path: str, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None
    ) -> Lines | Rows:
        """The events at some offsets (`pipelines.sources.base`)."""

    @abstractmethod
    def cut(self, path: str, start: int, end: int, max_bytes: int) -> tuple[int, int]: ...

    @abstractmethod
    def pieces(self, file: str, low: int, high: int) -> list[Span]: ...

    def end(self, path: str, size: int, start: int, *, final: bool) -> int | None:  # noqa: ARG002  (text has tails)
        """Units of the file, 1 if it is broken; None while it may be being written."""
        if not final and path in self._waits:
            seen, looked = self._waits[path]
            if seen != size or looked:
                self._waits[path] = (size, seen == size)
                return None
        try:
            units = self.measured(path, size, sure=final).units
        except NotWhole:
            if final:
                return 1
            self._waits[path] = (size, True)
            return None
        if int(self.fs.size(path)) != size:  # it was being written while it was measured
            self._measures.pop((path, size), None)
            self._waits[path] = (size, True)
            return None
        self._waits.pop(path, None)
        return units

    def length(self, path: str, size: int) -> int:
        """Units of a file that was left behind."""
        try:
            return self.measured(path, size).units
        except NotWhole:
            return 1

    def identity_bytes(self, offset: int, size: int) -> int:  # noqa: ARG002  (such a file is read as a whole)
        return size

    def read(self, path: str, span: Span, columns: Collection[str] | None) -> Block:
        size, piece = int(self.fs.size(path)), False
        try:
            self.measured(path, size)
            piece = True
            return self._surely(path, lambda stream: self.take(path, stream, span, columns))
        except NotWhole:
            raw = self.fs.cat_file(path, 0, min(size, RAW_BYTES)) if size and span.start == 0 else b""
            return Broken(span.file, span.start, raw, size, piece)

    def measured(self, path: str, size: int, *, sure: bool = True) -> Measure:
        """The measure of a file. NotWhole, of which one may only be `sure` after a second look."""
        if not size:
            raise NotWhole
        key = (path, size)
        if key not in self._measures:
            self._measures[key] = self._surely(path, self.measure) if sure else self._once(path, self.measure)
            if len(self._measures) > KNOWN:
                self._measures.pop(next(iter(self._measures)))
        return self._measures[key]

    def _once(self, path: str, attempt: Callable[[IO[bytes]], Found]) -> Found:
        try:
            with self.fs.open(path, "rb") as stream:
                return attempt(stream)
        except (FileNotFoundError, PermissionError, MemoryError, HeadraceError):
            raise
        except Exception as error:  # decoders raise anything on bytes that they do not expect
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # of the system, such as a full disk: decoders give no number, but seek before the beginning
            raise NotWhole from error

    def _surely(self, path: str, attempt: Callable[[IO[bytes]], Found]) -> Found:
        try:
            return self._once(path, attempt)
        except NotWhole:
            if self.fs.size(path) > IN_MEMORY:
                self._read_through(path)
                return self._once(path, attempt)
            data = self.fs.cat_file(path)  # OSError: the store fails, not the file
        try:
            return attempt(io.BytesIO(data))
        except (MemoryError, HeadraceError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise NotWhole from error

    def _read_through(self, path: str) -> None:
        """OSError where the store does not give all bytes."""
        with self.fs.open(path, "rb") as stream:
            while stream.read(CHUNK):
                pass


def unreadable(path: str) -> SourceError:
    return SourceError(f"{path} cannot be read any more", hint="put it back as it was", path=path)


class RowFiles(WholeFiles):
    """Formats whose unit is a row."""

    unit = "row"

    def at(
        self, path: str, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None
    ) -> Rows:
        del raws  # what quarantine has of them is text, without their types
        found: list[pa.Table] = []
        for _, group in groupby(offsets, lambda row: row // SPAN_ROWS):
            rows = list(group)
            low, high = min(rows), max(rows) + 1
            block = self.read(path, Span(file, low, high, low, high), columns)
            if not isinstance(block, Rows) or block.table.num_rows < high - low:
                raise unreadable(path)
            found.append(block.table.take(pa.array([row - low for row in rows], pa.int64())))
        return Rows(pa.concat_tables(found, promote_options="permissive"), file, 0, tuple(offsets))

    def cut(self, path: str, start: int, end: int, max_bytes: int) -> tuple[int, int]:
        """(row, bytes): about `max_bytes` from row `start`; at least one row."""
        if start >= end:
            return start, 0
        size = int(self.fs.size(path))
        try:
            measure = self.measured(path, size)
        except NotWhole:
            return end, max(1, size)
        per_row = max(1, measure.size_bytes // max(1, measure.units))
        at = min(end, start + max(1, max_bytes // per_row))
        return at, (at - start) * per_row

    def pieces(self, file: str, low: int, high: int) -> list[Span]:
        return [Span(file, at, min(at + SPAN_ROWS, high), low, high) for at in range(low, high, SPAN_ROWS)]
