"""The smallest batch that keeps the deadline; what the clock chose is replayed from the record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from headrace.version import VersionRecord
from training.pace import Pace
from training.recipe import RECIPES
from training.schedule import WARMUP_ROWS

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]


def test_the_smallest_batch_that_keeps_the_deadline() -> None:
    pace = Pace(RECIPES["dcn_v2"], deadline_s=2.0)
    assert pace.batch(10_000, WARMUP_ROWS) is None  # nothing was measured yet
    pace.took(100, 0.2)
    assert pace.batch(10_000, WARMUP_ROWS - 1) is None
    assert pace.batch(10_000, WARMUP_ROWS) == 32  # 313 steps of 2 ms
    assert pace.batch(50_000, WARMUP_ROWS) == 64
    assert pace.batch(90_000, WARMUP_ROWS) == 128
    assert pace.batch(10**7, WARMUP_ROWS) == 1024
    pace.took(100, 1.0)
    assert pace.batch(50_000, WARMUP_ROWS) == 256  # steps take 6 ms now
    pace.took(0, 0.0)
    assert Pace(RECIPES["dcn_v2"], deadline_s=None).batch(10_000, WARMUP_ROWS) is None


@pytest.mark.parametrize("forgotten", [False, True], ids=["", "twin: records do not say it"])
def test_a_replay_takes_the_batch_from_the_record(
    feed: Any, monkeypatch: pytest.MonkeyPatch, *, forgotten: bool
) -> None:
    from training import schedule
    from training.trainer import Trainer

    monkeypatch.setattr(schedule, "WARMUP_ROWS", 100)
    monkeypatch.setattr("training.pace.WARMUP_ROWS", 100)
    loop = feed("dcn_v2", train={"deadline_s": 0.002, "batch_warmup": 8, "checkpoint_every_s": 1e9})
    trainer = Trainer(loop.loop, loop.settings)
    for rows in (120, 90, 90):
        loop.rows(rows)
        trainer.step()
    log = loop.loop.version_log()
    batches = [VersionRecord.from_entry(log.read(seq)).batch for seq in log.seqs()]
    assert batches[:2] == [None, None]
    assert batches[2] > 8  # 8 rows a step would take longer
    assert "batch" not in log.read(1).body
    if forgotten:
        from_entry = VersionRecord.from_entry
        monkeypatch.setattr(VersionRecord, "from_entry", lambda entry: replace(from_entry(entry), batch=None))
    again = Trainer(loop.loop, loop.settings)
    same = [
        one.tobytes() == other.tobytes()
        for one, other in zip(again._live.state.arrays().values(), trainer._live.state.arrays().values(), strict=True)
    ]
    assert all(same) is not forgotten
