"""JSON lines -> typed columns: a whole block by Arrow where that is safe, record by record where it is not.

**Block.** Each needed column has an explicit type, taken from the first records of the block. Lines of one shape are
cut at their commas (`pipelines.jsonshape`); others are parsed by Arrow, whose result counts only if it found exactly
one object per line, each line starting with `{` and ending with `}` (objects follow each other directly only at the top
level, so then each line is one object), and text is UTF-8. No column of ids may hold floats that are infinite, not
numbers, or beyond 2^53.

**Record.** A block that fails is halved until few lines are left; these are parsed one by one: needed keys at most
once, no coercion between types. So one bad record costs a few dozen strict parses, and its neighbours never notice.
Where a block passes, its records would have passed too, with the same ids and numbers: cuts between ticks change
nothing.

(pyarrow 25 crashes on a block that begins with `null`, and reads `{…}null{…}` as three rows: the checks on the lines
come first, the count comes after.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from pipelines.events import RAW_BYTES, Columns, Limits, Refused, Stream
from pipelines.jsonrecord import EXACT, Refusal, load, row_of
from pipelines.jsonshape import shaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headrace.features import Feature
    from headrace.place import Path
    from pipelines.lines import LineIndex

__all__ = ["parse_json"]

LEAF = 64
SAMPLE = 16
OPEN, CLOSE = ord("{"), ord("}")
DEEP = 500

IDS = frozenset({pa.string(), pa.int64()})
NUMBERS = frozenset({pa.int64(), pa.float64()})
SUITABLE = {"number": NUMBERS, "bucket": NUMBERS, "time": IDS}

Piece = tuple[Columns, np.ndarray]


def parse_json(stream: Stream, limits: Limits, index: LineIndex) -> tuple[list[Piece], list[Refused]]:
    """(typed columns with the line number of each row, refused records)."""
    lengths = index.ends - index.starts
    long = lengths > limits.record_bytes
    refused = [_refused(index, i, "too_long") for i in np.flatnonzero(long).tolist()]
    plain = ~long & ~_maybe_deep(index, lengths)
    found = [part for low, high in index.stretches(plain) for part in _parse(stream, index, low, high)]
    found += [_records(stream, index, i, i + 1) for i in np.flatnonzero(~long & ~plain).tolist()]
    return [piece for piece, _ in found if piece is not None], refused + [one for _, bad in found for one in bad]


def _maybe_deep(index: LineIndex, lengths: np.ndarray) -> np.ndarray:
    """Records with so many brackets that Arrow, which has no limit, and the strict parser might differ."""
    deep = lengths > 2 * DEEP
    for i in np.flatnonzero(deep).tolist():
        line = index.line(i)
        deep[i] = line.count(b"{") + line.count(b"[") > DEEP
    return deep


def _parse(stream: Stream, index: LineIndex, low: int, high: int) -> Iterator[tuple[Piece | None, list[Refused]]]:
    columns = _block(stream, index, low, high)
    if columns is not None:
        yield (columns, np.arange(low, high)), []
    elif high - low <= LEAF:
        yield _records(stream, index, low, high)
    else:
        middle = (low + high) // 2
        yield from _parse(stream, index, low, middle)
        yield from _parse(stream, index, middle, high)


def _block(stream: Stream, index: LineIndex, low: int, high: int) -> Columns | None:
    """The columns of lines `[low, high)`, or None if they must be looked at one by one."""
    if not ((index.raw[index.starts[low:high]] == OPEN) & (index.raw[index.ends[low:high] - 1] == CLOSE)).all():
        return None
    types = _types(stream, index, low, high)
    if types is None:
        return None
    data = index.span(low, high)
    table = shaped(data, high - low, index.line(low), types) or _parsed(data, high - low, types)
    if table is None:
        return None
    columns = Columns.of(stream, table)
    ids = [columns.features[f.name] for f in stream.features if f.kind in ("id", "category", "ids")]
    return columns if all(_exact(column) for column in ids) else None


def _parsed(data: memoryview, rows: int, types: pa.Schema) -> pa.Table | None:
    """The columns of so many lines by Arrow's JSON parser; None if it finds anything else."""
    try:
        table = pj.read_json(
            pa.BufferReader(pa.py_buffer(data)),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pj.ParseOptions(explicit_schema=types, unexpected_field_behavior="ignore"),
        )
        if table.num_rows != rows:
            return None
        table.validate(full=True)  # text is UTF-8
    except pa.ArrowInvalid:
        return None
    return table


def _exact(column: pa.Array) -> bool:
    """False for a column of ids that was read as floats and may have lost digits."""
    if pa.types.is_list(column.type):
        column = column.flatten()
    if not pa.types.is_floating(column.type):
        return True
    values = column.drop_null().to_numpy()
    return bool((np.abs(values) < EXACT).all())


def _types(stream: Stream, index: LineIndex, low: int, high: int) -> pa.Schema | None:
    """A type for each needed column; None if the first records do not tell."""
    sample = []
    for i in range(low, min(high, low + SAMPLE)):
        try:
            sample.append(load(index.line(i)))
        except Refusal:
            return None
    kinds = {path: _type_at(stream, path, [_value_at(record, path) for record in sample]) for path in stream.paths}
    if None in kinds.values():
        return None
    kind = _struct(kinds)
    if kind is None or not _suits(stream, kinds):
        return None
    return pa.schema(list(kind))


def _type_at(stream: Stream, path: Path, values: list[Any]) -> pa.DataType | None:
    """The type of what stands at a path, by its uses and by some of its values."""
    if path == stream.time_path:
        return _time_type(stream.time_unit, values)
    used = {stream.id_path, *stream.where_paths}
    none = all(value is None for value in values)
    if path == stream.label_path and path not in used:
        return pa.float64() if none else _type_of(values)  # those with one come later: a shared source begins without
    kinds = {feature.kind for feature in stream.features if feature.path == path}
    if kinds and kinds <= {"number", "bucket"} and path not in used:
        return pa.float64()
    if "ids" in kinds and none:
        return pa.list_(pa.string())
    return _type_of(values)


def _suits(stream: Stream, kinds: Mapping[Path, pa.DataType]) -> bool:
    """Whether every use of a column can take its type."""
    uses = [(kinds[stream.id_path], IDS)]
    if stream.label_path:
        uses.append((kinds[stream.label_path], NUMBERS | {pa.bool_(), pa.string()}))
    for feature in stream.features:
        if feature.path:
            kind = kinds[feature.path]
            if feature.kind == "ids":
                kind = kind.value_type if pa.types.is_list(kind) else None
            uses.append((kind, SUITABLE.get(feature.kind, IDS | NUMBERS | {pa.bool_()})))
    return all(kind in suitable for kind, suitable in uses)


def _struct(kinds: Mapping[Path, pa.DataType]) -> pa.StructType | None:
    """The object that has all these paths; None if one of them leads into another."""
    fields = {}
    for name in sorted({path[0] for path in kinds}):
        inside = {path[1:]: kind for path, kind in kinds.items() if path[0] == name}
        kind = inside.get(())
        if kind is not None and len(inside) > 1:
            return None
        kind = kind if kind is not None else _struct(inside)
        if kind is None:
            return None
        fields[name] = kind
    return pa.struct(list(fields.items()))


def _value_at(record: Mapping[str, Any], path: Path) -> Any:
    value: Any = record
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _type_of(values: list[Any]) -> pa.DataType | None:
    """Arrow type of some JSON values; text when all are null, None when they differ."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.string()
    if kinds == {int, float}:
        return pa.float64()
    if len(kinds) > 1:
        return None
    kind = kinds.pop()
    if kind is list:
        inner = _type_of([item for value in values if value for item in value])
        return None if inner is None else pa.list_(inner)
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}.get(kind)


def _records(stream: Stream, index: LineIndex, low: int, high: int) -> tuple[Piece | None, list[Refused]]:
    """Lines `[low, high)` one by one."""
    rows: list[dict[str, Any]] = []
    lines, refused = [], []
    for i in range(low, high):
        line = index.line(i)
        if not line.strip():
            continue
        try:
            rows.append(row_of(stream, load(line)))
            lines.append(i)
        except Refusal as refusal:
            refused.append(_refused(index, i, refusal.args[0]))
    return ((_columns(stream, rows), np.array(lines, np.int64)) if rows else None), refused


def _time_type(unit: str | None, values: Sequence[Any]) -> pa.DataType:
    """Of a column of times: text, integers, or floats where one of `values` is."""
    if unit in (None, "iso"):
        return pa.string()
    fractions = unit in ("s", "ms") and any(isinstance(value, float) for value in values)
    return pa.float64() if fractions else pa.int64()


def _columns(stream: Stream, rows: list[dict[str, Any]]) -> Columns:
    def column(key: str, kind: pa.DataType) -> pa.Array:
        return pa.array([row.get(key) for row in rows], kind)

    return Columns(
        mine=np.array(["mine" in row for row in rows]),
        id=column("id", pa.string()),
        time=column("time", _time_type(stream.time_unit, [row.get("time") for row in rows])),
        label=column("label", pa.float64()),
        features={f.name: column(f"{f.name}:", _feature_type(f)) for f in stream.features if f.path},
    )


def _feature_type(feature: Feature) -> pa.DataType:
    if feature.kind in ("number", "bucket"):
        return pa.float64()
    if feature.kind == "ids":
        return pa.list_(pa.string())
    if feature.kind == "time" and feature.time_unit not in (None, "iso"):
        return pa.float64() if feature.time_unit in ("s", "ms") else pa.int64()
    return pa.string()


def _refused(index: LineIndex, i: int, reason: str) -> Refused:
    line = index.line(i)
    return Refused(int(index.offsets[i]), reason, line[:RAW_BYTES], len(line))
