"""Avro values -> Arrow arrays, by the schema of the writer. fastavro gives them without logical types.

boolean, int, long, float, double    bool, int64, float64
string, enum; bytes, fixed           string, as written (it may not be UTF-8); binary
record, map; array                   struct (of all keys); list
union with null                      its other type
union of numbers; of text            int64, or float64 where one of them has places; string
timestamp-*, local-timestamp-*       timestamp with zone UTC, without a zone
date, time-*                         date32, time32, time64
decimal                              decimal256
uuid                                 string, or Arrow's uuid where it is 16 bytes
any other union                      what Arrow makes of the values; WrongType where they have several types
"""

from __future__ import annotations

from decimal import Context, Decimal
from itertools import accumulate
from typing import Any

import fastavro
import pyarrow as pa

from headrace.errors import WrongType

__all__ = ["Types"]

EXACT = 1 << 53  # integers beyond lose digits as a float
DIGITS = 76
UUID_BYTES = 16
WHOLE = {"int", "long"}
NUMBERS = WHOLE | {"float", "double"}
TEXT = {"string", "enum"}
SIMPLE = {
    "boolean": pa.bool_(),
    "int": pa.int64(),
    "long": pa.int64(),
    "float": pa.float64(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "fixed": pa.binary(),
}
UNITS = {"millis": "ms", "micros": "us", "nanos": "ns"}
TIMES = {
    **{f"timestamp-{name}": pa.timestamp(unit, "UTC") for name, unit in UNITS.items()},
    **{f"local-timestamp-{name}": pa.timestamp(unit) for name, unit in UNITS.items()},
    "time-micros": pa.time64("us"),
}
SHORT_TIMES = {"date": pa.date32(), "time-millis": pa.time32("ms")}


class Types:
    """The types of one schema. `bare`: the same without logical types, for fastavro to read with."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._named: dict[str, Any] = {}
        self._schema: Any = fastavro.parse_schema(schema, self._named, _force=True)
        self.bare = _bare(schema)
        self.names = [str(field["name"]) for field in self._schema["fields"]]

    def column(self, records: list[dict[str, Any]], name: str, file: str) -> pa.Array:
        """The values of a field [n]. WrongType: of several types."""
        kind = next(field["type"] for field in self._schema["fields"] if field["name"] == name)
        try:
            return self._array([record[name] for record in records], kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise WrongType(
                f"'{name}' has values of several types in {file}",
                hint="write it as one type: a union may add null, or be one of numbers",
                column=name,
            ) from error

    def _array(self, values: list[Any], schema: Any) -> pa.Array:
        if all(value is None for value in values):
            return pa.nulls(len(values))
        kind = self._known(schema)
        if isinstance(kind, list):
            return self._union(values, [self._known(one) for one in kind if one != "null"])
        made = _logical(values, kind) if _is_logical(kind) else None
        if made is not None:
            return made
        match _name(kind):
            case "record" | "error":
                return self._struct(values, {field["name"]: field["type"] for field in kind["fields"]})
            case "map":
                return self._struct(values, dict.fromkeys(_keys(values), kind["values"]))
            case "array":
                return self._list(values, kind["items"])
            case "string" | "enum":
                return _text(values)
            case name:
                return pa.array(values, SIMPLE[name])

    def _known(self, schema: Any) -> Any:
        """Names resolved, and a type that is wrapped for no reason unwrapped."""
        while isinstance(schema, str) and schema in self._named:
            schema = self._named[schema]
        while isinstance(schema, dict) and isinstance(schema["type"], dict | list):
            schema = schema["type"]
        return schema

    def _union(self, values: list[Any], branches: list[Any]) -> pa.Array:
        """`branches`: its types but null, as `_known` gives them."""
        if len(branches) == 1:
            return self._array(values, branches[0])
        names, plain = {_name(one) for one in branches}, not any(map(_is_logical, branches))
        if plain and names <= WHOLE:
            return pa.array(values, pa.int64())
        if plain and names <= NUMBERS and _exact(values):
            return pa.array([None if value is None else float(value) for value in values], pa.float64())
        if names <= TEXT or all(isinstance(value, str | None) for value in values):
            return _text(values)
        return pa.array(values)

    def _list(self, values: list[Any], items: Any) -> pa.Array:
        lengths = [0 if value is None else len(value) for value in values]
        flat = self._array([item for value in values if value is not None for item in value], items)
        offsets = pa.array([0, *accumulate(lengths)], pa.int32())
        return pa.ListArray.from_arrays(offsets, flat, mask=_missing(values))

    def _struct(self, values: list[Any], fields: dict[str, Any]) -> pa.Array:
        arrays = [
            self._array([None if value is None else value.get(name) for value in values], type_)
            for name, type_ in fields.items()
        ]
        return pa.StructArray.from_arrays(arrays, list(fields), mask=_missing(values))


def _name(kind: Any) -> str:
    """Of a type that is no union."""
    return str(kind["type"] if isinstance(kind, dict) else kind)


def _is_logical(kind: Any) -> bool:
    return isinstance(kind, dict) and "logicalType" in kind


def _keys(maps: list[dict[str, Any] | None]) -> list[str]:
    return sorted({name for value in maps if value is not None for name in value})


def _missing(values: list[Any]) -> pa.Array:
    return pa.array([value is None for value in values])


def _exact(values: list[Any]) -> bool:
    """Whether each is the same as a float."""
    return all(abs(value) <= EXACT for value in values if isinstance(value, int))


def _text(values: list[str | None]) -> pa.Array:
    """Text as it was written: bytes that are not UTF-8 came as surrogates."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        raw = [None if value is None else value.encode("utf-8", "surrogateescape") for value in values]
        return pa.array(raw, pa.binary()).view(pa.string())


def _logical(values: list[Any], kind: dict[str, Any]) -> pa.Array | None:
    """None: a logical type that is not known; the values are what they are without it."""
    logical, base = kind["logicalType"], kind["type"]
    if logical in TIMES and base == "long":
        return pa.array(values, pa.int64()).view(TIMES[logical])
    if logical in SHORT_TIMES and base == "int":
        return pa.array(values, pa.int32()).view(SHORT_TIMES[logical])
    if logical == "decimal" and base in ("bytes", "fixed"):
        scale, exact = int(kind.get("scale", 0)), Context(prec=DIGITS)
        numbers = [None if value is None else int.from_bytes(value, "big", signed=True) for value in values]
        decimals = [None if value is None else Decimal(value).scaleb(-scale, exact) for value in numbers]
        return pa.array(decimals, pa.decimal256(DIGITS, scale))
    if logical == "uuid" and base == "fixed" and kind["size"] == UUID_BYTES:
        return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(UUID_BYTES)))
    return None


def _bare(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if key not in ("logicalType", "default")}
    return [_bare(one) for one in schema] if isinstance(schema, list) else schema
