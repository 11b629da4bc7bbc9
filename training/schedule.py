"""When the trainer does what. Pure functions of numbers and records.

Which records make the next candidate (`on`):

    pane     all that wait, in order, until `MOST_ROWS` rows; due as soon as one of them has a row
    window   the same, but only up to the first record with a window that the newest record has not closed

How many rows a step takes. A warm-up batch is small (a large one fills Adagrad's accumulators and lowers the live rate
for good): a record is learned in warm-up batches while the model has learned fewer than `WARMUP_ROWS` rows, and
whenever it has more than that many rows itself (a backlog). A live batch is a `STEPS`-th of its record, at most
`batch_live` rows: an id that many rows of a record have moves as the square root of the number of steps, so that few
large steps learn what is new more slowly, while past `STEPS` the fixed cost of a step would tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.shard import ShardRecord
    from training.recipe import Recipe

MOST_ROWS = 1 << 20
WARMUP_ROWS = 1 << 16
STEPS = 16


def candidate(waiting: Sequence[ShardRecord], *, on: str) -> list[ShardRecord]:
    """The records to train next, oldest first; empty while nothing is due. waiting: in order of the log."""
    taken: list[ShardRecord] = []
    rows = 0
    for record in ready(waiting, on=on):
        if taken and rows + record.rows > MOST_ROWS:
            break
        taken.append(record)
        rows += record.rows
    return taken if rows else []


def ready(waiting: Sequence[ShardRecord], *, on: str) -> list[ShardRecord]:
    """What may be learned, however many rows: in one candidate or in several."""
    return list(waiting) if on == "pane" else _closed(waiting)


def _closed(waiting: Sequence[ShardRecord]) -> list[ShardRecord]:
    """The records before the first one with an open window."""
    taken = []
    for record in waiting:
        window_us = record.policy.window_us
        ends = [int(window["start"]) + window_us for shard in record.shards for window in shard.windows]
        if max(ends, default=0) > waiting[-1].closed_us:
            break
        taken.append(record)
    return taken


def smallest(records: Sequence[ShardRecord]) -> list[ShardRecord]:
    """The first of `records` that has rows, with those before it: a candidate that cannot be split."""
    rows = next((at for at, record in enumerate(records) if record.rows), len(records) - 1)
    return list(records[: rows + 1])


def batch_rows(recipe: Recipe, *, rows: int, learned: int) -> int:
    """Rows of a training step for a record of `rows` rows, when the model has learned `learned` rows before it."""
    warming_up = learned < WARMUP_ROWS or rows > WARMUP_ROWS
    if warming_up:
        return recipe.batch_warmup
    return min(max(-(-rows // STEPS), recipe.batch_warmup), recipe.batch_live)


def checkpoint_due(now_us: int, newest_us: int | None, every_s: float) -> bool:
    """newest_us: when the newest checkpoint was named; None = there is none.

    One that lies in the future is of a clock that was set back since.
    """
    return newest_us is None or not 0 <= now_us - newest_us < every_s * 1e6


def snapshot_due(version: int, newest: int, every: int) -> bool:
    """newest: the version that the newest snapshot holds, or the start of the lineage; every: in versions."""
    return version - newest >= every
