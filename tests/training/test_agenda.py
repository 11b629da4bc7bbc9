"""What is learned next: rows wait until a trigger is due, then all of them are learned."""

from __future__ import annotations

from typing import Any

import pytest
from trainers import LEARNING, trainer_of, versions

from headrace.requests import ask

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]

S = 1_000_000
NEVER = {"train": {"checkpoint_every_s": 1e9, "snapshot_every": 10**6}}


class Clock:
    def __init__(self) -> None:
        self.us = 1_000 * S

    def __call__(self) -> int:
        return self.us


def begun(feed: Any, **train: Any) -> tuple[Any, Any, Clock]:
    """A loop that has learned a record, and the trainer's clock."""
    from training.trainer import Trainer

    loop, clock = feed("lr", train={"checkpoint_every_s": 1e9, **train}), Clock()
    trainer = Trainer(loop.loop, loop.settings, now_us=clock)
    loop.rows(20)
    assert trainer.step().kind == "delta"  # the first at once
    return loop, trainer, clock


def test_rows_wait_for_their_number(feed: Any) -> None:
    loop, trainer, _ = begun(feed, min_rows=50)
    for _ in range(2):
        loop.rows(20)
        assert trainer.step() is None
    loop.rows(20)
    assert trainer.step().body["trained"] == [[1, 4]]


def test_while_nothing_is_due_nobody_looks_at_each_record(feed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a day of them that took 0.3 s, five times a second."""
    from training import schedule

    loop, trainer, clock = begun(feed, every_s=60)
    loop.rows(20)
    looked: list[int] = []
    candidate = schedule.candidate
    monkeypatch.setattr(schedule, "candidate", lambda *args, **more: looked.append(1) or candidate(*args, **more))
    assert trainer.step() is None
    assert not looked
    clock.us += 60 * S
    assert trainer.step().body["trained"] == [[1, 2]]
    assert looked


def test_more_rows_than_a_candidate_has_are_waited_for_and_learned(feed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import schedule

    loop, trainer, _ = begun(feed, min_rows=50)
    monkeypatch.setattr(schedule, "MOST_ROWS", 25)
    for _ in range(2):
        loop.rows(20)
        assert trainer.step() is None
    loop.rows(20)
    assert [entry.body["trained"] for entry in iter(trainer.step, None)] == [[[1, 2]], [[2, 3]], [[3, 4]]]
    loop.rows(20)
    assert trainer.step() is None  # the next ones wait again


@pytest.mark.parametrize("lost_to", ["a restart", "a control record"])
def test_what_is_left_of_a_due_backlog_is_learned_after(
    feed: Any, monkeypatch: pytest.MonkeyPatch, lost_to: str
) -> None:
    from headrace import control
    from training import schedule
    from training.trainer import Trainer

    loop, trainer, clock = begun(feed, min_rows=50)
    monkeypatch.setattr(schedule, "MOST_ROWS", 25)
    for _ in range(3):
        loop.rows(20)
    assert trainer.step().body["trained"] == [[1, 2]]
    if lost_to == "a control record":
        control.pin(loop.loop, 0, by="test", reason="", now_us=0)
    trainer.close()
    again = Trainer(loop.loop, loop.settings, now_us=clock)
    assert [entry.body["trained"] for entry in iter(again.step, None)] == [[[2, 3]], [[3, 4]]]
    assert "due_until" not in loop.loop.version_log().head().body
    loop.rows(20)
    assert again.step() is None  # the next ones wait again
    again.close()
    assert Trainer(loop.loop, loop.settings, now_us=clock).step() is None


def test_rows_wait_for_their_time_and_a_restart_does_not_begin_it_anew(feed: Any) -> None:
    from training.trainer import Trainer

    loop, trainer, clock = begun(feed, every_s=60)
    loop.rows(20)
    clock.us += 59 * S
    assert trainer.step() is None
    trainer.close()
    again = Trainer(loop.loop, loop.settings, now_us=clock)
    assert again.step() is None
    clock.us += S
    assert again.step().body["trained"] == [[1, 2]]


def test_a_request_learns_what_waits(feed: Any) -> None:
    loop, trainer, _ = begun(feed, at="0 3 * * *")
    loop.rows(20)
    assert trainer.step() is None
    entry = trainer.step(request=ask(loop.loop, "retrain", {}, by="test", now_us=0))
    assert entry.body["trained"] == [[1, 2]]


def test_all_that_waits_when_a_trigger_is_due_is_learned_though_part_of_it_is_held(feed: Any) -> None:
    loop, trainer, _ = begun(feed, min_rows=60)
    loop.rows(20)
    bad = loop.poison(20)
    loop.rows(20)
    kinds = [entry.kind for entry in iter(trainer.step, None)]
    assert kinds == ["delta", "hold", "delta"]
    assert bad.seq == 2


def test_closed_windows_only(feed: Any) -> None:
    loop = feed("lr", train={"on": "window"})
    trainer = trainer_of(loop)
    loop.rows(30)
    assert trainer.step() is None
    loop.append(None, closed_us=60_000_000)
    assert trainer.step() is not None
    assert versions(loop)[-1].trained == ((0, 2),)


def test_of_a_refused_candidate_the_sound_records_are_trained(feed: Any) -> None:
    loop = feed("mlp", **NEVER)
    trainer = trainer_of(loop)
    loop.rows(60)
    bad = loop.poison()
    loop.append(None)
    loop.rows(30)
    kinds = []
    while (entry := trainer.step()) is not None:
        kinds.append(entry.kind)
    assert kinds == ["delta", "hold", "delta"]
    records = versions(loop)
    assert [record.trained for record in records[1:]] == [((0, 1),), (), ((2, 4),)]
    assert records[-1].held_now == ((bad.seq, bad.seq + 1),)


def test_a_trainer_that_is_stopped_does_not_wait_for_a_record_to_be_tried_on(feed: Any) -> None:
    loop = feed("lr", **LEARNING, gate={"wait_s": 3_600})
    trainer = trainer_of(loop)
    loop.rows(400)
    trainer.run(stop=lambda: len(versions(loop)) > 1 or trainer._dirty)
    loop.rows(400)
    trainer.run(stop=lambda: len(versions(loop)) > 2 or trainer._dirty)
    assert [one.gate.get("g3") for one in versions(loop)[1:]] == ["pending", "pending"]
