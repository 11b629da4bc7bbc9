"""Arrow IPC as rows: files (Feather 2), whole once every batch can be read; streams, which may follow each other.

A stream is messages: `ff ff ff ff`, the length of the metadata (int32, a multiple of 8), metadata, body. The first has
the schema; a length of 0 is the end marker. (Those of before 2019, without `ff ff ff ff`, have no such end, and are not
read.)
"""

from __future__ import annotations

import io
from functools import partial
from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import WrongType
from pipelines.sources.base import Gap, Rows, Span
from pipelines.sources.pieces import Measure, NoPiece, Piece, followed, places
from pipelines.sources.whole import RowFiles, is_of_the_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["ArrowFiles"]

MAGIC = b"ARROW1"
CONTINUATION = b"\xff\xff\xff\xff"
END_OF_STREAM = CONTINUATION + bytes(4)
METADATA_BYTES = 1 << 24  # of a message: more is none
ALIGNED = 8
BARE = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
    pa.date64(): pa.int64(),
    pa.time32("s"): pa.int32(),
    pa.time32("ms"): pa.int32(),
    pa.time64("us"): pa.int64(),
    pa.time64("ns"): pa.int64(),
}


class ArrowFiles(RowFiles):
    """Either form, told by its first bytes."""

    def grows(self, path: str) -> bool:
        return bool(self.fs.cat_file(path, 0, len(MAGIC)) != MAGIC)

    def measure(self, stream: IO[bytes], size: int, known: Measure) -> Measure:
        if _is_file(stream):
            rows, size_bytes = _sum(_file_batches(stream))
            return Measure(rows, size_bytes, size)
        if size < len(MAGIC):
            return known  # a file may begin so
        return followed(
            stream, known, size, partial(_stream, stream, size), lambda at: places(stream, CONTINUATION, at + 1, size)
        )

    def pieces(self, file: str, low: int, high: int, gaps: Sequence[Gap]) -> list[Span]:
        """One: a stream can only be read from its beginning."""
        return [Span(file, low, high, low, high, gaps=tuple(gaps))] if high > low else []

    def take(self, path: str, stream: IO[bytes], span: Span, columns: Collection[str] | None) -> Rows:
        at, found = 0, []
        for batch in _batches(stream, span.gaps):
            low, high = max(span.start - at, 0), min(span.end - at, batch.num_rows)
            if low < high:
                found.append(batch.select(_wanted(batch, columns)).slice(low, high - low))
                _require_structure(found[-1])
            at += batch.num_rows
            if at >= span.end:
                break
        return Rows(_joined(found, path), span.file, span.start)


def _joined(batches: list[pa.RecordBatch], path: str) -> pa.Table:
    """One table; streams that follow each other may have other columns, which are null where they are not."""
    try:
        return pa.Table.from_batches(batches)
    except pa.ArrowInvalid:
        tables = [pa.Table.from_batches([batch]) for batch in batches]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise WrongType(
            f"the streams in {path} do not agree on their columns: {error}",
            hint="write each column with one type and once, or the streams into files of their own",
            file=path,
        ) from error


def _wanted(batch: pa.RecordBatch, columns: Collection[str] | None) -> list[int]:
    """Numbers of the columns; a name may be there twice."""
    return [number for number, name in enumerate(batch.schema.names) if columns is None or name in columns]


def _require_structure(batch: pa.RecordBatch) -> None:
    """ArrowInvalid unless all lies where it says. A value that its type does not allow is for parsing to judge."""
    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            _require_places(column)


def _require_places(column: pa.Array) -> None:
    if isinstance(column, pa.ExtensionArray):
        _require_places(column.storage)
    elif isinstance(column, pa.DictionaryArray):
        bounds = pc.min_max(column.indices).as_py()
        if bounds["min"] is not None and not 0 <= bounds["min"] <= bounds["max"] < len(column.dictionary):
            raise pa.ArrowInvalid("an index points nowhere")
        _require_places(column.dictionary)
    else:
        column.view(_without_rules(column.type)).validate(full=True)


def _without_rules(kind: pa.DataType) -> pa.DataType:
    """The type of the same layout that allows every value."""
    if pa.types.is_struct(kind):
        return pa.struct([kind.field(i).with_type(_without_rules(kind.field(i).type)) for i in range(kind.num_fields)])
    if pa.types.is_list(kind):
        return pa.list_(_without_rules(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_without_rules(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_without_rules(kind.value_type), kind.list_size)
    if pa.types.is_decimal(kind):
        return pa.binary(kind.byte_width)
    return BARE.get(kind, kind)


def _sum(batches: Iterator[pa.RecordBatch]) -> tuple[int, int]:
    """(rows, bytes)."""
    rows = size_bytes = 0
    for batch in batches:
        rows, size_bytes = rows + batch.num_rows, size_bytes + batch.nbytes
    return rows, size_bytes


def _is_file(stream: IO[bytes]) -> bool:
    stream.seek(0)
    return stream.read(len(MAGIC)) == MAGIC


def _stream(stream: IO[bytes], size: int, at: int) -> Piece | None:
    """The one that begins there; None = not whole yet."""
    if not _begins(stream, at, 1):
        raise NoPiece
    try:
        rows, size_bytes = _sum(_stream_batches(stream, at))
    except Exception as error:
        if not is_of_the_bytes(error):
            raise
        if _is_none(stream, size, at):
            raise NoPiece from error
        return None
    return Piece(rows, size_bytes, stream.tell()) if stream.tell() <= size else None


def _begins(stream: IO[bytes], at: int, aligned: int) -> bool:
    """Whether a message may begin there."""
    stream.seek(at)
    head = stream.read(len(END_OF_STREAM))
    length = int.from_bytes(head[len(CONTINUATION) :], "little")
    known = len(head) == len(END_OF_STREAM)
    return CONTINUATION.startswith(head[: len(CONTINUATION)]) and (
        not known or (0 < length < METADATA_BYTES and length % aligned == 0)
    )


def _is_none(stream: IO[bytes], size: int, first: int) -> bool:
    """Whether what begins there, and cannot be read, is no stream whatever follows."""
    at, messages = first, pa.PythonFile(stream, "r")
    while _begins(stream, at, ALIGNED):
        stream.seek(at)
        try:
            message = pa.ipc.read_message(messages)
        except Exception as error:
            if not is_of_the_bytes(error):
                raise
            return stream.tell() < size  # it was not for want of bytes
        if (message.type == "schema") != (at == first):
            return True
        at = stream.tell()
    return True


def _batches(stream: IO[bytes], gaps: Sequence[Gap]) -> Iterator[pa.RecordBatch]:
    if _is_file(stream):
        yield from _file_batches(stream)
        return
    behind = {gap.start: gap.end for gap in gaps}
    size, at = stream.seek(0, io.SEEK_END), behind.get(0, 0)
    while at < size:
        yield from _stream_batches(stream, at)
        at = behind.get(stream.tell(), stream.tell())


def _file_batches(stream: IO[bytes]) -> Iterator[pa.RecordBatch]:
    stream.seek(0)
    reader = pa.ipc.open_file(stream)
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        batch.validate()
        yield batch


def _stream_batches(stream: IO[bytes], at: int) -> Iterator[pa.RecordBatch]:
    """Of the stream that begins there; the file is left behind it.

    One that was cut between two batches reads well, and short: only its end marker says that it is whole.
    """
    stream.seek(at)
    for batch in pa.ipc.open_stream(stream):
        batch.validate()
        yield batch
    end = stream.tell()
    stream.seek(max(at, end - len(END_OF_STREAM)))
    if stream.read(len(END_OF_STREAM)) != END_OF_STREAM:
        raise EOFError("no end marker")
