"""The sources of a loop as commands look at them: where they are, and what becomes of their events."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import MissingFeature, SourceError
from headrace.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.config import Settings
    from headrace.features import Feature
    from pipelines.events import Parsed

NOW_UNKNOWN_US = 1 << 62
"""A backtest has no now: nothing lies in its future."""


def places(settings: Settings) -> dict[str, Path | None]:
    """Where each stream's source is; None = not a local file or folder."""
    found: dict[str, Path | None] = {}
    for name, stream in settings.streams.items():
        source = stream.source.removeprefix("file://")
        found[name] = Path(source) if "://" not in source else None
    return found


def parsed(settings: Settings, name: str, *, rows: int | None = None) -> Iterator[Parsed]:
    """What the pipeline makes of a stream's events, block by block; `rows`: stop after about so many."""
    from pipelines.events import Limits
    from pipelines.parse import parse
    from pipelines.setup import setup_of

    setup = setup_of(open_store("memory://look"), settings)
    stream, source = setup.streams[name], setup.sources[name]
    limits = Limits(settings.pipeline.record_bytes, NOW_UNKNOWN_US)
    read = 0
    for partition in source.partitions():
        start = source.first(partition)
        reach = source.reach(partition, start, None, max_bytes=1 << 62, drain=True)
        if reach is None:
            raise SourceError(f"{source.url} cannot be read at present", hint="is its store reachable?", stream=name)
        for span in source.spans(partition, start, reach.position, reach.identity):
            if rows is not None and read >= rows:
                return
            found = parse(stream, limits, source.read(span, stream.columns))
            read += found.accepted + len(found.refused)
            yield found


def try_stream(settings: Settings, name: str, rows: int) -> dict[str, Any]:
    """What became of a stream's first events: `{"ok", "read", "accepted", "refused": {reason: n}, "summary"}`.

    MissingFeature for a feature that none of them has.
    """
    from pipelines.events import REASONS

    refused: Counter[str] = Counter()
    accepted, positives = 0, 0.0
    schema = settings.schema()
    unseen: set[str] | None = None
    for found in parsed(settings, name, rows=rows):
        refused.update(event.reason for event in found.refused)
        accepted += found.accepted
        unseen = set(found.unseen) if unseen is None else unseen & found.unseen
        for events in found.events:
            if "_label" in events.column_names:
                positives += float(sum(label or 0 for label in events["_label"].to_pylist()))
            else:
                raw = {f.name: events[f.name].combine_chunks() for f in schema.features if f.kind != "cross"}
                schema.encode_features(raw)
    if unseen and accepted:
        raise _unseen(schema[min(unseen)], name, accepted)
    read = accepted + sum(refused.values())
    summary = f"{read:,} events tried, {accepted:,} good"
    if not read:
        summary += ": none in what was read; are `where` and `time` of the stream right?"
    if settings.streams[name].label and accepted:
        summary += f", mean label {positives / accepted:.3f}"
    for reason, count in refused.most_common():
        summary += f"\n  refused {count:,} ({reason}): the event {REASONS[reason]}"
    ok = sum(refused.values()) <= settings.pipeline.quarantine_stop * read
    return {"ok": ok, "read": read, "accepted": accepted, "refused": dict(refused), "summary": summary}


def _unseen(feature: Feature, stream: str, events: int) -> MissingFeature:
    return MissingFeature(
        f"feature '{feature.name}' reads '{feature.place}', but none of {events:,} events of stream '{stream}' has it",
        hint=f'correct [features] {feature.name} (column = "…" names the key of the event), or remove the feature',
        feature=feature.name,
        column=feature.place,
        stream=stream,
    )
