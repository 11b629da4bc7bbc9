"""Encoding: the raw values of one feature -> its encoded column. Pure functions on Arrow arrays.

    id, category   v -> id(name, text of v)                                           int64
    bucket         v -> id(name, k),  k = number of edges <= v                        int64
    time           v -> id(name, part of v on the clocks of time_zone)                int64
    ids            [v, …] -> [id(name, text of v), …], the first `max`; null -> []    list<int64>
    number         v -> v | log(1 + v), in float64, then float32; missing -> null     float32

Missing is null or NaN; a missing value of the first three has the null id. A *misfit* is a value that has no encoding:
of the wrong type, infinite, out of range (log1p of -1 or less; a number that float32 cannot hold), a time that cannot
be read. `misfits` finds them, so that validation can put their events into quarantine; `encode_values` raises
WrongType.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace import ids, times
from headrace.column import is_list, is_number, is_text, is_whole_decimal, plain
from headrace.errors import MissingFeature, WrongType
from headrace.features import Feature, nearest

LIST_OF_IDS: Final = pa.list_(pa.int64())
FLOAT32_MAX: Final = float(np.finfo(np.float32).max)

Mask = npt.NDArray[np.bool_]


def column_type(feature: Feature) -> pa.DataType:
    """Arrow type of the encoded column."""
    return {"number": pa.float32(), "ids": LIST_OF_IDS}.get(feature.kind, pa.int64())


def raw_values(feature: Feature, events: pa.Table) -> pa.Array:
    """The feature's raw values [n] in a table of events. MissingFeature if the events have no such column or field."""
    column, rest = feature.path[0], feature.path[1:]
    if column not in events.column_names:
        raise _missing(feature, column, events.column_names)
    values = plain(events.column(column))
    for field in rest:
        if pa.types.is_null(values.type):
            break
        fields = [values.type.field(i).name for i in range(values.type.num_fields)]
        if not pa.types.is_struct(values.type) or field not in fields:
            raise _missing(feature, field, fields)
        values = plain(pc.struct_field(values, field))
    return values


def encode_values(feature: Feature, values: pa.Array) -> pa.Array:
    """Encoded column [n] of plain raw values [n]; not for crosses, which come from ids (`headrace.ids.cross_of`)."""
    wrong = misfits(feature, values)
    if wrong is not None:
        raise _wrong(feature, values, *wrong)
    return _ENCODERS[feature.kind](feature, values)


def requested(feature: Feature, kind: pa.DataType) -> Feature:
    """The feature as a request gives it: a time may come as ISO 8601 text, whatever its unit in the events."""
    return replace(feature, time_unit="iso") if feature.kind == "time" and is_text(kind) else feature


def misfits(feature: Feature, values: pa.Array) -> tuple[str, Mask] | None:
    """Reason and mask [n] of the values that have no encoding; None when all have one.

    Reasons: wrong_type, infinite, out_of_range, bad_time.
    """
    if not _fits(feature, values.type):
        wrong = values.is_valid().to_numpy(zero_copy_only=False)
        return ("wrong_type", wrong) if wrong.any() else None
    if feature.kind == "time":
        read = times.parse_time(values, feature.time_unit, feature.source_zone)
        return _first(("bad_time", _mask(pc.and_(values.is_valid(), pc.is_null(read)))))
    infinite = _infinite(values)
    if infinite.any():
        return "infinite", infinite
    if feature.kind == "number":
        return _first(("out_of_range", _out_of_range(feature, values)))
    return None


def _first(reason: tuple[str, Mask]) -> tuple[str, Mask] | None:
    return reason if reason[1].any() else None


def _infinite(values: pa.Array) -> Mask:
    """Which values are infinite numbers, or lists that hold one."""
    rows = np.zeros(len(values), np.bool_)
    if pa.types.is_floating(values.type):
        rows |= _mask(pc.is_inf(values))
    elif is_list(values.type) and pa.types.is_floating(values.type.value_type):
        rows[pc.list_parent_indices(values).to_numpy()[_mask(pc.is_inf(pc.list_flatten(values)))]] = True
    return rows


def _out_of_range(feature: Feature, values: pa.Array) -> Mask:
    numbers = _numbers(values)
    with np.errstate(invalid="ignore"):
        wrong = np.abs(numbers) > FLOAT32_MAX
        if feature.transform == "log1p":
            wrong |= numbers <= -1.0
    return wrong


def _fits(feature: Feature, kind: pa.DataType) -> bool:
    if pa.types.is_null(kind):
        return True
    if feature.kind in ("number", "bucket"):
        return is_number(kind) or bool(pa.types.is_decimal(kind))
    if feature.kind == "time":
        return is_number(kind) or is_text(kind) or bool(pa.types.is_timestamp(kind))
    if feature.kind == "ids":
        return is_list(kind) and _fits(Feature(feature.name, "id"), kind.value_type)
    return is_number(kind) or is_text(kind) or is_whole_decimal(kind) or bool(pa.types.is_boolean(kind))


def _mask(flags: pa.Array) -> Mask:
    mask: Mask = pc.fill_null(flags, False).to_numpy(zero_copy_only=False)
    return mask


def _numbers(values: pa.Array) -> npt.NDArray[np.float64]:
    """float64 [n], NaN where missing."""
    if pa.types.is_integer(values.type):  # 2^63 and the like lose digits, as they do in a float32
        values = values.cast(pa.float64(), safe=False)
    numbers: npt.NDArray[np.float64] = values.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    return numbers


def _encode_id(feature: Feature, values: pa.Array) -> pa.Array:
    return pa.array(ids.ids_of(feature.name, values))


def _encode_bucket(feature: Feature, values: pa.Array) -> pa.Array:
    """id(k), k = number of edges <= v: edges 1, 6 make the buckets v < 1, 1 <= v < 6, 6 <= v."""
    numbers = _numbers(values)
    k = np.searchsorted(np.asarray(feature.edges, np.float64), numbers, side="right")
    return _encode_id(feature, pa.array(k, mask=np.isnan(numbers)))


def _encode_time(feature: Feature, values: pa.Array) -> pa.Array:
    read = times.parse_time(values, feature.time_unit, feature.source_zone)
    parts = times.local_parts(read.fill_null(0).to_numpy(), feature.part, feature.time_zone)
    return _encode_id(feature, pa.array(parts, mask=_mask(read.is_null())))


def _encode_ids(feature: Feature, values: pa.Array) -> pa.Array:
    if pa.types.is_null(values.type):
        return pa.array([[]] * len(values), LIST_OF_IDS)
    values = values.cast(pa.large_list(values.type.value_type))
    first = pc.list_slice(values, 0, feature.max)  # null stays null
    lengths = pc.fill_null(pc.list_value_length(first), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), _encode_id(feature, pc.list_flatten(first)))


def _encode_number(feature: Feature, values: pa.Array) -> pa.Array:
    numbers = _numbers(values)
    if feature.transform == "log1p":
        numbers = np.log1p(numbers)
    return pa.array(numbers.astype(np.float32), mask=np.isnan(numbers))


_ENCODERS: Final[dict[str, Any]] = {
    "id": _encode_id,
    "category": _encode_id,
    "bucket": _encode_bucket,
    "time": _encode_time,
    "ids": _encode_ids,
    "number": _encode_number,
}

_EXPECTED: Final = {
    "number": "numbers",
    "bucket": "numbers",
    "time": "times",
    "ids": "lists of strings, integers or booleans",
}


def _missing(feature: Feature, name: str, names: list[str]) -> MissingFeature:
    return MissingFeature(
        f"feature '{feature.name}' reads '{feature.place}', but the events have no '{name}'",
        hint=nearest(name, names) or f"they have: {', '.join(names[:20]) or 'nothing'}",
        feature=feature.name,
        column=feature.place,
    )


def _wrong(feature: Feature, values: pa.Array, reason: str, rows: Mask) -> WrongType:
    row = int(np.flatnonzero(rows)[0])
    value = repr(values[row].as_py())[:80]
    return WrongType(
        f"feature '{feature.name}' ({feature.kind}, from '{feature.place}') cannot take {value}: {_SAY[reason]}",
        hint=f"{feature.kind} takes {_EXPECTED.get(feature.kind, 'strings, integers or booleans')}; "
        f"here '{feature.place}' is {values.type}",
        feature=feature.name,
        row=row,
        reason=reason,
        type=str(values.type),
    )


_SAY: Final = {
    "wrong_type": "it has the wrong type",
    "infinite": "it is infinite",
    "out_of_range": "it is out of range",
    "bad_time": "it is not a time that can be read",
}
