"""From settings to what the pipeline works with: streams, sources, times in microseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.clock import SECOND_US
from headrace.window import Horizon
from pipelines.events import Stream
from pipelines.label import LabelPolicy
from pipelines.orders import Setup
from pipelines.sources.pattern import source_of
from pipelines.sources.quarantine import QuarantineSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.config import Settings, StreamSettings
    from headrace.schema import Schema
    from headrace.store import Store
    from pipelines.sources.base import Source

__all__ = ["setup_of"]

IMPRESSION = "impression"


def setup_of(store: Store, settings: Settings, sources: Mapping[str, Source] | None = None) -> Setup:
    """What is constant for a process. `sources` replace those that the settings name."""
    schema = settings.schema()
    label, pipeline = settings.label, settings.pipeline
    life = LabelPolicy(
        label.mode,
        attribution_us=_us(label.attribution_s),
        wait_us=_us(label.wait_s or 0),
        lateness_us=_us(pipeline.lateness_s),
    )
    names = sorted(settings.streams, key=lambda name: name != IMPRESSION)
    shared = sources is None and len({(one.source, one.format) for one in settings.streams.values()}) == 1
    given = sources or {name: source_of(settings.streams[name].source, settings.streams[name].format) for name in names}
    return Setup(
        store_url=store.url,
        write_url=store.url,
        streams={name: _stream(name, settings.streams[name], schema, shared=shared) for name in names},
        sources={name: QuarantineSource(store.url, source) for name, source in given.items()},
        schema=schema,
        policy=life,
        horizon=Horizon(
            window_us=_us(pipeline.window_s),
            disorder_us=_us(pipeline.disorder_s),
            idle_us=_us(pipeline.idle_s),
            attribution_us=life.attribution_us,
            lateness_us=life.lateness_us,
        ),
        parts=pipeline.parts,
        record_bytes=pipeline.record_bytes,
        future_us=_us(pipeline.future_s),
    )


def _stream(name: str, settings: StreamSettings, schema: Schema, *, shared: bool) -> Stream:
    impression = name == IMPRESSION
    return Stream(
        name=name,
        role=IMPRESSION if impression else "feedback",
        id=settings.id,
        time=settings.time,
        time_unit=settings.time_unit,
        time_zone=settings.time_zone,
        label=settings.label,
        where=dict(settings.where),
        features=schema.features if impression else (),
        shared=shared,
        first=impression or not shared,
    )


def _us(seconds: float) -> int:
    return round(seconds * SECOND_US)
