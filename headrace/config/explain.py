"""Pydantic's errors in words: the place, the reason, the nearest name that exists."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, get_args

from headrace.errors import SettingsError
from headrace.features import nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]

_WORDS: Final = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text in quotes",
    "string_too_short": "must not be empty",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "may have letters, digits, '-', '_' and '.', at most 64",
    "value_error": "{error}",
}


_UNITS: Final[dict[str, tuple[str, dict[str, float]]]] = {
    "s": ("seconds", {"": 1, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}),
    "bytes": (
        "bytes",
        {"": 1, "b": 1, "kb": 1_000, "kib": 2**10, "mb": 10**6, "mib": 2**20, "gb": 10**9, "gib": 2**30},
    ),
}


def explain(error: ValidationError, model: type[BaseModel], file: str, prefix: str) -> SettingsError:
    """One SettingsError for all that pydantic found, with the hint of the first."""
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")  # a slip explains a gap
    found = [_sentence(detail, model) for detail in details]
    (message, hint), others = found[0], "; ".join(message for message, _ in found[1:])
    variable = prefix + "__".join(str(part) for part in details[0]["loc"]).upper()
    where = f"the environment variable {variable}" if variable in os.environ else file
    more = f" (and {len(found) - 1} more: {others})" if others else ""
    return SettingsError(f"{where}: {message}{more}", hint=hint, file=file)


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    """Message and hint."""
    location = detail["loc"]
    if detail["type"] == "extra_forbidden":
        return _unknown(location, model)
    if detail["type"] == "missing":
        return f"{place(location)} is missing", _missing_hint(location)
    message, hint = _wrong(detail)
    return message, hint or _default_hint(location, model)


def _unknown(location: Location, model: type[BaseModel]) -> tuple[str, str]:
    names = _names_at(model, location[:-1])
    word = str(location[-1])
    hint = nearest(word, names) or f"it may have {', '.join(names)}"
    if len(location) == 1:
        return f"there is no section [{word}]", hint.replace("it may have", "the sections are")
    return f"{_table(location[:-1])} has no setting '{word}'", hint


def _missing_hint(location: Location) -> str:
    if len(location) == 1:
        return f"add a section [{location[0]}]; `headrace init` writes a complete file"
    return f"add {location[-1]} = …"


def _wrong(detail: ErrorDetails) -> tuple[str, str]:
    context = {name: _plain(value) for name, value in detail.get("ctx", {}).items()}
    words = _WORDS.get(detail["type"], detail["msg"]).format(**context)
    value = detail["input"]
    shown = "" if isinstance(value, Mapping) else f" = {value!r}"
    choices = [choice.strip("'") for choice in str(context.get("expected", "")).replace(" or ", ", ").split(", ")]
    hint = nearest(value, choices) if isinstance(value, str) and "expected" in context else ""
    hint = hint or _unit_hint(str(detail["loc"][-1]), value)
    return f"{place(detail['loc'])}{shown}: {words}", hint


def _unit_hint(key: str, value: Any) -> str:
    """Of a span or a size that is written with its unit.

    >>> _unit_hint("attribution_s", "9d")
    'write seconds, as a number: attribution_s = 777600'
    """
    ending = key.rpartition("_")[2]
    if ending not in _UNITS or not isinstance(value, str):
        return ""
    name, sizes = _UNITS[ending]
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", value.strip())
    size = sizes.get(match[2].lower()) if match else None
    number = f"{float(match[1]) * size:.15g}" if match and size else "…"
    return f"write {name}, as a number: {key} = {number}"


def _default_hint(location: Location, model: type[BaseModel]) -> str:
    """The default of a key that has one, as what can be right."""
    name = str(location[-1])
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if field is not None:
            members = [field.annotation, *get_args(field.annotation)]
            model = next((kind for kind in members if hasattr(kind, "model_fields")), model)
    known = model.model_fields.get(name)
    example = None if known is None or known.is_required() else known.get_default(call_default_factory=True)
    if not isinstance(example, str | int | float) or example == "":
        return f"correct {name}, or remove it" if known is not None and not known.is_required() else f"correct {name}"
    return f"correct {name}, or remove it: the default is {name} = {json.dumps(example)}"


def _plain(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def place(location: Location) -> str:
    """Where a setting stands, as one would say it.

    >>> place(("label", "wait_s")), place(("features", "user", "kind")), place(("streams", "click", "id"))
    ('[label] wait_s', '[features] user: kind', '[streams.click] id')
    """
    parts: list[str] = []
    for part in location:
        if isinstance(part, int):
            parts[-1] += f"[{part}]"
        else:
            parts.append(part)
    if len(parts) == 1:
        return f"section [{parts[0]}]"
    if parts[0] == "streams" and len(parts) > 2:
        return f"[streams.{parts[1]}] {' '.join(parts[2:])}"
    if len(parts) > 2:
        return f"[{parts[0]}] {parts[1]}: {' '.join(parts[2:])}"
    return f"[{parts[0]}] {parts[1]}"


def _table(location: Location) -> str:
    if location[0] == "features" and len(location) > 1:
        return f"[features] {location[1]}"
    return f"[{'.'.join(str(part) for part in location)}]"


def _names_at(model: type[BaseModel], location: Location) -> list[str]:
    """The names that the table at `location` may have."""
    for part in location:
        field = model.model_fields.get(str(part))
        if field is not None:
            members = [field.annotation, *get_args(field.annotation)]
            model = next(kind for kind in members if hasattr(kind, "model_fields"))  # a section, or a table of them
    return list(model.model_fields)
