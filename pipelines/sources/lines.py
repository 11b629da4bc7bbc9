"""Text files as lines: where the complete lines end, where to cut them, how to read a piece.

Offsets are bytes. A piece owns the lines that start in it, so any cut of a file into pieces reads every line once.

The header of a CSV file says what separates its fields: the first of `SEPARATORS` that makes several columns of it.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from headrace.errors import SourceError, SourceTruncated
from pipelines.sources.base import SPAN_BYTES, Extent, Gap, Lines, Span

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["LineFiles"]

SCAN_BYTES = 64 << 10
HEADER_BYTES = 1 << 20
SEPARATORS = ",;\t|"
BOM = b"\xef\xbb\xbf"


class LineFiles:
    """JSON lines (`csv=False`) or CSV with one header line per file, on any fsspec file system."""

    unit = "byte"
    whole = False

    def __init__(self, fs: Any, *, csv: bool) -> None:
        self.fs = fs
        self.csv = csv
        self._header = lru_cache(maxsize=256)(self._read_header)

    def end(self, path: str, size: int, start: int, *, final: bool) -> Extent:
        """What may be read: up to the last complete line, or the whole file when nothing more can follow."""
        return Extent(size if final else self.newline_before(path, start, size))

    def extent(self, path: str, size: int, *, over_gaps: bool = True) -> Extent:  # noqa: ARG002  (others need them)
        return Extent(size)

    def gaps(self, path: str, size: int, end: int) -> list[Gap]:  # noqa: ARG002  (every byte is of some line)
        return []

    def grows(self, path: str) -> bool:  # noqa: ARG002  (the same)
        return True

    def cut(self, path: str, size: int, start: int, end: int, max_bytes: int) -> tuple[int, int]:
        """(position, bytes): at most `max_bytes` from `start`, cut after a line; at least one line."""
        del size  # of compressed text it is not that of the text
        if end - start <= max_bytes:
            return end, end - start
        at = self.newline_before(path, start, start + max_bytes)
        if at == start:
            at = self._newline_after(path, start, end)
        return at, at - start

    def whole_bytes(self, path: str, offset: int, size: int) -> int:  # noqa: ARG002  (the same)
        """How far the bytes of a file will never change."""
        return min(offset, size)

    def pieces(self, file: str, low: int, high: int, gaps: Sequence[Gap]) -> list[Span]:  # noqa: ARG002  (the same)
        return [Span(file, at, min(at + SPAN_BYTES, high), low, high) for at in range(low, high, SPAN_BYTES)]

    def read(self, path: str, span: Span, columns: Collection[str] | None) -> Lines:
        del columns  # lines are read whole
        start = span.start if span.start == span.low else self._newline_after(path, span.start - 1, span.high)
        end = span.high if span.end >= span.high else self._newline_after(path, span.end - 1, span.high)
        data: bytes = self.fs.cat_file(path, start, end) if end > start else b""
        if len(data) != end - start:
            raise SourceTruncated(
                f"{path} ended at byte {start + len(data)} while bytes up to {end} were being read",
                hint="put the file back as it was; write new events under a new name instead of truncating",
                file=span.file,
            )
        if start == 0 and data.startswith(BOM):
            data, start = data[len(BOM) :], len(BOM)
        if not self.csv:
            return Lines(data, span.file, start)
        if span.low == span.start == 0:
            first = data.find(b"\n") + 1 or len(data)
            data, start = data[first:], start + first
        header, separator = self._header(path)
        return Lines(data, span.file, start, header, separator=separator)

    def at(
        self, path: str, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None
    ) -> Lines:
        """The lines that start at these offsets."""
        del columns  # lines are read whole
        lines = [raws[start] if start in raws else self._line(path, start) for start in offsets]
        data = b"".join(line + b"\n" for line in lines)
        header, separator = self._header(path) if self.csv else (None, "")
        return Lines(data, file, 0, header, tuple(offsets), separator)

    def _line(self, path: str, start: int) -> bytes:
        end = self._newline_after(path, start, int(self.fs.size(path)))
        line: bytes = self.fs.cat_file(path, start, end)
        return line.removesuffix(b"\n")

    def _read_header(self, path: str) -> tuple[tuple[str, ...], str]:
        """(names of the columns, what separates them)."""
        line = self.fs.cat_file(path, 0, HEADER_BYTES).removeprefix(BOM).split(b"\n", 1)[0]
        try:
            text = [line.decode("utf-8", "replace").rstrip("\r")]
            found = [(tuple(next(csv.reader(text, delimiter=mark), [])), mark) for mark in SEPARATORS]
            return next((one for one in found if len(one[0]) > 1), found[0])
        except csv.Error as error:
            raise SourceError(
                f"the first line of {path} does not name columns, as that of CSV does: {error}",
                hint="is it CSV, with a line break (LF or CRLF) behind each line? Write it so, or set `format` of the"
                " stream",
                file=path,
            ) from error

    def newline_before(self, path: str, start: int, end: int) -> int:
        """Offset after the last newline in `[start, end)`; `start` when there is none."""
        while end > start:
            low = max(start, end - SCAN_BYTES)
            found = self.fs.cat_file(path, low, end).rfind(b"\n")
            if found >= 0:
                return int(low + found + 1)
            end = low
        return start

    def _newline_after(self, path: str, start: int, end: int) -> int:
        """Offset after the first newline in `[start, end)`; `end` when there is none."""
        while start < end:
            high = min(end, start + SCAN_BYTES)
            found = self.fs.cat_file(path, start, high).find(b"\n")
            if found >= 0:
                return int(start + found + 1)
            start = high
        return end
