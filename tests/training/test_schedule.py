"""What is trained next, how many rows a step takes, when files are due."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.shard import BLANK, Shard, ShardRecord
from training import schedule
from training.recipe import RECIPES

MINUTE_US = 60_000_000


def record(seq: int, rows: int = 0, *, window: int = 0, closed_us: int = 0) -> ShardRecord:
    windows = ({"start": window * MINUTE_US, "rows": rows, "positives": 0},)
    shard = Shard(part=0, path="x", sha256="", bytes=1, rows=rows, windows=windows, max_emit_us=0)
    return replace(BLANK, seq=seq, closed_us=closed_us, shards=(shard,) if rows else ())


def chosen(*records: ShardRecord, on: str = "pane") -> list[int]:
    return [taken.seq for taken in schedule.candidate(records, on=on)]


def test_panes_are_taken_together_up_to_a_cap() -> None:
    assert chosen() == []
    assert chosen(record(4), record(5)) == []
    assert chosen(record(4), record(5, 7), record(6)) == [4, 5, 6]
    assert chosen(record(1, schedule.MOST_ROWS), record(2, 1)) == [1]
    assert chosen(record(1, 2 * schedule.MOST_ROWS)) == [1]


def test_windows_are_taken_whole_and_in_order() -> None:
    first, second = record(1, 5, window=0), record(2, 5, window=1)
    assert chosen(first, second, on="window") == []
    assert chosen(first, second, record(3, closed_us=MINUTE_US), on="window") == [1]
    assert chosen(second, first, record(3, closed_us=MINUTE_US), on="window") == []
    assert chosen(first, second, record(3, closed_us=2 * MINUTE_US), on="window") == [1, 2, 3]


def test_a_refused_candidate_is_split_before_each_record_with_rows() -> None:
    records = [record(1), record(2, 5), record(3), record(4, 5)]
    assert [taken.seq for taken in schedule.smallest(records)] == [1, 2]
    assert [taken.seq for taken in schedule.smallest(records[2:])] == [3, 4]
    assert [taken.seq for taken in schedule.smallest(records[:1])] == [1]


@pytest.mark.parametrize(
    ("rows", "learned", "batch"),
    [
        (100, 0, 32),
        (100, schedule.WARMUP_ROWS - 1, 32),
        (100, schedule.WARMUP_ROWS, 32),
        (1_601, schedule.WARMUP_ROWS, 101),
        (schedule.WARMUP_ROWS, schedule.WARMUP_ROWS, 1024),
        (schedule.WARMUP_ROWS + 1, schedule.WARMUP_ROWS, 32),
    ],
)
def test_small_batches_while_warming_up_for_a_backlog_and_for_a_small_record(
    rows: int, learned: int, batch: int
) -> None:
    assert schedule.batch_rows(RECIPES["dcn_v2"], rows=rows, learned=learned) == batch
    recipe = replace(RECIPES["dcn_v2"], batch_warmup=batch, batch_live=batch)
    assert schedule.batch_rows(recipe, rows=rows, learned=learned) == batch


def test_checkpoints_by_time_snapshots_by_version() -> None:
    assert schedule.checkpoint_due(0, None, 60)
    assert not schedule.checkpoint_due(59_999_999, 0, 60)
    assert schedule.checkpoint_due(60_000_000, 0, 60)
    assert schedule.checkpoint_due(0, 59_999_999, 60)  # the clock was set back, perhaps by years
    assert not schedule.snapshot_due(49, 0, 50)
    assert schedule.snapshot_due(50, 0, 50)
