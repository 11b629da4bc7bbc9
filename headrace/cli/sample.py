"""A sample of a file or folder of events, typed as Arrow reads them: what `headrace init` looks at.

Lines that do not parse, and values of another type than nine of ten in their column, are passed over here (the pipeline
keeps them in quarantine).
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import SourceError, SourceVanished

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 50_000
BYTES = 32 * 2**20
MOST = 0.9
NUMBER = r"^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$"
READERS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}


def sample_of(source: Path) -> pa.Table:
    """About the first 50,000 events. SourceVanished, SourceError (not a kind of file that is read, or broken)."""
    file = _first_file(source)
    kind = READERS.get(file.suffix.lower())
    if kind is None:
        raise SourceError(
            f"{file}: the ending {file.suffix!r} is not one that headrace reads",
            hint=f"events come as {', '.join(READERS)}",
            file=str(file),
        )
    try:
        table = {"parquet": _parquet, "csv": _csv, "json": _json}[kind](file)
    except (pa.ArrowInvalid, OSError) as broken:
        raise SourceError(
            f"{file} cannot be read as {kind}: {str(broken).splitlines()[0]}",
            hint="is its ending right, and is it whole?",
            file=str(file),
        ) from broken
    if not table.num_rows:
        raise SourceError(f"{file} has no event that can be read", hint="name another file with --from", file=str(file))
    return table


def _first_file(source: Path) -> Path:
    if not source.exists():
        raise SourceVanished(f"there is no {source}", hint="name a file or folder of events with --from", path=source)
    if source.is_file():
        return source
    files = sorted(path for path in source.rglob("*") if path.is_file() and not path.name.startswith((".", "_")))
    if not files:
        raise SourceVanished(f"the folder {source} is empty", hint="name one with files of events", path=source)
    return files[0]


def _parquet(file: Path) -> pa.Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as whole:
        batches = []
        for batch in whole.iter_batches(ROWS):
            batches.append(batch)
            if sum(one.num_rows for one in batches) >= ROWS:
                break
        return pa.Table.from_batches(batches, schema=whole.schema_arrow)


def _csv(file: Path) -> pa.Table:
    from pyarrow import csv

    parse = csv.ParseOptions(invalid_row_handler=lambda _: "skip")
    convert = csv.ConvertOptions(strings_can_be_null=True)
    read = csv.ReadOptions(block_size=BYTES)
    with csv.open_csv(file, read_options=read, parse_options=parse, convert_options=convert) as reader:
        table = pa.Table.from_batches([reader.read_next_batch()]).slice(0, ROWS)
    return pa.table({name: _numbers(table.column(name).combine_chunks()) for name in table.column_names})


def _numbers(column: pa.Array) -> pa.Array:
    """Text as numbers, if most of it is: one odd field makes Arrow take a column of numbers for text."""
    if not pa.types.is_string(column.type):
        return column
    fits = pc.fill_null(pc.match_substring_regex(column, NUMBER), False)
    count = pc.sum(fits).as_py() or 0
    if not count or count < MOST * (len(column) - column.null_count):
        return column
    kept = pc.utf8_trim_whitespace(pc.if_else(fits, column, None))
    try:
        return kept.cast(pa.int64())
    except pa.ArrowInvalid:
        return kept.cast(pa.float64())


def _json(file: Path) -> pa.Table:
    with file.open("rb") as lines:
        rows: list[dict[str, Any]] = []
        for line in lines.readlines(BYTES)[:ROWS]:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    """Of the type that most values have, the others missing; as text where no type has most."""
    kinds = Counter(_kind(value) for value in values if value is not None)
    if not kinds:
        return pa.nulls(len(values))
    kind, count = kinds.most_common(1)[0]
    if count >= MOST * kinds.total():
        kept = [value if _kind(value) == kind else None for value in values]
        if kind == "object":
            return _objects(kept)
        try:
            return pa.array(kept)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            values = kept
    return pa.array([None if value is None else json.dumps(value) for value in values])


def _objects(values: list[Any]) -> pa.Array:
    names = list(dict.fromkeys(name for value in values if value is not None for name in value))
    fields = [_column([None if value is None else value.get(name) for value in values]) for name in names]
    return pa.StructArray.from_arrays(fields, names, mask=pa.array([value is None for value in values]))


def _kind(value: Any) -> str:
    kinds = {bool: "boolean", int: "number", float: "number", str: "text", dict: "object", list: "list"}
    return kinds.get(type(value), "")
