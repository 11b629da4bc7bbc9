"""A sample of a file or folder of events, typed as Arrow reads them: what `headrace init` looks at.

Lines that do not parse, and values of another type than nine of ten in their column, are passed over here (the pipeline
keeps them in quarantine), and so are files that are broken, if there is one that is not.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.column import plain
from headrace.errors import SettingsError, SourceError, SourceVanished

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.sources.base import Block, Lines

ROWS = 50_000
BYTES = 32 * 2**20
MOST = 0.9
VALUE = re.compile(r"\s*([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$|\d{4}-\d\d-\d\d)")
"""A number or a time, which no column is called."""
NUMBER = r"^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$"


def sample_of(source: str, format: str = "") -> pa.Table:  # noqa: A002  (the word of the settings)
    """About the first 50,000 events. SourceVanished, SourceError (not a kind of file that is read, or broken)."""
    from pipelines.sources.base import Broken, Lines, Rows

    tables, broken, rows = [], "", 0
    for block in _blocks(source, format):
        broken = block.file if isinstance(block, Broken) else broken
        if isinstance(block, Lines):
            tables.append(_json(block.data) if block.header is None else _csv(block))
        elif isinstance(block, Rows):
            tables.append(_rows(block.table))
        rows = sum(table.num_rows for table in tables)
        if rows >= ROWS:
            break
    if broken and not rows:
        raise SourceError(
            f"{source} cannot be read as the ending of {broken} says",
            hint="is its ending right, and is it whole?",
            file=broken,
        )
    if not rows:
        raise SourceError(f"{source} has no event that can be read", hint="name another file with --from", file=source)
    tables = [table for table in tables if table.num_rows]
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowTypeError:  # pieces that disagree on a type: the first one says it
        whole = tables[0]
    return whole.slice(0, ROWS).combine_chunks()


def _blocks(source: str, format: str) -> Iterator[Block]:  # noqa: A002
    """The pieces of a source, in order, up to about `BYTES`."""
    from pipelines.sources.pattern import source_of

    empty = True
    try:
        opened = source_of(source, format)
        for partition in opened.partitions():
            start = opened.first(partition)
            reach = opened.reach(partition, start, None, max_bytes=BYTES, drain=True)
            if reach is None:
                raise SourceError(f"{source} cannot be read at present", hint="is its store reachable?", file=source)
            empty = empty and reach.position == start
            for span in opened.spans(partition, start, reach.position, reach.identity):
                yield opened.read(span)
        if empty:
            raise SourceVanished(f"{source} is empty", path=source)
    except SourceVanished as error:
        raise SourceVanished(error.message, hint="name a file or folder of events", path=source) from error
    except SettingsError as error:
        raise SourceError(error.message, hint="rename the file, for example to events.jsonl; " + error.hint) from error


def _rows(table: pa.Table) -> pa.Table:
    """In plain columns, the first of each name, without the rows whose values are not what their type says."""
    from pipelines.sound import unsound

    columns: dict[str, pa.Array] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        columns.setdefault(name, plain(column))
    wrong = np.zeros(table.num_rows, bool)
    for values in columns.values():
        wrong |= unsound(values)
    return pa.table(columns).filter(pa.array(~wrong))


def _csv(block: Lines) -> pa.Table:
    from pyarrow import csv

    names = list(block.header or ())
    _require_names(names, block.file)
    if not block.data.strip() or not names:
        return pa.table({})
    parse = csv.ParseOptions(delimiter=block.separator, invalid_row_handler=lambda _: "skip")
    convert = csv.ConvertOptions(strings_can_be_null=True)
    read = csv.ReadOptions(block_size=BYTES, column_names=[str(number) for number in range(len(names))])
    data = io.BytesIO(block.data.decode("utf-8", "replace").encode())  # Arrow cannot skip a line that is not UTF-8
    try:
        table = csv.read_csv(data, read_options=read, parse_options=parse, convert_options=convert)
    except pa.ArrowInvalid as error:
        raise SourceError(
            f"{block.file} cannot be read as CSV: {error}", hint="is its ending right?", file=block.file
        ) from error
    columns = zip(names, table.columns, strict=True)  # several may have no name: one stands for them
    return pa.table({name: _numbers(column.combine_chunks()) for name, column in columns})


def _require_names(names: list[str], file: str) -> None:
    """SourceError where the first line of a CSV file is an event, WrongType where it has a name twice."""
    from pipelines.check import several

    for name in names:
        if VALUE.match(name):
            raise SourceError(
                f"the first line of {file} does not name the columns: '{name}' is a value",
                hint="begin each file with a line such as id,time,user; a column that is called so needs another name",
                file=file,
            )
        if name and names.count(name) > 1:
            raise several(file, name, "is meant")


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


def _json(data: bytes) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for line in data.split(b"\n"):
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
