"""Which value of a refused event was the reason, found by looking at its bytes once more."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.encode import misfits
from headrace.errors import HeadraceError
from headrace.features import Feature
from headrace.place import path_of
from pipelines.csvlines import MISSING
from pipelines.sources.base import Lines, Span
from pipelines.sources.pattern import source_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headrace.config import Settings

TIMES = ("missing_time", "bad_time", "time_without_unit", "time_range", "future")
ESCAPED = re.compile(r"\\x[89a-f][0-9a-f]")
"""A byte that is no UTF-8, as `pipelines.rows` shows it."""
SHOWN = 60
"""Letters of a value."""


class Culprits:
    """Finds them for the events of one stream, whose source is at `place` (None: not on this machine)."""

    def __init__(self, settings: Settings, stream: str, place: Path | None) -> None:
        self._stream = own = settings.streams[stream]
        self._place = place
        self._headers: dict[str, Lines | None] = {}
        self._features = [
            Feature("time", "time", path_of(own.time), time_unit=own.time_unit, source_zone=own.time_zone)
        ]
        if own.label is not None:
            self._features.append(Feature("label", "number", path_of(own.label)))
        if stream == "impression":
            self._features += [feature for feature in settings.schema().features if feature.path]

    def of(self, reason: str, raw: bytes | None, file: str) -> tuple[str, str]:
        """Name and value such as `("price", '"cheap"')`, empty where it cannot be told. file: its name there."""
        own, header = self._stream, self._header(file)
        event = _event(raw or b"", header)
        if event is None:
            return "", ""
        plain = {"label_range": own.label, "missing_label": own.label, "missing_id": own.id}
        if reason == "wrong_type" and not isinstance(value_at(event, path_of(own.id)), str | int | None):
            plain["wrong_type"] = own.id
        name = own.time if reason in TIMES else plain.get(reason)
        if reason == "utf8":
            places = [(one,) for one in (own.id, own.time)] + [feature.path for feature in self._features]
            path = next((path for path in places if ESCAPED.search(str(value_at(event, path)))), None)
            return (".".join(path), _shown(value_at(event, path))) if path else ("", "")
        wrong = () if name else (f for f in self._features if not _fits(f, value_at(event, f.path), text=bool(header)))
        for feature in wrong:
            return feature.place, _shown(value_at(event, feature.path))
        return (name, _shown(value_at(event, path_of(name)))) if name else ("", "")

    def _header(self, file: str) -> Lines | None:
        """The first bytes of a CSV file, with its columns; None where lines are JSON."""
        if self._place is None:
            return None
        if file not in self._headers:
            self._headers[file] = None
            with contextlib.suppress(HeadraceError, OSError):
                block = source_of(self._stream.source, self._stream.format).read(Span(file, 0, 1, 0, 1))
                self._headers[file] = block if isinstance(block, Lines) and block.header else None
        return self._headers[file]


def _event(raw: bytes, of: Lines | None) -> dict[str, Any] | None:
    try:
        text = raw.decode("utf-8")
        if of is None:
            found = json.loads(text)
        else:
            found = dict(zip(of.header or (), next(csv.reader([text], delimiter=of.separator)), strict=False))
    except (ValueError, StopIteration, csv.Error):
        return None
    return found if isinstance(found, dict) else None


def value_at(event: dict[str, Any], path: Sequence[str]) -> Any:
    """The value at a path, None where there is none.

    >>> value_at({"user": {"age": 7}}, ("user", "age"))
    7
    """
    value: Any = event
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _fits(feature: Feature, value: Any, *, text: bool) -> bool:
    """text: values came as text, as those of CSV do."""
    if value is None or (feature.name == "label" and str(value).lower() in ("true", "false")):
        return True
    if text and value in ("", *MISSING.to_pylist()):
        return True
    if text and (
        feature.kind in ("number", "bucket") or (feature.kind == "time" and feature.time_unit not in (None, "iso"))
    ):
        try:
            value = float(value)
        except ValueError:
            return False
    try:
        return misfits(feature, pa.array([value])) is None
    except (HeadraceError, pa.ArrowException, OverflowError):
        return False


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
