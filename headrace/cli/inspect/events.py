"""The first events of both streams as arrays, as the pipeline would take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from headrace.cli.trial import Trial, try_stream
from headrace.column import plain
from headrace.ids import fingerprints

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.config import Settings
    from pipelines.events import Parsed

__all__ = ["Sample", "sample_events"]


@dataclass(frozen=True)
class Sample:
    """n impressions in the order of their times, one per event id, and m feedbacks.

    id, feedback_id: uint64 fingerprints [n], [m]; ts_us, feedback_us: int64; label: float32 [m], NaN without one;
    features: encoded columns [n]; whole: every event of both streams is in it; trials: by stream, what became of each.
    """

    id: NDArray[np.uint64]
    ts_us: NDArray[np.int64]
    features: pa.Table
    duplicates: int
    feedback_id: NDArray[np.uint64]
    feedback_us: NDArray[np.int64]
    label: NDArray[np.float32]
    whole: bool
    trials: dict[str, Trial]


def sample_events(settings: Settings, rows: int, *, now_us: int) -> Sample:
    """About the first `rows` events of each stream. EventError, SourceError as for `config check`."""
    schema = settings.schema()
    shown: list[pa.Table] = [pa.schema([("_id", pa.string()), ("_ts", pa.int64()), *schema.arrow()]).empty_table()]
    told: list[pa.Table] = [
        pa.schema([("_id", pa.string()), ("_ts", pa.int64()), ("_label", pa.float32())]).empty_table()
    ]

    def keep(found: Parsed) -> None:
        for events in found.events:
            head = events.select(["_id", "_ts"])
            if "_label" in events.column_names:
                told.append(head.append_column("_label", events["_label"]))
                continue
            raw = {f.name: plain(events[f.name]) for f in schema.features if f.kind != "cross"}
            columns = schema.encode_features(raw)
            shown.append(pa.table([*head.columns, *columns.columns], schema=shown[0].schema))

    trials = {name: try_stream(settings, name, rows, now_us=now_us, each=keep) for name in settings.streams}
    impressions, feedback = pa.concat_tables(shown), pa.concat_tables(told)
    keys = fingerprints(impressions["_id"].combine_chunks())
    times = impressions["_ts"].to_numpy()
    by_time = np.argsort(times, kind="stable")
    _, first = np.unique(keys[by_time], return_index=True)
    kept = by_time[np.sort(first)]
    return Sample(
        id=keys[kept],
        ts_us=times[kept],
        features=impressions.select(schema.arrow().names).take(pa.array(kept)).combine_chunks(),
        duplicates=len(keys) - len(kept),
        feedback_id=fingerprints(feedback["_id"].combine_chunks()),
        feedback_us=feedback["_ts"].to_numpy(),
        label=feedback["_label"].to_numpy().astype(np.float32),
        whole=all(trial.read < rows for trial in trials.values()),
        trials=trials,
    )
