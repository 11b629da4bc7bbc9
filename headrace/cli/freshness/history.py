"""The events of a loop's file sources, read once: what a backtest replays and what it knows to be true.

    feeds     per stream an Arrow IPC file with `_id`, `_ts` (int64 us, UTC), `_label` (feedback) and the raw feature
              columns, sorted by `_ts`: the time at which each event arrives in the replay
    settings  the loop's, with streams that read those feeds

Events that the pipeline would refuse are left out here and counted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.cli import sources
from headrace.cli.freshness.lineage import Truth
from headrace.clock import SECOND_US
from headrace.config.features import KEYS, FeatureSettings
from headrace.config.sections import StreamSettings
from headrace.errors import LineageError, SettingsError
from headrace.ids import ids_of
from headrace.times import UTC_US, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from headrace.config import Settings
    from headrace.features import Feature

Ints = NDArray[np.int64]

IMPRESSION = "impression"


@dataclass(frozen=True)
class History:
    """impressions, feedback: tables as the module says, sorted by `_ts`; refused: {reason: events}."""

    impressions: pa.Table
    feedback: pa.Table
    refused: dict[str, int]
    explicit: bool
    wait_us: int
    attribution_us: int

    @property
    def times_us(self) -> Ints:
        """Event times of the impressions: int64 [n], sorted."""
        return _ints(self.impressions, "_ts")

    def truth(self) -> Truth:
        """When each label was known."""
        times = _ints(self.feedback, "_ts")
        return Truth.of(self.feedback["_id"], self._feedback_labels(), times, None if self.explicit else self.wait_us)

    def labels(self) -> NDArray[np.float32]:
        """What each impression turned out to be: float32 [n]; NaN where no feedback says.

        Explicit: the label of its last feedback. Implicit: 1 if feedback came within the attribution, else 0.
        """
        keys, times = ids_of("event", self.impressions["_id"]), self.times_us
        of, at, label = ids_of("event", self.feedback["_id"]), _ints(self.feedback, "_ts"), self._feedback_labels()
        order = np.lexsort((label, at, of))
        of, at, label = of[order], at[order], label[order]
        if self.explicit:
            last = np.searchsorted(of, keys, side="right") - 1
            known = (last >= 0) & (of[np.maximum(last, 0)] == keys) if len(of) else np.zeros(len(keys), bool)
            return np.where(known, label[np.maximum(last, 0)] if len(of) else 0, np.nan).astype(np.float32)
        ranks = _rank(of, at, keys, times)
        inside = ranks < len(of)
        hit = np.minimum(ranks, max(len(of) - 1, 0))
        if not len(of):
            return np.zeros(len(keys), np.float32)
        positive = inside & (of[hit] == keys) & (at[hit] - times <= self.attribution_us)
        return np.asarray(positive, np.float32)

    def fingerprint(self) -> str:
        """Of everything in it: 16 hex digits."""
        digest = hashlib.sha256()
        for table in (self.impressions, self.feedback):
            digest.update(f"{table.num_rows} {table.schema}".encode())
            for column in table.columns:
                for chunk in column.chunks:
                    for buffer in chunk.buffers():
                        digest.update(buffer or b"")
        return digest.hexdigest()[:16]

    def _feedback_labels(self) -> NDArray[np.float32]:
        if not self.explicit:
            return np.ones(self.feedback.num_rows, np.float32)
        labels: NDArray[np.float32] = self.feedback["_label"].to_numpy().astype(np.float32)
        return labels


def _rank(of: Ints, at: Ints, keys: Ints, times: Ints) -> Ints:
    """First position in the sorted pairs (of, at) that is not below (key, time)."""
    both = np.lexsort((np.r_[np.ones(len(of)), np.zeros(len(keys))], np.r_[at, times], np.r_[of, keys]))
    before = np.cumsum(both < len(of))
    ranks = np.empty(len(keys), np.int64)
    mine = both >= len(of)
    ranks[both[mine] - len(of)] = before[mine]
    return ranks


def _ints(table: pa.Table, name: str) -> Ints:
    values: Ints = table[name].to_numpy().astype(np.int64)
    return values


def read_history(settings: Settings, *, limit: int | None = None) -> History:
    """Reads all events of both streams. `limit`: only the first so many impressions, by event time.

    SettingsError where a stream has no usable event; LineageError for labels that are all known at the time of their
    impression, which is what a mistaken `time` of the feedback stream looks like.
    """
    refused: Counter[str] = Counter()
    impressions, feedback = (_read(settings, name, refused) for name in (IMPRESSION, settings.feedback_name))
    for stream, table in ((IMPRESSION, impressions), (settings.feedback_name, feedback)):
        if not table.num_rows:
            raise SettingsError(
                f"the stream '{stream}' has no usable event ({dict(refused) or 'nothing was read'})",
                hint="run `headrace config check`: it shows what becomes of the first events",
                stream=stream,
            )
    if limit is not None and limit < impressions.num_rows:
        impressions = impressions.slice(0, limit)
        feedback = feedback.filter(pc.is_in(feedback["_id"], value_set=impressions["_id"].combine_chunks()))
    label = settings.label
    history = History(
        impressions,
        feedback,
        dict(refused),
        label.mode == "explicit",
        int((label.wait_s or 0) * SECOND_US),
        int(label.attribution_s * SECOND_US),
    )
    _refuse_instant_labels(history)
    return history


def _read(settings: Settings, name: str, refused: Counter[str]) -> pa.Table:
    """All accepted events of one stream, sorted by time."""
    tables: list[pa.Table] = []
    for _, parsed in sources.parsed(settings, name):
        tables += parsed.events
        refused.update(event.reason for event in parsed.refused)
    if not tables:
        return pa.table({"_id": pa.array([], pa.string()), "_ts": pa.array([], pa.int64())})
    table = pa.concat_tables(_alike(tables, settings), promote_options="permissive").drop_columns(["_offset"])
    order = np.argsort(table["_ts"].to_numpy(), kind="stable")
    return table.take(pa.array(order)).combine_chunks()


def _alike(tables: Sequence[pa.Table], settings: Settings) -> Iterator[pa.Table]:
    """The tables with raw times as times, and ids as text where some have them as text and others as numbers."""
    features = {feature.name: feature for feature in settings.schema().features}
    types = {name: {one.schema.field(name).type for one in tables if name in one.column_names} for name in features}
    mixed = {name for name, feature in features.items() if feature.kind in ("id", "category") and len(types[name]) > 1}
    for table in tables:
        columns = {name: table[name] for name in table.column_names}
        for name, column in columns.items():
            feature = features.get(name)
            if feature is not None and feature.kind == "time":
                columns[name] = parse_time(column, feature.time_unit, feature.source_zone).cast(UTC_US)
            elif name in mixed:
                columns[name] = column.cast(pa.string())
        yield pa.table(columns)


def replayed(settings: Settings, feeds: Mapping[str, Path], *, root: Path) -> Settings:
    """The loop's settings, reading the feeds in a root of their own; the same features under the same fingerprint."""
    streams = {
        name: StreamSettings(
            source=str(feeds[IMPRESSION if name == IMPRESSION else "feedback"]),
            id="_id",
            time="_ts",
            time_unit="us",
            label="_label" if stream.label else None,
        )
        for name, stream in settings.streams.items()
    }
    features = {one.name: _renamed(one, settings.features[one.name]) for one in settings.schema().features}
    changed = settings.model_copy(update={"streams": streams, "features": features})
    assert changed.schema().fingerprint == settings.schema().fingerprint
    return changed.replace("loop", root=str(root))


def _renamed(feature: Feature, line: FeatureSettings) -> FeatureSettings:
    """The feature as `line` has it, with its raw value in a column of its own name."""
    told: dict[str, Any] = {key: getattr(line, key) for key in ("ttl", "admission") if key in line.told}
    if feature.kind == "cross":
        return FeatureSettings(kind="cross", of=feature.of, **told)
    kept = set(KEYS[feature.kind]) - {"column", "path", "of", "time_unit", "ttl", "admission"}
    told |= {key: getattr(feature, key) for key in kept}
    return FeatureSettings(kind=feature.kind, column=feature.name, **told)


def _refuse_instant_labels(history: History) -> None:
    if not history.explicit:
        return
    keys, times = ids_of("event", history.impressions["_id"]), history.times_us
    order = np.argsort(keys, kind="stable")
    keys, times = keys[order], times[order]
    of = ids_of("event", history.feedback["_id"])
    at = np.minimum(np.searchsorted(keys, of), len(keys) - 1)
    delays = (_ints(history.feedback, "_ts") - times[at])[keys[at] == of]
    if len(delays) and not delays.any():
        raise LineageError(
            "every label carries the very time of its impression: what is known at once needs no prediction",
            hint="`time` of the feedback stream must say when the label became known (arrival, end of trial, …), "
            "not when the event happened",
            labels=len(delays),
        )


def write_feeds(history: History, folder: Path) -> dict[str, Path]:
    """Writes the feeds; their paths by role. Written aside and renamed, so that a feed that is there is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for role, table in ((IMPRESSION, history.impressions), ("feedback", history.feedback)):
        paths[role] = folder / f"{role}.arrow"
        aside = folder / f".tmp-{role}.arrow"
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        aside.replace(paths[role])
    return paths
