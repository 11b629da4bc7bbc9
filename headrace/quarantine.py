"""Files of refused events: what they were, where they stood, why they were refused.

`shards/quarantine/<seq>-<name>-<nonce>.parquet`, one per reader and per part of a tick that refused something, named
with its SHA-256 by the shard record. Columns:

    stream string | partition string | offset string ("<file>:<byte or row>") | reason string (a code of
    pipelines.events.REASONS) | event_time_us int64 or null | size int64 or null (bytes of the whole record)
    raw binary or null (its first 4 KiB; null when the event was refused after parsing: read it at its offset)

File metadata `headrace` = {"format": 1, "kind": "quarantine", "schema": fingerprint of the features at that time}.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.errors import NewerFormat
from headrace.record import read_verified, sha256_of
from headrace.shard import Quarantine

if TYPE_CHECKING:
    from headrace.store import Store

__all__ = ["COLUMNS", "read_quarantine", "write_quarantine"]

KIND = "quarantine"
FORMAT = 1

COLUMNS = pa.schema(
    [
        ("stream", pa.string()),
        ("partition", pa.string()),
        ("offset", pa.string()),
        ("reason", pa.string()),
        ("event_time_us", pa.int64()),
        ("size", pa.int64()),
        ("raw", pa.binary()),
    ]
)


def write_quarantine(store: Store, rows: pa.Table, *, path: str, fingerprint: str) -> Quarantine:
    """Write refused events as one durable file."""
    sink = pa.BufferOutputStream()
    meta = json.dumps({"format": FORMAT, "kind": KIND, "schema": fingerprint}, sort_keys=True)
    with pq.ParquetWriter(sink, COLUMNS, compression="zstd", write_page_checksum=True, store_schema=False) as writer:
        writer.write_table(rows.cast(COLUMNS))
        writer.add_key_value_metadata({"headrace": meta})
    data = sink.getvalue()
    store.write(path, memoryview(data))
    reasons = dict(sorted(Counter(rows.column("reason").to_pylist()).items()))
    return Quarantine(path, sha256_of(memoryview(data)), rows.num_rows, reasons)


def read_quarantine(store: Store, named: Quarantine) -> pa.Table:
    """Refused events of one file, after checking its hash. `DamagedFile`, `NewerFormat`."""
    data = read_verified(
        store,
        named.path,
        named.sha256,
        "restore the file from a copy; it holds refused events only, the loop goes on without it",
    )
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    said = json.loads((file.metadata.metadata or {}).get(b"headrace", b"{}"))
    if said.get("format") != FORMAT or said.get("kind") != KIND:
        raise NewerFormat(
            f"{named.path} says format {said.get('format')} and kind {said.get('kind')}; known is format {FORMAT}",
            hint="upgrade headrace in this environment; the loop goes on without this file",
            path=named.path,
        )
    return file.read(use_threads=False).replace_schema_metadata(None)  # threads of a small read may abort at exit
