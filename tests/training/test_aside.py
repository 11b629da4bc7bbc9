"""Checkpoints and snapshots that are written while training goes on."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from trainers import parameters, trainer_of

from headrace.errors import StoreFull
from headrace.version import Kept, VersionRecord

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]

ONE = Kept(1, "one", "aa", 1)


def newest(feed: Any) -> VersionRecord:
    return VersionRecord.from_entry(feed.loop.version_log().head())


def resident(feed: Any) -> Any:
    trainer = trainer_of(feed)
    trainer._files.resident = True
    return trainer


def held_up(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writes aside wait for the event."""
    go, write = threading.Event(), trainer._loop.store.write

    def waits(path: str, data: Any) -> None:
        if threading.current_thread().name == "headrace-aside":
            assert go.wait(60)
        write(path, data)

    monkeypatch.setattr(trainer._loop.store, "write", waits)
    return go


def test_one_job_at_a_time_and_what_it_wrote_is_taken_once() -> None:
    from training.aside import Aside

    aside, go = Aside(), threading.Event()
    assert not aside.busy()

    def write() -> Kept:
        assert go.wait(60)
        return ONE

    aside.begin({"snapshot": write})
    assert aside.busy()
    assert aside.take() == {}
    with pytest.raises(RuntimeError, match="under way"):
        aside.begin({})
    go.set()
    aside.wait()
    assert aside.busy()  # done, not yet named
    assert aside.take() == {"snapshot": ONE}
    assert aside.take() == {}
    assert not aside.busy()


def test_what_is_dropped_is_never_taken() -> None:
    from training.aside import Aside

    aside = Aside()
    aside.begin({"snapshot": lambda: ONE})
    aside.drop()
    aside.wait()
    assert aside.take() == {}
    assert not aside.busy()


@pytest.mark.parametrize("copied", [True, False], ids=["copied", "twin: written from the state that learns on"])
def test_a_later_version_names_it_and_it_holds_its_own(
    feed: Any, monkeypatch: pytest.MonkeyPatch, *, copied: bool
) -> None:
    from training import checkpoint
    from training import files as module

    loop = feed("dcn_v2", train={"checkpoint_every_s": 1e9, "snapshot_every": 1})
    trainer = resident(loop)
    go = held_up(trainer, monkeypatch)
    if not copied:
        write = module.write_copy

        def late(store: Any, folder: str, entries: Any, version: int, nonce: str) -> Kept:
            assert go.wait(60)
            return write(store, folder, checkpoint.copy_of(trainer._live.state, version), version, nonce)

        monkeypatch.setattr(module, "write_copy", late)
    for version in (1, 2):
        loop.rows(100)
        trainer.step()
        assert (newest(loop).version, newest(loop).checkpoint, newest(loop).snapshot) == (version, None, None)
    go.set()
    trainer._files._aside.wait()
    loop.rows(20)
    trainer.step()
    record = newest(loop)
    assert (record.version, record.checkpoint.of) == (3, 1)
    assert record.snapshot.of in (1, 3)  # its own, if that was written before the record was made
    trainer._files._aside.wait()
    again = resident(loop)
    assert (parameters(again) == parameters(trainer)) == copied
    assert again._live.published.digest() == trainer._live.published.digest()


def test_a_write_that_fails_is_tried_again_and_training_goes_on(
    feed: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop = feed("lr", train={"checkpoint_every_s": 1e-6, "snapshot_every": 1})
    trainer = resident(loop)
    write = trainer._loop.store.write

    def full(path: str, data: Any) -> None:
        if threading.current_thread().name == "headrace-aside":
            raise StoreFull("no space left")
        write(path, data)

    monkeypatch.setattr(trainer._loop.store, "write", full)
    for version in (1, 2):
        loop.rows(50)
        trainer.step()
        trainer._files._aside.wait()
        assert (newest(loop).version, newest(loop).checkpoint) == (version, None)
    assert "trainer.aside_failed what=checkpoint: no space left" in caplog.text
    monkeypatch.setattr(trainer._loop.store, "write", write)
    for _ in range(2):
        loop.rows(50)
        trainer.step()
        trainer._files._aside.wait()
    assert newest(loop).checkpoint.of >= 3  # named by its own record, or by the next
    assert newest(loop).snapshot.of >= 3
    assert parameters(resident(loop)) == parameters(trainer)


def test_step_waits_so_that_its_own_record_names_it(feed: Any) -> None:
    loop = feed("lr", train={"checkpoint_every_s": 1e-6, "snapshot_every": 1})
    trainer = resident(loop)
    trainer._files.resident = False
    loop.rows(50)
    trainer.step()
    assert (newest(loop).checkpoint.of, newest(loop).snapshot.of) == (1, 1)
