"""Avro container files as rows: the blocks are found and unpacked here, fastavro decodes them.

A file is a header (magic, schema, codec, sync marker) and blocks: count, length (zigzag longs), data, sync marker. It
may grow by blocks: a row never moves. The marker is 16 random bytes of the file's own, so where it stands a block ends,
and behind a gap the next may begin.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import fastavro
import pyarrow as pa
from fastavro.read import HEADER_SCHEMA, MAGIC

from pipelines.sources.avrotypes import Types
from pipelines.sources.base import Block, Gap, Rows, Span
from pipelines.sources.codecs import codec_of
from pipelines.sources.pieces import NOTHING, Measure, NoPiece, Piece, followed, places
from pipelines.sources.whole import RowFiles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

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
        if header.end > size:
            raise EOFError("the header ends behind the file")
        known = known if known.end else replace(NOTHING, end=header.end)
        return followed(
            stream,
            known,
            size,
            partial(_block, stream, header, size),
            lambda at: (place + SYNC_BYTES for place in places(stream, header.sync, at, size)),
        )

    def take(self, path: str, stream: IO[bytes], span: Span, columns: Collection[str] | None) -> Block:
        header = _Header.of(stream)
        size = stream.seek(0, io.SEEK_END)
        at, data, first = 0, io.BytesIO(), 0
        unpack = codec_of(header.codec)
        for block in _blocks(stream, header, size, span.gaps):
            if at + block.units > span.start and at < span.end:
                first = at if not data.tell() else first
                stream.seek(block.data)
                data.write(unpack(stream.read(block.end - SYNC_BYTES - block.data)))
            at += block.units
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


@dataclass(frozen=True)
class _Block(Piece):
    """Its data begin at byte `data` of the file and end before the marker."""

    data: int


def _blocks(stream: IO[bytes], header: _Header, size: int, gaps: Sequence[Gap]) -> Iterator[_Block]:
    """The blocks in the first `size` bytes, up to the first that is not whole. NoPiece if it can never be."""
    behind = {gap.start: gap.end for gap in gaps}
    at = behind.get(header.end, header.end)
    while at < size and (block := _block(stream, header, size, at)):
        yield block
        at = behind.get(block.end, block.end)


def _block(stream: IO[bytes], header: _Header, size: int, at: int) -> _Block | None:
    """The one that begins there; None = not whole yet."""
    stream.seek(at)
    head = stream.read(2 * LONG_BYTES)
    rows, used = _long(head, 0)
    length, used = _long(head, used) if used else (0, 0)
    if rows < 0 or length < 0 or (not used and len(head) == 2 * LONG_BYTES):
        raise NoPiece
    data, end = at + used, at + used + length + SYNC_BYTES
    if used and end > size and next(places(stream, header.sync, data, size), None) is not None:
        raise NoPiece  # no data hold the marker
    if not used or end > size:
        return None
    stream.seek(end - SYNC_BYTES)
    if stream.read(SYNC_BYTES) != header.sync:
        raise NoPiece
    return _Block(rows, end - at, end, data)


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
