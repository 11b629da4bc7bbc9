"""Arrow IPC as rows: files (Feather 2), whole once every batch can be read; streams, which may follow each other."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import WrongType
from pipelines.sources.base import Rows, Span
from pipelines.sources.whole import NOTHING, Measure, RowFiles, is_of_the_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["ArrowFiles"]

MAGIC = b"ARROW1"
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
PREFIX_BYTES = 4
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
            return _sum(_file_batches(stream), NOTHING, size)
        while known.end < size:
            try:
                more = _sum(_stream_batches(stream, known.end), known, 0)
            except Exception as error:
                if not is_of_the_bytes(error):
                    raise
                return replace(known, hopeless=_is_no_stream(stream, known.end))
            if stream.tell() > size:
                break
            known = replace(more, end=stream.tell())
        return known

    def pieces(self, file: str, low: int, high: int) -> list[Span]:
        """One: a stream can only be read from its beginning."""
        return [Span(file, low, high, low, high)] if high > low else []

    def take(self, path: str, stream: IO[bytes], span: Span, columns: Collection[str] | None) -> Rows:
        at, found = 0, []
        for batch in _batches(stream):
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


def _sum(batches: Iterator[pa.RecordBatch], known: Measure, end: int) -> Measure:
    rows, size_bytes = known.units, known.size_bytes
    for batch in batches:
        rows, size_bytes = rows + batch.num_rows, size_bytes + batch.nbytes
    return Measure(rows, size_bytes, end)


def _is_file(stream: IO[bytes]) -> bool:
    stream.seek(0)
    return stream.read(len(MAGIC)) == MAGIC


def _is_no_stream(stream: IO[bytes], at: int) -> bool:
    """Whether none begins there: as the end marker does, or (old ones) with the length of a schema, below 16 MB."""
    stream.seek(at)
    head = stream.read(PREFIX_BYTES)
    begins = END_OF_STREAM.startswith(head) or head.endswith(b"\0") or (at == 0 and MAGIC.startswith(head))
    return len(head) == PREFIX_BYTES and not begins


def _batches(stream: IO[bytes]) -> Iterator[pa.RecordBatch]:
    if _is_file(stream):
        yield from _file_batches(stream)
        return
    size, at = stream.seek(0, io.SEEK_END), 0
    while at < size:
        yield from _stream_batches(stream, at)
        at = stream.tell()


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
