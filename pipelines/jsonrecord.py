"""One JSON record, strictly: needed keys at most once, no coercion between types, everything in range.

Values come out as Python objects of the type that the settings ask for; ids as their text (`headrace.ids`), so that a
column of them can hold strings, integers and booleans of different records side by side. What is not needed may be
anything that is JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.features import Feature
    from headrace.place import Path
    from pipelines.events import Stream

__all__ = ["EXACT", "Record", "Refusal", "load", "row_of"]

EXACT = float(1 << 53)  # floats beyond have lost digits
INT64 = 1 << 63


class Refusal(Exception):
    """Why one record is refused; `args[0]` is the reason code."""


class Record(dict[str, Any]):
    """A JSON object that remembers which keys came twice."""

    repeated: frozenset[str] = frozenset()


def _object(pairs: list[tuple[str, Any]]) -> Record:
    made = Record(pairs)
    if len(made) < len(pairs):
        made.repeated = frozenset(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    return made


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 20 else float(text)


def load(line: bytes) -> Record:
    """One JSON object. Raises Refusal."""
    try:
        record = _DECODER.decode(line.decode("utf-8", "surrogateescape"))
    except RecursionError:
        raise Refusal("too_deep") from None
    except ValueError:
        raise Refusal("malformed") from None
    if not isinstance(record, Record):
        raise Refusal("malformed")
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def row_of(stream: Stream, record: Record) -> dict[str, Any]:
    """The needed values of one record, ids as text; empty for a record of another stream. Raises Refusal."""
    if record.repeated & stream.columns:
        raise Refusal("duplicate_key")
    if not all(_has(record, path, value) for path, value in stream.where_paths.items()):
        return {}
    time = _at(record, stream.time_path)
    if stream.shared and time is None:
        return {}
    row: dict[str, Any] = {
        "mine": True,
        "id": _id(_at(record, stream.id_path)),
        "time": _time(time, stream.time_unit),
        "label": _number(_at(record, stream.label_path), boolean=True) if stream.label_path else None,
    }
    return {**row, **{f"{f.name}:": _value(f, record) for f in stream.features if f.path}}


def _at(record: Record, path: Path) -> Any:
    """What stands at a path, None where nothing does. Raises Refusal for what is no object on the way."""
    value: Any = record
    for name in path:
        if value is None:
            return None
        if not isinstance(value, Record):
            raise Refusal("wrong_type")
        if name in value.repeated:
            raise Refusal("duplicate_key")
        value = value.get(name)
    return value


def _has(record: Record, path: Path, wanted: Any) -> bool:
    """Whether that value stands there; where something else than an object is on the way, it does not."""
    try:
        value = _at(record, path)
    except Refusal as refusal:
        if refusal.args[0] == "wrong_type":
            return False
        raise
    return type(value) is type(wanted) and value == wanted


def _value(feature: Feature, record: Record) -> Any:
    value = _at(record, feature.path)
    if feature.kind in ("number", "bucket"):
        return _number(value)
    if feature.kind == "time":
        return _time(value, feature.time_unit)
    if feature.kind == "ids":
        if value is not None and not isinstance(value, list):
            raise Refusal("wrong_type")
        return None if value is None else [_text(item) for item in value]
    return _text(value)


def _id(value: Any) -> str | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        raise Refusal("wrong_type")
    return _text(value)


def _number(value: Any, *, boolean: bool = False) -> float | None:
    if value is None:
        return None
    if (isinstance(value, bool) and not boolean) or not isinstance(value, int | float):
        raise Refusal("wrong_type")
    return float(value)


def _time(value: Any, unit: str | None) -> str | float | None:
    """A time as it stands; fractions of seconds and milliseconds only (float64 holds them to the microsecond)."""
    if value is None:
        return None
    if unit in (None, "iso"):
        if not isinstance(value, str):
            raise Refusal("time_without_unit" if unit is None and isinstance(value, int | float) else "wrong_type")
        return _text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal("wrong_type")
    if abs(value) >= INT64 or (isinstance(value, float) and unit not in ("s", "ms") and not value.is_integer()):
        raise Refusal("bad_time")
    return int(value) if unit not in ("s", "ms") else value


def _text(value: Any) -> str | None:
    """Text of an id: strings as they are, integers and integral floats in decimal, true, false."""
    if value is None or isinstance(value, str):
        if value and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Refusal("utf8") from None
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, float):
        raise Refusal("wrong_type")
    if not abs(value) < EXACT:
        raise Refusal("infinite" if value != value or abs(value) == float("inf") else "out_of_range")
    return str(int(value)) if value.is_integer() else str(value)
