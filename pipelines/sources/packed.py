"""Compressed text: lines in gzip or zstd files. Whole once its end verifies; offsets are bytes of the text inside.

A file is unpacked once per process, into an unnamed temporary file; the newest few are kept.
"""

from __future__ import annotations

import os
import tempfile
from threading import Lock
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.sources.lines import LineFiles
from pipelines.sources.whole import Measure, NotWhole, WholeFiles, unreadable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pipelines.sources.base import Lines, Span

__all__ = ["COMPRESSIONS", "PackedLines"]

COMPRESSIONS = {"gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd"}
COPY_BYTES = 1 << 20
KEPT = 4


class PackedLines(WholeFiles):
    """JSON lines or CSV in gzip (of any number of members) or zstd, on any fsspec file system."""

    unit = "byte of the text"

    def __init__(self, fs: Any, *, csv: bool, compression: str) -> None:
        super().__init__(fs)
        self.compression = compression
        self._lines = LineFiles(self, csv=csv)
        self._unpacked: dict[tuple[str, int], _Text] = {}
        self._lock = Lock()

    def measure(self, stream: IO[bytes]) -> Measure:
        size = 0
        with pa.CompressedInputStream(stream, self.compression) as text:
            while piece := text.read(COPY_BYTES):
                size += len(piece)
        return Measure(size, size)

    def cut(self, path: str, start: int, end: int, max_bytes: int) -> tuple[int, int]:
        try:
            self.measured(path, int(self.fs.size(path)))
        except NotWhole:
            return end, (end - start) * max(1, int(self.fs.size(path)))
        return self._lines.cut(path, start, end, max_bytes)

    def pieces(self, file: str, low: int, high: int) -> list[Span]:
        return self._lines.pieces(file, low, high)

    def take(self, path: str, stream: IO[bytes], span: Span, columns: Collection[str] | None) -> Lines:
        del stream  # the unpacked text is at hand
        return self._lines.read(path, span, columns)

    def at(
        self, path: str, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None
    ) -> Lines:
        return self._lines.at(path, file, offsets, raws, columns)

    def size(self, path: str) -> int:
        """Bytes of the text in a file; SourceError where it cannot be unpacked."""
        try:
            return self.measured(path, int(self.fs.size(path))).units
        except NotWhole as error:
            raise unreadable(path) from error

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        """Bytes `[start, end)` of the text in a file: what `LineFiles` reads with."""
        with self._lock:
            text = self._text(path)
        return text.read(start, end)

    def _text(self, path: str) -> _Text:
        key = (path, int(self.fs.size(path)))
        if key not in self._unpacked:
            with self.fs.open(path, "rb") as file:
                self._unpacked[key] = _Text(pa.CompressedInputStream(file, self.compression))
            if len(self._unpacked) > KEPT:
                self._unpacked.pop(next(iter(self._unpacked)))
        return self._unpacked[key]


class _Text:
    """What a stream gives, in an unnamed file that lives as long as this does: others may still be reading it."""

    _file: IO[bytes] | None = None

    def __init__(self, stream: pa.NativeFile) -> None:
        file = self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        while piece := memoryview(stream.read(COPY_BYTES)):
            while piece:
                piece = piece[file.write(piece) :]

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, start: int, end: int) -> bytes:
        assert self._file is not None
        return os.pread(self._file.fileno(), end - start, start)
