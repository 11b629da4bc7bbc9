"""Files of refused events: what they were, where they stood, why they were refused.

`shards/quarantine/<seq>-<name>-<nonce>.parquet`, one per reader and per part of a tick that refused something, named
with its SHA-256 by the shard record. Columns:

    stream string | partition string | offset string ("<file>:<byte or row>") | reason string (a code of
    pipelines.events.REASONS) | event_time_us int64 or null | size int64 or null (bytes of the whole record)
    raw binary or null (its first 4 KiB; null when the event was refused after parsing: read it at its offset)
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.errors import DamagedFile
from headrace.shard import Quarantine

if TYPE_CHECKING:
    from headrace.store import Store

__all__ = ["COLUMNS", "read_quarantine", "write_quarantine"]

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


def write_quarantine(store: Store, rows: pa.Table, path: str) -> Quarantine:
    """Write refused events as one durable file."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows.cast(COLUMNS), sink, compression="zstd", write_page_checksum=True, store_schema=False)
    data = sink.getvalue()
    store.write(path, memoryview(data))
    reasons = dict(sorted(Counter(rows.column("reason").to_pylist()).items()))
    return Quarantine(path, hashlib.sha256(data).hexdigest(), rows.num_rows, reasons)


def read_quarantine(store: Store, named: Quarantine) -> pa.Table:
    """Refused events of one file, after checking its hash."""
    data = store.read(named.path)
    if hashlib.sha256(data).hexdigest() != named.sha256:
        raise DamagedFile(
            f"{named.path} does not have the SHA-256 that its record names",
            hint="restore the file from a copy; it holds refused events only, the loop goes on without it",
            path=named.path,
        )
    return pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
