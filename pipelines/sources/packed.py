"""Compressed text: lines in gzip or zstd files, which may grow by members. Offsets are bytes of the text inside.

In the text, a line break stands for a gap. What is left of a line that it cuts is no JSON, and refused. Of CSV it may
read as another line, so there nothing is read behind what cannot be.

A file is unpacked once per process, into an unnamed temporary file, to which later members are added. A process keeps
the newest of all its sources, up to a number and a size; every tick has sources of its own, which find them again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from functools import partial
from threading import Lock
from typing import IO, TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from pipelines.sources.base import Gap
from pipelines.sources.lines import LineFiles
from pipelines.sources.members import is_padding, next_member, unpacked
from pipelines.sources.pieces import Measure, NoPiece
from pipelines.sources.whole import WholeFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pipelines.sources.base import Lines, Span

__all__ = ["PackedLines"]

KEPT_FILES = 64
KEPT_BYTES = 1 << 30
MARK_BYTES = 4096


class PackedLines(WholeFiles):
    """JSON lines or CSV in gzip or zstd, on any fsspec file system."""

    unit = "byte of the text"

    def __init__(self, fs: Any, *, csv: bool, compression: str) -> None:
        super().__init__(fs)
        self.compression = compression
        self._lines = LineFiles(self, csv=csv)
        self._texts: WeakValueDictionary[str, _Text] = WeakValueDictionary()
        self._lock = Lock()

    def grows(self, path: str) -> bool:  # noqa: ARG002  (every one may)
        return True

    def measure(self, stream: IO[bytes], size: int, known: Measure) -> Measure:
        end, units, more, gaps, hopeless = known.end, known.units, 0, list(known.gaps), False

        def resume(at: int) -> int | None:
            return None if self._lines.csv else next_member(stream, self.compression, at, size)

        try:
            for text, behind, is_gap in unpacked(stream, self.compression, end, size, resume):
                if is_gap:
                    gaps.append(Gap(units, end, behind))
                more = len(text) + (0 if is_gap else more)
                if behind:
                    end, units, more = behind, units + more, 0
        except NoPiece:
            hopeless = True
        padded = is_padding(stream, self.compression, end, size)
        return Measure(units, units, end, padded=padded, hopeless=hopeless and not padded, gaps=tuple(gaps))

    def readable(self, path: str, measure: Measure, *, torn: bool) -> int:
        """A line that goes on in the next member ends with it."""
        return self._lines.newline_before(path, 0, measure.units) if torn else measure.units

    def cut(self, path: str, size: int, start: int, end: int, max_bytes: int) -> tuple[int, int]:
        return self._lines.cut(path, size, start, end, max_bytes)

    def pieces(self, file: str, low: int, high: int, gaps: Sequence[Gap]) -> list[Span]:
        return self._lines.pieces(file, low, high, gaps)

    def take(self, path: str, stream: IO[bytes], span: Span, columns: Collection[str] | None) -> Lines:
        del stream  # the unpacked text is at hand
        return self._lines.read(path, span, columns)

    def at(
        self, path: str, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None
    ) -> Lines:
        return self._lines.at(path, file, offsets, raws, columns)

    def size(self, path: str) -> int:
        """Bytes of the text in a file, as far as it is whole."""
        return self.measured(path, int(self.fs.size(path))).units

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        """Bytes `[start, end)` of the text in a file: what `LineFiles` reads with."""
        with self._lock:
            text = self._texts.get(path)
            if text is None or text.length < end:
                with self.fs.open(path, "rb") as file:
                    text = text or _TEXTS.of(self._key(path), file)
                    if text.length < end:
                        text.add(file, self.compression, partial(self._behind, path))
            self._texts[path] = text
            _TEXTS.keep(self._key(path), text)
        return text.read(start, end)

    def _behind(self, path: str, at: int) -> int | None:
        """Where the gap ends that begins there: as measured, so that it was looked at twice."""
        gaps = self.measured(path, int(self.fs.size(path))).gaps
        return next((gap.end for gap in gaps if gap.start == at), None)

    def _key(self, path: str) -> str:
        return str(
            (self.compression, self._lines.csv, self.fs.protocol, self.fs.storage_args, self.fs.storage_options, path)
        )


class _Text:
    """The text of whole members, in an unnamed file that lives as long as this does: others may still be reading it."""

    _file: IO[bytes] | None = None

    def __init__(self) -> None:
        self.length = 0  # bytes of text, of whole members
        self._end = 0  # bytes of the file that they are in
        self._mark = b""
        self._adding = Lock()  # two streams may read one file, each with a source of its own
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, stream: IO[bytes], compression: str, resume: Callable[[int], int | None]) -> None:
        """The members that are new."""
        with self._adding:
            at, size = self.length, stream.seek(0, os.SEEK_END)
            with contextlib.suppress(NoPiece):
                for text, behind, is_gap in unpacked(stream, compression, self._end, size, resume):
                    at = self.length if is_gap else at
                    self._write(memoryview(text), at)
                    at += len(text)
                    if behind:
                        self.length, self._end = at, behind
            self._mark = _mark(stream, self._end)

    def is_of(self, stream: IO[bytes]) -> bool:
        """Whether the members are those of a file: its first bytes are, and the last, where checksums stand."""
        with self._adding:
            return stream.seek(0, os.SEEK_END) >= self._end and _mark(stream, self._end) == self._mark

    def read(self, start: int, end: int) -> bytes:
        assert self._file is not None
        return os.pread(self._file.fileno(), min(end, self.length) - start, start) if start < self.length else b""

    def _write(self, text: memoryview, at: int) -> None:
        assert self._file is not None
        while text:
            written = os.pwrite(self._file.fileno(), text, at)
            text, at = text[written:], at + written


def _mark(stream: IO[bytes], end: int) -> bytes:
    digest = hashlib.sha256()
    for start in (0, max(0, end - MARK_BYTES)):
        stream.seek(start)
        digest.update(stream.read(min(MARK_BYTES, end - start)))
    return digest.digest()


class _Texts:
    """The texts that this process keeps, of all its sources; the one that was asked for last is the last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[str, _Text] = {}

    def of(self, key: str, stream: IO[bytes]) -> _Text:
        """The text of a file, as far as it is known."""
        with self._lock:
            text = self._kept.get(key)
        return text if text is not None and text.is_of(stream) else _Text()

    def keep(self, key: str, text: _Text) -> None:
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = text
            total = sum(one.length for one in self._kept.values())
            while len(self._kept) > 1 and (len(self._kept) > KEPT_FILES or total > KEPT_BYTES):
                total -= self._kept.pop(next(iter(self._kept))).length


_TEXTS = _Texts()
