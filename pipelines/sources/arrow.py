"""Arrow IPC as rows: files (Feather 2) and streams. Whole once every batch can be read."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import pyarrow as pa

from pipelines.sources.base import Rows, Span
from pipelines.sources.whole import Measure, RowFiles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["ArrowFiles"]

MAGIC = b"ARROW1"
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class ArrowFiles(RowFiles):
    """Either form, told by its first bytes."""

    def measure(self, stream: IO[bytes]) -> Measure:
        if stream.read(len(MAGIC)) != MAGIC:
            _require_end(stream)
        rows = size = 0
        for batch in _batches(stream):
            batch.validate()
            rows, size = rows + batch.num_rows, size + batch.nbytes
        return Measure(rows, size)

    def pieces(self, file: str, low: int, high: int) -> list[Span]:
        """One: a stream can only be read from its beginning."""
        return [Span(file, low, high, low, high)] if high > low else []

    def take(self, path: str, stream: IO[bytes], span: Span, columns: Collection[str] | None) -> Rows:
        del path
        at, found = 0, []
        for batch in _batches(stream):
            low, high = max(span.start - at, 0), min(span.end - at, batch.num_rows)
            if low < high:
                batch.validate(full=True)
                found.append(batch.slice(low, high - low))
            at += batch.num_rows
            if at >= span.end:
                break
        table = pa.Table.from_batches(found)
        wanted = [name for name in table.column_names if columns is None or name in columns]
        return Rows(table.select(wanted), span.file, span.start)


def _batches(stream: IO[bytes]) -> Iterator[pa.RecordBatch]:
    stream.seek(0)
    if stream.read(len(MAGIC)) == MAGIC:
        stream.seek(0)
        reader = pa.ipc.open_file(stream)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        return
    end = stream.seek(0, 2)
    stream.seek(0)
    while stream.tell() < end:  # streams may follow each other
        yield from pa.ipc.open_stream(stream)


def _require_end(stream: IO[bytes]) -> None:
    """A stream that was cut between two batches reads well, and short: only its end marker says that it is whole."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - len(END_OF_STREAM)))
    if stream.read() != END_OF_STREAM:
        raise EOFError("no end marker")
