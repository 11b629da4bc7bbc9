"""A trainer of the fixture `feed`, and what it has learned and written."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.version import VersionRecord

LEARNING = {"train": {"checkpoint_every_s": 1e9, "lr_linear": 0.2}}
UNSURPRISED = {"surprise": 1e9, "rows": 400}


def trainer_of(feed: Any, **changes: Any) -> Any:
    from training.trainer import Trainer

    return Trainer(feed.loop, feed.settings, **changes)


def versions(feed: Any) -> list[VersionRecord]:
    log = feed.loop.version_log()
    return [VersionRecord.from_entry(log.read(seq)) for seq in log.seqs()]


def parameters(trainer: Any) -> dict[str, bytes]:
    """All that a checkpoint would hold, bit by bit."""
    return {name: value.tobytes() for name, value in trainer._live.state.arrays().items()}


def flipped(rows: pa.Table) -> pa.Table:
    """The same examples with wrong labels."""
    at = rows.column_names.index("label")
    return rows.set_column(at, "label", pc.subtract(pa.scalar(1, pa.float32()), rows["label"]))


def learned(feed: Any, trainer: Any, records: int, rows: int = 400) -> None:
    """So many records, each of which becomes a version."""
    for _ in range(records):
        feed.rows(rows)
        assert trainer.step().kind == "delta"
