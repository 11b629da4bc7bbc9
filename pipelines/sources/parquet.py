"""Parquet files as rows. A file exists once its footer verifies, and never changes after that; offsets are rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.errors import SourceError
from pipelines.sources.base import Rows, Span

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["ParquetFiles"]

SPAN_ROWS = 1 << 16
FOOTERS = 1024  # kept open to be asked again; a source may live through many more files


class ParquetFiles:
    """Parquet files on any fsspec file system; nested folders of hive partitions give no columns."""

    unit = "row"

    def __init__(self, fs: Any) -> None:
        self.fs = fs
        self._footers: dict[tuple[str, int], pq.FileMetaData] = {}

    def end(self, path: str, size: int, start: int, *, final: bool) -> int | None:  # noqa: ARG002  (text has tails)
        """Rows of the file, or None while its footer is not there."""
        footer = self._footer(path, size)
        if footer is None and final:
            raise SourceError(
                f"{path} is no complete Parquet file, and nothing after it can be read before it",
                hint="write Parquet files under a name that starts with `.` or `_`, and rename them when closed",
                path=path,
            )
        return None if footer is None else int(footer.num_rows)

    def cut(self, path: str, start: int, end: int, max_bytes: int) -> tuple[int, int]:
        """(row, bytes): about `max_bytes` from row `start`; at least one row."""
        footer = self._footer(path, self.fs.size(path))
        total = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups)) if footer else 0
        per_row = max(1, total // max(1, end))
        at = min(end, start + max(1, max_bytes // per_row)) if end > start else start
        return at, (at - start) * per_row

    def identity_bytes(self, offset: int, size: int) -> int:  # noqa: ARG002  (a Parquet file is read as a whole)
        return size

    def pieces(self, file: str, low: int, high: int) -> list[Span]:
        return [Span(file, at, min(at + SPAN_ROWS, high), low, high) for at in range(low, high, SPAN_ROWS)]

    def length(self, path: str, size: int) -> int:
        footer = self._footer(path, size)
        return 0 if footer is None else int(footer.num_rows)

    def read(self, path: str, span: Span, columns: Collection[str] | None) -> Rows:
        with self.fs.open(path, "rb") as stream:
            file = pq.ParquetFile(stream)
            wanted = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
            first, groups, rows = _groups(file.metadata, span.start, span.end)
            table = file.read_row_groups(groups, columns=wanted) if rows else file.schema_arrow.empty_table()
        return Rows(table.slice(span.start - first, span.end - span.start), span.file, span.start)

    def _footer(self, path: str, size: int) -> pq.FileMetaData | None:
        key = (path, size)
        if key not in self._footers:
            try:
                with self.fs.open(path, "rb") as stream:
                    self._footers[key] = pq.read_metadata(stream)
            except (pa.ArrowInvalid, OSError):
                return None
            if len(self._footers) > FOOTERS:
                self._footers.pop(next(iter(self._footers)))
        return self._footers[key]


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
