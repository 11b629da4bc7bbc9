"""Probe events in the format of the loop's own source files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from headrace import clock
from headrace.cli.sources import places
from headrace.config.sections import MARK
from headrace.errors import NotImplementedYet, SettingsError
from headrace.place import path_of
from pipelines.sources.files import FORMATS
from pipelines.sources.members import COMPRESSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from headrace.config import Settings


MOST_RECENT = 100


@dataclass(frozen=True)
class Place:
    """Where a stream's log grows, and its last whole events, newest first, which probes are made from."""

    stream: str
    source: Path
    format: str
    recent: tuple[dict[str, Any], ...] = ()

    @property
    def file(self) -> Path | None:
        """The newest file, None where there is none. A log that rotates has another one at every look: what is appended
        to the one before stands behind the cursor, and stops the pipeline."""
        file = _newest(self.source)
        if file is not None and not _takes_lines(file, self.format):
            raise _no_lines(self.stream, str(file))
        return file

    def append(self, events: Sequence[dict[str, Any]]) -> None:
        """One write of whole lines to the newest file: other writers' lines stay whole beside it."""
        file = self.file
        if file is None:
            raise _no_events(self.stream, self.source)
        text = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def places_of(settings: Settings) -> dict[str, Place]:
    """Of both streams. NotImplementedYet for sources that are not local JSON lines, SettingsError for empty ones."""
    found = {}
    for name, source in places(settings).items():
        stream = settings.streams[name]
        if source is None or MARK in stream.source:
            raise _no_lines(name, stream.source)
        place = Place(name, source, stream.format)
        file = place.file
        recent = () if file is None else tuple(islice(_last_events(file, stream.where), MOST_RECENT))
        if not recent:
            raise _no_events(name, source)
        found[name] = replace(place, recent=recent)
    return found


def _no_lines(stream: str, source: str) -> NotImplementedYet:
    return NotImplementedYet(
        f"[streams.{stream}] source = '{source}': probes are appended to local files of JSON lines only",
        hint="watch `headrace status`: freshness_s is there for every source",
        stream=stream,
    )


def _no_events(stream: str, source: Path) -> SettingsError:
    return SettingsError(
        f"[streams.{stream}] source: {source} has no event yet that a probe could look like",
        hint="let the log grow first",
        stream=stream,
    )


def _takes_lines(file: Path, format: str) -> bool:  # noqa: A002  (the word of the settings)
    ending = file.suffix.lstrip(".").lower()
    return ending not in COMPRESSIONS and (format or FORMATS.get(ending)) == "json"


def _newest(place: Path) -> Path | None:
    if place.is_dir():
        files = [file for file in place.rglob("*") if file.is_file() and not file.name.startswith((".", "_"))]
        return max(files, default=None)
    return place if place.exists() else None


def _last_events(file: Path, where: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with file.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 65_536))
        lines = log.read().split(b"\n")[:-1]
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if (
            isinstance(event, dict)
            and len(event) > 1
            and all(value_at(event, path_of(place)) == value for place, value in where.items())
        ):
            yield event


def changed(event: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """The event with another value at `path`.

    >>> changed({"a": {"b": 1}, "c": 2}, ("a", "b"), 3)
    {'a': {'b': 3}, 'c': 2}
    """
    head, *rest = path
    return {**event, head: changed(event.get(head) or {}, rest, value) if rest else value}


def value_at(event: dict[str, Any], path: Sequence[str]) -> Any:
    """What stands at `path`; None if nothing does.

    >>> value_at({"a": {"b": 1}}, ("a", "b"))
    1
    """
    found: Any = event
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def time_in(unit: str | None, now_us: int) -> Any:
    """A moment as the stream writes its times.

    >>> time_in("ms", 1_500), time_in(None, 0)
    (1, '1970-01-01T00:00:00.000000Z')
    """
    if unit in ("s", "ms", "us", "ns"):
        return {"s": now_us / clock.SECOND_US, "ms": now_us // 1_000, "us": now_us, "ns": now_us * 1_000}[unit]
    return clock.iso(now_us)[:-1] + f".{now_us % clock.SECOND_US:06d}Z"
