"""Held shard records are released and trained by one version; what cannot be released is refused, and stays held."""

from __future__ import annotations

from typing import Any

import pytest
from trainers import parameters, trainer_of, versions

from headrace import control
from headrace.requests import ask
from headrace.version import contains, trained_in

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]

RARELY = {"train": {"checkpoint_every_s": 1e9, "snapshot_every": 10**6}}


def release(feed: Any, *ranges: tuple[int, int]) -> Any:
    return ask(feed.loop, "release", {"shards": [list(pair) for pair in ranges]}, by="test", now_us=0)


def rolled_back(feed: Any) -> Any:
    """A trainer of a loop whose shard records 1 and 2 are held by a rollback, and 3 was learned since."""
    loop = feed("lr", **RARELY)
    trainer = trainer_of(loop)
    for _ in range(3):
        loop.rows(60)
        trainer.step()
    control.rollback(loop.loop, 1, by="test", reason="", now_us=0)
    loop.rows(60)
    trainer.step()
    assert versions(loop)[-1].held_now == ((1, 3),)
    return loop, trainer


def learned(loop: Any) -> list[int]:
    ranges = trained_in(versions(loop)[-1].version, lambda seq: versions(loop)[seq])
    return [seq for seq in range(10) if contains(ranges, seq)]


def test_what_is_released_is_learned_and_no_longer_held(feed: Any) -> None:
    loop, trainer = rolled_back(feed)
    before = versions(loop)[-1]
    request = release(loop, (1, 3))
    entry = trainer.step(request=request)
    record = versions(loop)[-1]
    assert (entry.kind, record.trained, record.released, record.held_now) == ("delta", ((1, 3),), ((1, 3),), ())
    assert (record.cursor, record.watermark_us) == (before.cursor, before.watermark_us)
    assert record.requests["outcomes"] == [{"seq": request.seq, "outcome": "released"}]
    assert learned(loop) == [0, 1, 2, 3]
    assert parameters(trainer_of(loop)) == parameters(trainer)  # after a restart, too


def test_some_of_what_is_held_is_released(feed: Any) -> None:
    loop, trainer = rolled_back(feed)
    trainer.step(request=release(loop, (2, 3)))
    assert versions(loop)[-1].held_now == ((1, 2),)
    assert learned(loop) == [0, 2, 3]


def test_a_rollback_over_a_release_holds_them_again(feed: Any) -> None:
    loop, trainer = rolled_back(feed)
    target = versions(loop)[-1].version
    trainer.step(request=release(loop, (1, 3)))
    control.rollback(loop.loop, target, by="test", reason="", now_us=0)
    loop.rows(60)
    trainer.step()
    assert versions(loop)[-1].held_now == ((1, 3),)
    assert learned(loop) == [0, 3, 4]


def test_what_a_rollback_forward_brings_back_is_learned_and_cannot_be_released(feed: Any) -> None:
    loop, trainer = rolled_back(feed)
    control.rollback(loop.loop, 3, by="test", reason="", now_us=0)
    assert (versions(loop)[-1].held_now, versions(loop)[-1].released) == (((3, 4),), ((1, 3),))
    loop.rows(60)
    trainer.step()
    trainer.step(request=release(loop, (1, 3)))
    assert "shard record 1 is not held" in versions(loop)[-1].requests["outcomes"][0]["outcome"]
    assert learned(loop) == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("shards", "reason"),
    [((0, 1), "shard record 0 is not held"), ((2, 4), "shard record 3 is not held"), ((9, 10), "is not held")],
)
def test_what_is_not_held_cannot_be_released(feed: Any, shards: Any, reason: str) -> None:
    loop, trainer = rolled_back(feed)
    before = parameters(trainer)
    trainer.step(request=release(loop, shards))
    record = versions(loop)[-1]
    assert reason in record.requests["outcomes"][0]["outcome"]
    assert (record.held_now, record.trained, parameters(trainer)) == (((1, 3),), (), before)


def test_twice_is_once(feed: Any) -> None:
    loop, trainer = rolled_back(feed)
    trainer.step(request=release(loop, (1, 2)))
    trainer.step(request=release(loop, (1, 2)))
    assert versions(loop)[-1].requests["outcomes"][0]["outcome"] == "refused: shard record 1 is not held"
    assert learned(loop) == [0, 1, 3]


def test_what_is_no_longer_kept_cannot_be_released(feed: Any) -> None:
    loop, trainer = rolled_back(feed)
    loop.loop.store.delete("shards/log/000000000001.json")
    trainer.step(request=release(loop, (1, 3)))
    assert "retention.held_s" in versions(loop)[-1].requests["outcomes"][0]["outcome"]


def test_what_makes_the_weights_overflow_stays_held(feed: Any) -> None:
    loop = feed("lr", **RARELY)
    trainer = trainer_of(loop)
    loop.rows(60)
    trainer.step()
    bad = loop.poison()
    assert trainer.step().kind == "hold"
    before = parameters(trainer)
    entry = trainer.step(request=release(loop, (bad.seq, bad.seq + 1)))
    record = versions(loop)[-1]
    assert (entry.kind, record.held_now, record.held) == ("hold", ((bad.seq, bad.seq + 1),), ())
    assert record.requests["outcomes"][0]["outcome"] == "refused: G0: a weight is not finite"
    assert parameters(trainer) == before


def test_a_request_answers_those_that_nobody_answered_before_it(feed: Any) -> None:
    """They were asked while no trainer ran; the cursor of the requests would pass over them for ever."""
    loop, trainer = rolled_back(feed)
    asked = [release(loop, (1, 2)), release(loop, (9, 10)), ask(loop.loop, "retrain", {}, by="test", now_us=0)]
    later = ask(loop.loop, "retrain", {}, by="test", now_us=0)
    trainer.step(request=asked[-1])
    told = [one for record in versions(loop) for one in record.requests.get("outcomes", [])]
    assert [one["seq"] for one in told] == [request.seq for request in asked]
    assert [one["outcome"].partition(":")[0] for one in told] == ["released", "refused", "nothing to train"]
    trainer.step(request=later)
    assert versions(loop)[-1].requests["cursor"]["seq"] == later.seq
    assert learned(loop) == [0, 1, 3]


def test_a_resident_trainer_answers_requests_in_their_order(feed: Any) -> None:
    loop, trainer = rolled_back(feed)
    asked = [
        ask(loop.loop, "retrain", {}, by="test", now_us=0),
        release(loop, (1, 2)),
        ask(loop.loop, "retrain", {}, by="test", now_us=0),
    ]
    trainer.run(stop=lambda: versions(loop)[-1].requests["cursor"] == asked[-1].cursor().to_json(), poll_s=0.01)
    told = [one["outcome"] for record in versions(loop) for one in record.requests.get("outcomes", [])]
    assert told == ["nothing to train", "released", "nothing to train"]
