"""Typed columns -> accepted and refused events: the same vectorised checks for every format.

In this order, the first that fails gives the reason: id, time, label, features. Records that `where` or a missing time
gives to another stream of the same source are passed over, not refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.column import is_number, is_text, is_whole_decimal
from headrace.encode import encode_values, misfits
from headrace.errors import MissingFeature, SettingsError, WrongType
from headrace.place import Path, nearest_place, place_of
from headrace.times import parse_time
from pipelines.events import RAW_BYTES, REASONS, Columns, Limits, Parsed, Refused, Stream

if TYPE_CHECKING:
    from headrace.features import Feature

__all__ = ["check", "paths_in", "require"]

Raw = Callable[[int], tuple[bytes, int]]

CODES = ("", *REASONS)
SHOWN = 40  # columns in a message


def check(stream: Stream, limits: Limits, columns: Columns, offsets: np.ndarray, raw: Raw) -> Parsed:
    """Judge every record. `offsets`: int64 [n], where each stands; `raw(i)`: first bytes and length of record i."""
    mine = columns.mine & ~_nulls(columns.time) if stream.shared else columns.mine
    times = _times(stream, columns.time)
    ids = _id_text(stream, columns.id)
    codes = _reasons(stream, limits, columns, times, ids)
    good = mine & (codes == 0)
    refused = []
    for row in np.flatnonzero(mine & (codes != 0)).tolist():
        data, size = raw(row)
        refused.append(Refused(int(offsets[row]), CODES[codes[row]], data[:RAW_BYTES], size))
    made = {"_id": ids, "_ts": times, "_offset": pa.array(offsets, pa.int64()), **columns.features}
    if stream.role == "feedback":
        made["_label"] = _labels(stream, columns)
    events = pa.table(made)
    return Parsed(
        (events if good.all() else events.filter(pa.array(good)),),
        tuple(refused),
        passed=int((~mine).sum()),
        unseen=frozenset(name for name, column in columns.features.items() if column.null_count == len(column)),
    )


def require(stream: Stream, fields: pa.Schema, file: str) -> None:
    """Raise unless a file with fixed columns has all that the stream needs, once. MissingFeature, WrongType."""
    twice = sorted(name for name in stream.columns if fields.names.count(name) > 1)
    if twice:
        raise several(file, twice[0], f"stream '{stream.name}' needs")
    missing = sorted(path for path in stream.paths if not _has(fields, path))
    if missing:
        path, known = missing[0], list(paths_in(fields))
        features = [f.name for f in stream.features if f.path == path]
        what = f"feature '{features[0]}'" if features else f"stream '{stream.name}'"
        word = "column" if len(path) == 1 else "field"
        raise MissingFeature(
            f"{file} has no {word} '{place_of(path)}', which {what} needs",
            hint=(f"{near} " if (near := nearest_place(path, known, feature=bool(features))) else "")
            + f"its columns are {_some(known) or 'none'}: correct the settings; a feature says its place with "
            '`column = "…"`, or `path = "a.b"` for a field inside one',
            feature=features[0] if features else "",
            column=place_of(path),
        )


def several(file: str, column: str, wanted: str) -> WrongType:
    """A name that is that of more than one column. wanted: what one of them is for."""
    return WrongType(
        f"{file} has several columns '{column}': which one {wanted} cannot be told",
        hint="write the file anew, each column under a name of its own",
        column=column,
    )


def paths_in(fields: Iterable[pa.Field]) -> Iterator[Path]:
    """The path of every value that typed columns hold: of objects, those inside."""
    for field in fields:
        if pa.types.is_struct(field.type) and field.type.num_fields:
            yield from ((field.name, *path) for path in paths_in(field.type))
        else:
            yield (field.name,)


def _has(fields: pa.Schema | pa.StructType, path: Path) -> bool:
    """Whether something stands at the path; a column that is null throughout may be anything."""
    at = fields.get_field_index(path[0])
    if at < 0:
        return False
    kind = fields.field(at).type
    return len(path) == 1 or pa.types.is_null(kind) or (pa.types.is_struct(kind) and _has(kind, path[1:]))


def _some(known: Sequence[Path]) -> str:
    names = [place_of(path) for path in known[:SHOWN]]
    return ", ".join(names) + (f" and {len(known) - SHOWN} more" if len(known) > SHOWN else "")


def _reasons(stream: Stream, limits: Limits, columns: Columns, times: pa.Array, ids: pa.Array) -> np.ndarray:
    """Number of the reason per record, 0 = accepted. Checks run from the last to the first: the first one wins."""
    reasons = np.zeros(len(times), np.uint8)
    for feature in stream.features:
        if feature.path:
            _feature_reasons(feature, columns.features[feature.name], reasons, nan_is_null=limits.nan_is_null)
    if stream.label and columns.label is not None:
        label = _as_float(stream, columns.label)
        reasons[~((label >= 0) & (label <= 1))] = CODES.index("label_range")
        reasons[_nulls(columns.label)] = CODES.index("missing_label")
    at = times.fill_null(0).to_numpy(zero_copy_only=False)
    reasons[at > limits.latest_us] = CODES.index("future")
    reasons[at < 0] = CODES.index("time_range")
    reasons[_nulls(times)] = CODES.index("bad_time")
    reasons[_nulls(columns.time)] = CODES.index("missing_time")
    reasons[_nulls(ids)] = CODES.index("missing_id")
    return reasons


def _feature_reasons(feature: Feature, column: pa.Array, reasons: np.ndarray, *, nan_is_null: bool) -> None:
    """Mark the records whose value has no encoding. A column of a type that no value can have is an error at once."""
    if not nan_is_null and pa.types.is_floating(column.type):
        reasons[np.asarray(pc.fill_null(pc.is_nan(column), False))] = CODES.index("infinite")
    misfit = misfits(feature, column)
    if misfit is None:
        return
    reason, rows = misfit
    if reason == "wrong_type":
        encode_values(feature, column)
    reasons[rows] = CODES.index(reason)


def _times(stream: Stream, column: pa.Array) -> pa.Array:
    """The times of events in us; what the settings do not say of them is asked for where it is missing."""
    try:
        return parse_time(column, stream.time_unit, stream.time_zone)
    except (SettingsError, WrongType) as error:
        where = f"[streams.{stream.name}] time = '{stream.time}'"
        raise type(error)(f"{where}: {error.message}", hint=error.hint, **error.context) from None


def _id_text(stream: Stream, column: pa.Array) -> pa.Array:
    """Event ids as text: strings as they are, integers in decimal; an empty text is no id."""
    kind = column.type
    if not (pa.types.is_integer(kind) or is_text(kind) or is_whole_decimal(kind) or pa.types.is_null(kind)):
        raise WrongType(
            f"the id of stream '{stream.name}' ('{stream.id}') is {kind}; ids of events are strings or integers",
            hint="choose another column, or write the id as text",
            column=stream.id,
        )
    text = column.cast(pa.string())
    empty = pc.fill_null(pc.equal(pc.binary_length(text), 0), False)
    return pc.if_else(empty, None, text) if pc.any(empty).as_py() else text


def _labels(stream: Stream, columns: Columns) -> pa.Array:
    if columns.label is None:
        return pa.nulls(len(columns.id), pa.float32())
    return pa.array(_as_float(stream, columns.label).astype(np.float32))


def _as_float(stream: Stream, column: pa.Array) -> np.ndarray:
    """Numbers or booleans as float64 [n]; null = NaN."""
    kind = column.type
    if not (pa.types.is_boolean(kind) or is_number(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)):
        raise WrongType(
            f"the label of stream '{stream.name}' ('{stream.label}') is {kind}; labels are numbers or booleans",
            hint="write it as 1 and 0, or true and false; or, where only positives are feedback ([label] mode = "
            f'"implicit"), pick those instead of `label`: where = {{ {stream.label} = "Y" }}',
            type=str(kind),
        )
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    values: np.ndarray = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return values


def _nulls(column: pa.Array) -> np.ndarray:
    if column.null_count == 0:
        return np.zeros(len(column), bool)
    return np.asarray(column.is_null()).astype(bool)
