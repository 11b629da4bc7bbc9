"""A dashboard against Grafana's own schema, as the classes of grafana-foundation-sdk have it (Grafana 11.6).

Those classes take what they know and drop the rest in silence; this is strict. A field that a class does not give back
is unknown; a value must have the type that the class declares, and an enum one of its words; a panel or query must be
of a kind that Grafana has.
"""

from __future__ import annotations

import enum
import types
import typing
from typing import Any

from grafana_foundation_sdk.cog import plugins, runtime
from grafana_foundation_sdk.models import dashboard

plugins.register_default_plugins()


def faults(board: dict[str, Any]) -> list[str]:
    """Where and why a dashboard is not what Grafana takes; empty = it is."""
    found = list(_object(dashboard.Dashboard.from_json(board), board, "dashboard"))
    for panel in board.get("panels", []):
        place = f"panel {panel.get('title')!r}"
        if panel["type"] == "row":
            continue
        if runtime.panelcfg_config(panel["type"]) is None:
            found.append(f"{place}: Grafana has no panel {panel['type']!r}")
        source = panel.get("datasource", {}).get("type")
        if source not in runtime.Runtime().dataquery_variants:
            found.append(f"{place}: Grafana has no data source {source!r}")
    return found


def _object(one: Any, given: Any, place: str) -> typing.Iterator[str]:
    if not isinstance(given, dict):
        yield f"{place} = {given!r}: must be an object"
        return
    taken = one.to_json()
    for name in given:
        if name not in taken and given[name] is not None:
            yield f"{place}: there is no field {name!r}"
    hints = typing.get_type_hints(type(one))
    for attribute, value in vars(one).items():
        name = next((key for key, item in taken.items() if item is value and key in given), None)
        if name is not None:
            yield from _value(value, hints.get(attribute, object), given[name], f"{place}.{name}")


def _value(value: Any, hint: Any, given: Any, place: str) -> typing.Iterator[str]:
    """Faults of a value that has a declared type; of a union, those of the member that it fits best."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        tries = [list(_value(value, one, given, place)) for one in inner]
        yield from min(tries, key=len)
    elif origin is typing.Literal:
        if value not in inner:
            yield f"{place} = {value!r}: must be one of {inner}"
    elif origin is list:
        yield from _list(value, inner[0], given, place)
    elif origin is dict:
        for key, item in value.items() if isinstance(value, dict) else [("", value)]:
            yield from _value(item, inner[1], given.get(key) if isinstance(given, dict) else given, f"{place}.{key}")
    elif hasattr(value, "to_json"):
        if hint is not object and isinstance(hint, type) and not isinstance(value, hint):
            yield f"{place}: must be {hint.__name__}"
        yield from _object(value, given, place)
    else:
        yield from _plain(value, hint, place)


def _list(value: Any, inner: Any, given: Any, place: str) -> typing.Iterator[str]:
    if not isinstance(value, list):
        yield f"{place} = {value!r}: must be a list"
        return
    for number, item in enumerate(value):
        yield from _value(item, inner, given[number], f"{place}[{number}]")


def _plain(value: Any, hint: Any, place: str) -> typing.Iterator[str]:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value not in [one.value for one in hint]:
            yield f"{place} = {value!r}: must be one of {[one.value for one in hint]}"
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{place} = {value!r}: must be a number"
    elif hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            yield f"{place} = {value!r}: must be a whole number"
    elif isinstance(hint, type) and hint is not object and not isinstance(value, hint):
        yield f"{place} = {value!r}: must be {hint.__name__}"
