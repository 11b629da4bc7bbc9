"""A trainer of the fixture `feed`, and what it has learned and written."""

from __future__ import annotations

from typing import Any

from headrace.version import VersionRecord


def trainer_of(feed: Any, **changes: Any) -> Any:
    from training.trainer import Trainer

    return Trainer(feed.loop, feed.settings, **changes)


def versions(feed: Any) -> list[VersionRecord]:
    log = feed.loop.version_log()
    return [VersionRecord.from_entry(log.read(seq)) for seq in log.seqs()]


def parameters(trainer: Any) -> dict[str, bytes]:
    """All that a checkpoint would hold, bit by bit."""
    return {name: value.tobytes() for name, value in trainer._state.arrays().items()}
