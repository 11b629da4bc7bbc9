"""The same rows as a file of every format that is read; values are text, whole numbers, numbers or None."""

import gzip
import io
import json
import zlib
from itertools import pairwise

import fastavro
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from fastavro.read import HEADER_SCHEMA

SYNC = bytes.fromhex("8f1d40c6b27359ea0d94f36188a5c27e")


def lines(rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def csv(rows):
    lines = [
        ",".join(rows[0]),
        *(",".join("" if value is None else str(value) for value in row.values()) for row in rows),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def packed(data, kind):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, kind) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def parquet(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=300, write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def arrow_file(rows):
    sink = pa.BufferOutputStream()
    feather.write_feather(pa.Table.from_pylist(rows), sink, compression="zstd", chunksize=300)
    return sink.getvalue().to_pybytes()


def arrow_stream(rows):
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=300)
    return sink.getvalue().to_pybytes()


def avro(rows, codec="deflate", sync_interval=4_000):
    kinds = {str: "string", int: "long", float: "double"}
    values = {name: next(row[name] for row in rows if row[name] is not None) for name in rows[0]}
    fields = [{"name": name, "type": ["null", kinds[type(value)]]} for name, value in values.items()]
    schema = {"type": "record", "name": "Event", "fields": fields}
    sink = io.BytesIO()
    fastavro.writer(sink, schema, rows, codec=codec, sync_interval=sync_interval, sync_marker=SYNC)
    return sink.getvalue()


PACK = {  # as the Avro specification says, without the libraries that fastavro would want
    "null": bytes,
    "snappy": lambda data: pa.compress(data, "snappy", asbytes=True) + zlib.crc32(data).to_bytes(4, "big"),
    "zstandard": lambda data: pa.compress(data, "zstd", asbytes=True),
    "lz4": lambda data: len(data).to_bytes(4, "little") + pa.compress(data, "lz4_raw", asbytes=True),
}


def avro_in(rows, codec):
    """Blocks that `fastavro` wrote unpacked, packed by hand."""
    file = io.BytesIO(avro(rows, "null"))
    header = fastavro.schemaless_reader(file, HEADER_SCHEMA, None)
    header["meta"]["avro.codec"] = codec.encode()
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, HEADER_SCHEMA, header)
    while file.tell() < len(file.getbuffer()):
        for kind, change in (("long", int), ("bytes", PACK[codec])):
            fastavro.schemaless_writer(sink, kind, change(fastavro.schemaless_reader(file, kind, None)))
        sink.write(file.read(16))
    return sink.getvalue()


def in_pieces(way, rows, size=100):
    return b"".join(way(rows[at : at + size]) for at in range(0, len(rows), size))


def avro_blocks(data):
    """The bytes of the header, then of each block."""
    file = io.BytesIO(data)
    fastavro.schemaless_reader(file, HEADER_SCHEMA, None)
    ends = [0, file.tell()]
    while ends[-1] < len(data):
        for kind in ("long", "bytes"):
            fastavro.schemaless_reader(file, kind, None)
        ends.append(file.seek(16, io.SEEK_CUR))
    return [data[low:high] for low, high in pairwise(ends)]


def pieces_of(name, rows, size=100):
    """The pieces of a file that grows, of about so many rows each; the first of Avro is its header."""
    if name == "a.avro":
        return avro_blocks(avro(rows, sync_interval=40 * size))
    return [WAYS[name](rows[at : at + size]) for at in range(0, len(rows), size)]


WAYS = {
    "a.jsonl": lines,
    "a.csv": csv,
    "a.jsonl.gz": lambda rows: gzip.compress(lines(rows)),
    "a.json.gzip": lambda rows: gzip.compress(lines(rows[:10])) + gzip.compress(lines(rows[10:])),
    "a.jsonl.zst": lambda rows: packed(lines(rows), "zstd"),
    "a.csv.gz": lambda rows: gzip.compress(csv(rows)),
    "a.csv.zst": lambda rows: packed(csv(rows), "zstd"),
    "a.parquet": parquet,
    "a.feather": arrow_file,
    "a.arrow": arrow_file,
    "a.arrows": arrow_stream,
    "a.avro": avro,
}

GROWING = {  # files that are whole at several lengths
    "a.jsonl.gz": lambda rows: in_pieces(WAYS["a.jsonl.gz"], rows),
    "a.csv.gz": lambda rows: b"".join(gzip.compress(csv(rows)[at : at + 7_001]) for at in range(0, 50_000, 7_001)),
    "a.jsonl.zst": lambda rows: in_pieces(WAYS["a.jsonl.zst"], rows),
    "a.arrows": lambda rows: in_pieces(arrow_stream, rows),
    "a.avro": avro,
}
