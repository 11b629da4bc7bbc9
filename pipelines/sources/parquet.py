"""Parquet files as rows. A file is whole once its footer verifies; offsets are rows."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import pyarrow.parquet as pq

from pipelines.sources.base import Rows, Span
from pipelines.sources.pieces import Measure
from pipelines.sources.whole import RowFiles

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["ParquetFiles"]


class ParquetFiles(RowFiles):
    """Parquet files on any fsspec file system; nested folders of hive partitions give no columns."""

    def measure(self, stream: IO[bytes], size: int, known: Measure) -> Measure:  # noqa: ARG002  (of one piece)
        footer = pq.read_metadata(stream)
        bytes_of_rows = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
        return Measure(int(footer.num_rows), bytes_of_rows, size)

    def take(self, path: str, stream: IO[bytes], span: Span, columns: Collection[str] | None) -> Rows:
        del path
        file = pq.ParquetFile(stream, page_checksum_verification=True)
        wanted = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
        first, groups, rows = _groups(file.metadata, span.start, span.end)
        table = file.read_row_groups(groups, columns=wanted) if rows else file.schema_arrow.empty_table()
        return Rows(table.slice(span.start - first, span.end - span.start), span.file, span.start)


def _groups(footer: pq.FileMetaData, start: int, end: int) -> tuple[int, list[int], int]:
    """Row groups that hold rows `[start, end)`: (first row of the first group, groups, their rows)."""
    at, first, rows = 0, 0, 0
    groups: list[int] = []
    for group in range(footer.num_row_groups):
        size = footer.row_group(group).num_rows
        if at < end and at + size > start:
            first = first if groups else at
            groups.append(group)
            rows += size
        at += size
    return first, groups, rows
