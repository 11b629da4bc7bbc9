"""The sources of a loop as commands look at them: where they are, and what becomes of their events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import SourceError, SourceVanished
from headrace.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.config import Settings
    from pipelines.events import Parsed
    from pipelines.sources.base import Source, Span

ROW_BYTES = 32  # few events are shorter: the first turn gives no partition more than its share
EVERYTHING = 1 << 62
GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, lie evenly however many there are
NOW_UNKNOWN_US = 1 << 62
"""A backtest has no now: nothing lies in its future."""


def places(settings: Settings) -> dict[str, Path | None]:
    """Where each stream's source is (of a pattern: the folder that is listed); None = not a local file or folder."""
    from headrace.config.sections import MARK

    found: dict[str, Path | None] = {}
    for name, stream in settings.streams.items():
        source = stream.source.removeprefix("file://")
        if MARK in source:
            source = source.split(MARK)[0].rpartition("/")[0] or "."
        found[name] = Path(source) if "://" not in source else None
    return found


def require(settings: Settings) -> None:
    """SourceVanished, in the words of someone who has just written the settings, unless every local source is there."""
    for name, place in places(settings).items():
        if place is not None and not place.exists():
            raise SourceVanished(
                f"[streams.{name}] source: there is no {place}",
                hint="correct `source`, or put the events there: a file, or a folder of files",
                stream=name,
            )


def parsed(
    settings: Settings, name: str, *, rows: int | None = None, latest_us: int = NOW_UNKNOWN_US
) -> Iterator[tuple[str, Parsed]]:
    """What the pipeline makes of a stream's events, by file and block; `rows`: stop after about so many.

    Of a source with several partitions the beginnings of all, as far as `rows` goes.
    """
    from pipelines.events import Limits
    from pipelines.parse import parse
    from pipelines.setup import setup_of

    require(settings)
    setup = setup_of(open_store("memory://look"), settings)
    stream, source = setup.streams[name], setup.sources[name]
    limits = Limits(settings.pipeline.record_bytes, latest_us)
    read = 0
    for span in _spans(source, rows):
        if rows is not None and read >= rows:
            return
        found = parse(stream, limits, source.read(span, stream.columns))
        read += found.accepted + len(found.refused)
        yield span.file, found


def _spans(source: Source, rows: int | None) -> Iterator[Span]:
    """All pieces of a source, partition by partition.

    rows: one will stop after so many. Then some pieces of each partition in turn, twice as much in every round.
    """
    names = list(source.partitions())
    at = {name: source.first(name) for name in names}
    left, size = names, EVERYTHING
    if rows is not None and len(names) > 1:
        left = [name for _, name in sorted((number * GOLDEN % 1, name) for number, name in enumerate(names))]
        size = max(1, rows * ROW_BYTES // len(names))
    while left:
        for name in list(left):
            reach = source.reach(name, at[name], None, max_bytes=size, drain=True)
            if reach is None:
                raise SourceError(f"{source.url} cannot be read at present", hint="is its store reachable?")
            yield from source.spans(name, at[name], reach.position, reach.identity)
            at[name] = reach.position
            if reach.caught_up:
                left.remove(name)
        size *= 2
