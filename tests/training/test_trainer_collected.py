"""A trainer whose logs were collected: it goes on from its checkpoint, with the bits it would have had."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from trainers import parameters

from headrace import control
from headrace.collector import ShardCollector, VersionCollector
from headrace.errors import NotFound, StoreFull
from headrace.version import VersionRecord

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]

S = 1_000_000


def collected(feed: Any, now_us: int) -> None:
    for kind in (VersionCollector, ShardCollector):
        collector = kind(feed.loop, feed.settings)
        while collector.run(now_us, force=True) is None:
            pass
        collector.settled()
        collector.run(now_us, force=True)


def test_it_starts_again_after_collection_and_learns_on(feed: Any, caplog: pytest.LogCaptureFixture) -> None:
    from training.trainer import Trainer

    loop = feed(
        "lr",
        train={"checkpoint_every_s": 3.0, "snapshot_every": 3},
        retention={"versions_s": 0.0, "rollback_s": 4.0, "held_s": 4.0},
    )
    now = [0]
    trainer = Trainer(loop.loop, loop.settings, now_us=lambda: now[0])
    for _ in range(20):
        now[0] += S
        loop.rows(40)
        trainer.step()
    before = parameters(trainer)
    trainer.close()
    collected(loop, now[0])
    versions, shards = loop.loop.version_log(), loop.loop.shard_log()
    assert 8 < versions.seqs()[0] <= 16
    assert 8 < shards.seqs()[0] <= 16
    again = Trainer(loop.loop, loop.settings, now_us=lambda: now[0])
    assert parameters(again) == before
    for _ in range(2):
        now[0] += S
        loop.rows(40)
        assert again.step() is not None
    assert again.record.evaluation["frozen"]["of"] > 8  # version 1 is gone: another one is the reference from now on
    assert "trainer.frozen_collected version=1" in caplog.text
    again.close()

    with pytest.raises(NotFound, match="no longer kept"):
        control.rollback(loop.loop, 3, by="me", reason="", now_us=now[0])
    target = again.record.version - 4
    control.rollback(loop.loop, target, by="me", reason="", now_us=now[0])
    back = Trainer(loop.loop, loop.settings, now_us=lambda: now[0])
    assert VersionRecord.from_entry(versions.head()).to == target
    assert back.record.kind == "rollback"
    back.close()


def test_a_full_disk_is_waited_out(feed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import trainer as module

    loop = feed("lr")
    trainer = module.Trainer(loop.loop, loop.settings)
    loop.rows(40)
    monkeypatch.setattr(module, "FULL_S", 0.0)
    step, tries, said = trainer._step, [], []

    def sometimes(asked: Any) -> Any:
        tries.append(asked)
        said.append(trainer._room.problem)
        if len(tries) < 3:
            raise StoreFull("cannot write: No space left on device", hint="free space")
        return step(asked)

    monkeypatch.setattr(trainer, "_step", sometimes)
    trainer.run(stop=lambda: len(tries) >= 4, poll_s=0.0)
    assert trainer.record.version == 1
    assert "No space left" in said[2]
    assert said[3] == ""


def test_gc_says_what_would_go_and_that_goes(feed: Any) -> None:
    from headrace.cli.gc import Counting, collect
    from training.trainer import Trainer

    loop = feed(
        "lr",
        train={"checkpoint_every_s": 2.0, "snapshot_every": 2},
        retention={"versions_s": 0.0, "rollback_s": 3.0, "held_s": 3.0},
    )
    now = [0]
    trainer = Trainer(loop.loop, loop.settings, now_us=lambda: now[0])
    for _ in range(12):
        now[0] += S
        loop.rows(20)
        trainer.step()
    trainer.close()
    before = loop.loop.store.list("")
    said = {}
    for really in (False, True):
        store = Counting(loop.loop.store, really=really)
        counted = replace(loop.loop, store=store)
        kept = [collect(kind(counted, loop.settings), 24, now[0]) for kind in (VersionCollector, ShardCollector)]
        said[really] = (kept, store.folders_of())
        if not really:
            assert loop.loop.store.list("") == before
    assert said[False] == said[True]
    gone = sum(one["files"] for one in said[True][1].values())
    assert gone == len(before) - len(loop.loop.store.list("")) > 5
    assert said[True][0][0] == loop.loop.version_log().seqs()[0] > 0
