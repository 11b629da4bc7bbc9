"""The events of a loop's file sources, read once: what a backtest replays and what it knows to be true.

    feeds     per stream an Arrow IPC file with `_id`, `_ts` (int64 us, UTC), `_label` (feedback) and the raw feature
              columns, sorted by `_ts`: the time at which each event arrives in the replay
    settings  the loop's, with streams that read those feeds

Events that the pipeline would refuse are left out here and counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.cli.freshness.lineage import Truth
from headrace.errors import LineageError, SettingsError
from headrace.ids import ids_of

if TYPE_CHECKING:
    from headrace.config import Settings

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
        return (inside & (of[hit] == keys) & (at[hit] - times <= self.attribution_us)).astype(np.float32)

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

    SettingsError for a source that has no end; LineageError for labels that are all known at the time of their
    impression, which is what a mistaken `time` of the feedback stream looks like.
    """
    from pipelines.parse import streams_of

    refused: Counter[str] = Counter()
    tables = {stream.role: _read(settings, stream, refused) for stream in streams_of(settings)}
    impressions, feedback = tables[IMPRESSION], tables["feedback"]
    if limit is not None and limit < impressions.num_rows:
        impressions = impressions.slice(0, limit)
        feedback = feedback.filter(pc.is_in(feedback["_id"], value_set=impressions["_id"].combine_chunks()))
    if not impressions.num_rows or not feedback.num_rows:
        which = IMPRESSION if not impressions.num_rows else "feedback"
        raise SettingsError(
            f"the {which} stream has no usable event ({dict(refused) or 'nothing was read'})",
            hint="run `headrace config check`: it shows what becomes of the first events",
        )
    label = settings.label
    history = History(
        impressions,
        feedback,
        dict(refused),
        label.mode == "explicit",
        int(label.wait_s * 1_000_000),
        int(label.attribution_s * 1_000_000),
    )
    _refuse_instant_labels(history)
    return history


def _read(settings: Settings, stream: Any, refused: Counter[str]) -> pa.Table:
    """All accepted events of one stream, sorted by time."""
    from pipelines.parse import read_all

    parts = []
    for parsed in read_all(settings, stream):
        parts.append(parsed.events)
        refused.update(event.reason for event in parsed.refused)
    if not parts:
        return pa.table({"_id": pa.array([], pa.string()), "_ts": pa.array([], pa.int64())})
    table = pa.concat_tables(parts, promote_options="permissive").drop_columns(["_offset"])
    order = np.argsort(table["_ts"].to_numpy(), kind="stable")
    return table.take(pa.array(order)).combine_chunks()


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
