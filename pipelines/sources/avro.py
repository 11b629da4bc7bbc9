"""Avro container files as rows, by fastavro. Whole once every block can be found; values have their logical types."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import fastavro
import pyarrow as pa

from headrace.errors import WrongType
from pipelines.sources.base import Block, Rows, Span
from pipelines.sources.whole import Measure, RowFiles

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["AvroFiles"]


class AvroFiles(RowFiles):
    """Records must be the rows: a container of anything else is broken."""

    def measure(self, stream: IO[bytes]) -> Measure:
        reader = fastavro.block_reader(stream)
        if not isinstance(reader.writer_schema, dict) or reader.writer_schema.get("type") != "record":
            raise ValueError("not a container of records")
        rows = size = 0
        for block in reader:
            rows, size = rows + block.num_records, size + block.size
        return Measure(rows, size)

    def take(self, path: str, stream: IO[bytes], span: Span, columns: Collection[str] | None) -> Block:
        reader = fastavro.block_reader(stream)
        schema: Any = reader.writer_schema
        names = [field["name"] for field in schema["fields"]]
        at, found = 0, []
        for block in reader:
            low, high = max(span.start - at, 0), min(span.end - at, block.num_records)
            if low < high:
                found += list(block)[low:high]
            at += block.num_records
            if at >= span.end:
                break
        wanted = [name for name in names if columns is None or name in columns]
        arrays = [_column([record[name] for record in found], name, path) for name in wanted]
        return Rows(pa.table(arrays, names=wanted), span.file, span.start)


def _column(values: list[Any], name: str, path: str) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise WrongType(
            f"'{name}' has values of several types in {path}",
            hint="write it as one type: a union may only add null",
            column=name,
        ) from error
