"""Avro container files as rows: the blocks are found and unpacked here, fastavro decodes them.

A file is a header (magic, schema, codec, sync marker) and blocks: count, length (zigzag longs), data, sync marker. It
may grow by blocks: a row never moves.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any

import fastavro
import pyarrow as pa
from fastavro.read import HEADER_SCHEMA, MAGIC

from pipelines.sources.avrotypes import Types
from pipelines.sources.base import Block, Rows, Span
from pipelines.sources.codecs import codec_of
from pipelines.sources.whole import NOTHING, Measure, RowFiles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["AvroFiles"]

SYNC_BYTES = 16
LONG_BYTES = 10


class AvroFiles(RowFiles):
    """Records must be the rows: a container of anything else is broken."""

    def grows(self, path: str) -> bool:  # noqa: ARG002  (every one may)
        return True

    def measure(self, stream: IO[bytes], size: int, known: Measure) -> Measure:
        if not MAGIC.startswith(stream.read(len(MAGIC))):
            return replace(NOTHING, hopeless=True)
        header = _Header.of(stream)
        rows, end = known.units, max(known.end, header.end)
        if end > size:
            raise EOFError("the header ends behind the file")
        try:
            for block in _blocks(stream, header, end, size):
                rows, end = rows + block.rows, block.end
        except _NoBlock:
            return Measure(rows, end - header.end, end, hopeless=True)
        return Measure(rows, end - header.end, end)

    def take(self, path: str, stream: IO[bytes], span: Span, columns: Collection[str] | None) -> Block:
        header = _Header.of(stream)
        size = stream.seek(0, io.SEEK_END)
        at, data, first = 0, io.BytesIO(), 0
        unpack = codec_of(header.codec)
        for block in _blocks(stream, header, header.end, size):
            if at + block.rows > span.start and at < span.end:
                first = at if not data.tell() else first
                stream.seek(block.data)
                data.write(unpack(stream.read(block.end - SYNC_BYTES - block.data)))
            at += block.rows
            if at >= span.end:
                break
        if at < span.end:
            raise EOFError("fewer rows than there were")
        found = header.records(data.getvalue(), at - first)[span.start - first : span.end - first]
        wanted = [name for name in header.types.names if columns is None or name in columns]
        arrays = [header.types.column(found, name, path) for name in wanted]
        return Rows(pa.table(arrays, names=wanted), span.file, span.start)


@dataclass(frozen=True)
class _Header:
    """`end`: its bytes."""

    types: Types
    codec: str
    sync: bytes
    end: int

    @classmethod
    def of(cls, stream: IO[bytes]) -> _Header:
        stream.seek(0)
        if stream.read(len(MAGIC)) != MAGIC:
            raise ValueError("not an Avro container")
        stream.seek(0)
        read: Any = fastavro.schemaless_reader(stream, HEADER_SCHEMA, None)
        end = stream.tell()
        schema = json.loads(read["meta"]["avro.schema"])
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise ValueError("not a container of records")
        codec = read["meta"].get("avro.codec", b"null").decode()
        codec_of(codec, str(getattr(stream, "path", "")))
        return cls(Types(schema), codec, read["sync"], end)

    def records(self, data: bytes, rows: int) -> list[dict[str, Any]]:
        """The first `rows` of blocks whose data, unpacked, follow each other."""
        file = io.BytesIO()
        meta = {"avro.schema": json.dumps(self.types.bare).encode(), "avro.codec": b"null"}
        fastavro.schemaless_writer(file, HEADER_SCHEMA, {"magic": MAGIC, "meta": meta, "sync": self.sync})
        fastavro.schemaless_writer(file, "long", rows)
        fastavro.schemaless_writer(file, "bytes", data)
        file.write(self.sync)
        file.seek(0)
        records: Any = fastavro.reader(file, handle_unicode_errors="surrogateescape")
        return list(records)


class _NoBlock(ValueError):
    """What lies there is no block, and none begins so: more bytes do not help."""


@dataclass(frozen=True)
class _Block:
    """`[start, end)` in bytes of the file; its data begin at `data` and end before the marker."""

    rows: int
    start: int
    data: int
    end: int


def _blocks(stream: IO[bytes], header: _Header, at: int, size: int) -> Iterator[_Block]:
    """The whole blocks of `[at, size)`, up to the first that is not. _NoBlock if it can never be."""
    while at < size:
        stream.seek(at)
        head = stream.read(2 * LONG_BYTES)
        rows, used = _long(head, 0)
        length, used = _long(head, used)
        end = at + used + length + SYNC_BYTES
        if rows < 0 or length < 0:
            raise _NoBlock
        if not used or end > size:
            return
        stream.seek(end - SYNC_BYTES)
        if stream.read(SYNC_BYTES) != header.sync:
            raise _NoBlock
        yield _Block(rows, at, at + used, end)
        at = end


def _long(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag long and where it ends; ends at 0 where it is not whole."""
    value = 0
    for place in range(LONG_BYTES):
        if at + place >= len(data):
            return 0, 0
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at + place + 1
    return 0, 0
