"""The trainer on a loop in memory: versions, lineage, gate, recovery, rivals."""

from __future__ import annotations

from typing import Any

import pytest
from trainers import flipped, parameters, trainer_of, versions

from headrace import control, metrics, status
from headrace.delta import Digest
from headrace.errors import Busy, SettingsError, StoreFull
from headrace.requests import ask
from headrace.version import contains, rollback_of, trained_in

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]

OFTEN = {"train": {"checkpoint_every_s": 1e-6, "snapshot_every": 2}}
NEVER = {"train": {"checkpoint_every_s": 1e9, "snapshot_every": 10**6}}


def test_a_loop_begins_with_the_prior_and_each_record_becomes_a_version(feed: Any) -> None:
    loop = feed("dcn_v2", **NEVER)
    trainer = trainer_of(loop)
    assert trainer.step() is None
    first = loop.rows(300)
    loop.append(None)
    last = loop.rows(50)
    trainer.step()
    loop.rows(50)
    trainer.step()
    start, one, two = versions(loop)
    assert (start.kind, start.prior, start.digest) == ("start", 0.2, Digest().to_json())
    assert (one.kind, one.base, one.trained, one.cursor) == ("delta", 0, ((first.seq, last.seq + 1),), last.cursor())
    assert (two.base, two.trained, two.lineage, two.watermark_us) == (1, ((3, 4),), 0, 4_000_000)
    assert two.max_emit_us == 3_500_049
    assert one.evaluation["live"]["n"] == 350
    assert "frozen" not in one.evaluation
    assert two.evaluation["frozen"]["of"] == 1
    assert two.gate["golden"]["difference"] <= 1e-5
    assert trained_in(2, lambda seq: versions(loop)[seq]) == ((0, 4),)


def test_the_first_rollback_is_an_increase_for_prometheus(feed: Any) -> None:
    metrics.VERSIONS.clear()
    trainer_of(feed("lr", **NEVER))
    exported = {sample.labels.get("kind") for sample in metrics.VERSIONS.collect()[0].samples}
    assert {"rollback", "hold"} <= exported


def test_two_trainers_give_the_same_version_from_the_same_records(feed: Any) -> None:
    digests = []
    for _ in range(2):
        loop = feed("lr", **NEVER)
        trainer = trainer_of(loop, now_us=lambda: 0)
        loop.rows(100)
        trainer.step()
        digests.append(versions(loop)[-1].digest)
    assert digests[0] == digests[1]


def test_a_poisoned_record_is_held_and_no_later_version_contains_it(feed: Any) -> None:
    loop = feed("dcn_v2", **OFTEN)
    trainer = trainer_of(loop)
    loop.rows(200)
    trainer.step()
    before = parameters(trainer)
    bad = loop.poison()
    entry = trainer.step()
    assert entry.kind == "hold"
    assert parameters(trainer) == before
    hold = versions(loop)[-1]
    assert hold.held == hold.held_now == ((bad.seq, bad.seq + 1),)
    assert hold.gate["reasons"] == ["G0: a weight is not finite"]
    assert (hold.delta, hold.cursor, hold.digest) == (None, bad.cursor(), versions(loop)[1].digest)
    loop.rows(40)
    assert trainer.step().kind == "delta"
    assert not contains(trained_in(3, lambda seq: versions(loop)[seq]), bad.seq)
    assert versions(loop)[-1].held_now == hold.held
    assert parameters(trainer_of(loop)) == parameters(trainer)


@pytest.mark.parametrize("gated", [True, False], ids=["gated", "twin"])
def test_records_with_flipped_labels_are_held_until_they_are_the_rule(feed: Any, gated: bool) -> None:
    """The twin has no limit to surprise, and learns them."""
    limit = {"gate": {"surprise": 3.0 if gated else 1e9}}
    loop = feed("dcn_v2", train={"checkpoint_every_s": 1e9, "lr_linear": 0.2}, **limit)
    trainer = trainer_of(loop)
    for _ in range(14):
        loop.rows(400)
        assert trainer.step().kind == "delta"
    before = parameters(trainer)
    held = []
    for _ in range(2):
        held.append(loop.append(flipped(loop.made(400))))
        assert trainer.step().kind == ("hold" if gated else "delta")
    assert (parameters(trainer) == before) == gated
    loop.rows(400)
    assert trainer.step().kind == "delta"
    learned = trained_in(versions(loop)[-1].version, lambda seq: versions(loop)[seq])
    assert [contains(learned, entry.seq) for entry in held] == [not gated] * 2
    if gated:
        assert "surprise" in versions(loop)[-2].gate["reasons"][0]
        assert parameters(trainer_of(loop)) == parameters(trainer)


def test_a_change_of_regime_is_learned(feed: Any) -> None:
    loop = feed("lr", train={"checkpoint_every_s": 1e9, "lr_linear": 0.2}, gate={"surprise": 3.0})
    trainer = trainer_of(loop)
    for _ in range(14):
        loop.rows(400)
        trainer.step()
    kinds = []
    for _ in range(8):
        loop.append(flipped(loop.made(400)))
        kinds.append(trainer.step().kind)
    assert kinds == ["hold"] * 3 + ["delta"] * 5


def test_a_request_that_leaves_nothing_to_train_gets_an_empty_version(feed: Any) -> None:
    loop = feed("lr", **NEVER)
    trainer = trainer_of(loop)
    loop.rows(50)
    trainer.step()
    request = ask(loop.loop, "retrain", {}, "me", 0)
    trainer.step(request=request)
    empty = versions(loop)[-1]
    assert (empty.kind, empty.delta, empty.trained) == ("delta", None, ())
    assert empty.requests == {
        "cursor": request.cursor().to_json(),
        "outcomes": [{"seq": request.seq, "outcome": "nothing to train"}],
    }
    assert empty.digest == versions(loop)[1].digest


def test_the_resident_trainer_answers_requests_once_and_stops(feed: Any) -> None:
    loop = feed("lr", **NEVER)
    trainer = trainer_of(loop)
    ask(loop.loop, "retrain", {}, "me", 0)
    loop.rows(20)
    polls = iter(range(4))
    trainer.run(stop=lambda: next(polls, None) is None, poll_s=0)
    ask(loop.loop, "retry", {"records": []}, "me", 0)  # the pipeline's
    polls = iter(range(4))
    trainer.run(stop=lambda: next(polls, None) is None, poll_s=0)
    ask(loop.loop, "stop", {}, "me", 0)
    trainer.run(stop=lambda: False, poll_s=0)
    outcomes = [record.requests["outcomes"] for record in versions(loop)]
    assert outcomes == [[], [{"seq": 0, "outcome": "trained"}], [{"seq": 2, "outcome": "stopped"}]]
    assert status.heartbeats(loop.loop.store) == []


def test_a_number_lost_to_a_control_record_is_folded_and_the_candidate_planned_anew(feed: Any) -> None:
    loop = feed("mlp", **NEVER)
    trainer = trainer_of(loop)
    for _ in range(2):
        loop.rows(50)
        trainer.step()
    log = loop.loop.version_log()
    head = log.head()
    record = rollback_of(versions(loop)[-1], 1, lambda seq: versions(loop)[seq], now_us=0, code="test")
    log.append(record.kind, record.to_body(), head)
    loop.rows(50)
    trainer.step()
    last = versions(loop)[-1]
    assert (last.version, last.base, last.trained, last.held_now) == (4, 3, ((2, 3),), ((1, 2),))
    assert trained_in(4, lambda seq: versions(loop)[seq]) == ((0, 1), (2, 3))
    assert parameters(trainer_of(loop)) == parameters(trainer)


def test_a_stop_that_loses_the_number_to_a_control_record_is_answered_after_it(feed: Any) -> None:
    loop = feed("lr")
    trainer = trainer_of(loop)
    loop.rows(60)
    trainer.step()
    stop = ask(loop.loop, "stop", {}, "me", 0)
    control.pin(loop.loop, 0, by="operator", reason="", now_us=0)
    trainer.run(stop=lambda: False, poll_s=0)
    assert [record.kind for record in versions(loop)] == ["start", "delta", "pin", "delta"]
    assert (versions(loop)[-1].requests["outcomes"], versions(loop)[-1].pinned) == (
        [{"seq": stop.seq, "outcome": "stopped"}],
        0,
    )


def test_a_request_that_the_own_lost_record_answered_is_not_answered_again(feed: Any) -> None:
    """The store lost the answer of the put that answered it: the record lands when its maker is dead."""
    loop = feed("lr")
    trainer = trainer_of(loop)
    loop.rows(60)
    trainer.step()
    request = ask(loop.loop, "retrain", {}, "me", 0)
    dead = trainer_of(loop)
    dead.step(request=request)
    trainer.step(request=request)
    told = [one for record in versions(loop) for one in record.requests["outcomes"]]
    assert told == [{"seq": request.seq, "outcome": "nothing to train"}]


def test_a_living_rival_stops_it(feed: Any) -> None:
    loop = feed("lr", **NEVER)
    trainer = trainer_of(loop)
    loop.rows(10)
    status.beat(loop.loop.store, "trainer", {}, trainer._now_us(), nonce="deadbeef")
    with pytest.raises(Busy, match="another trainer runs on this root"):
        trainer.step()
    assert len(versions(loop)) == 1


def test_a_pipeline_with_other_features_than_the_trainer_is_told(feed: Any) -> None:
    loop = feed("lr", **NEVER)
    trainer = trainer_of(loop)
    loop.rows(50)
    trainer.step()
    entry = loop.rows(5)
    body = dict(loop.log.read(entry.seq).body) | {"schema": "0123456789abcdef"}
    loop.head = loop.log.append("shard", body, entry)
    with pytest.raises(SettingsError, match="has the features 0123456789abcdef") as caught:
        trainer.step()
    assert "start both with the same settings" in caught.value.hint


def test_what_an_error_left_half_done_is_undone_before_the_next_step(feed: Any, monkeypatch: Any) -> None:
    loop = feed("mlp", **NEVER)
    trainer = trainer_of(loop)
    loop.rows(100)
    trainer.step()
    loop.rows(100)
    write = trainer._loop.store.write

    def full(path: str, data: Any) -> None:
        monkeypatch.setattr(trainer._loop.store, "write", write)
        raise StoreFull(f"no space for {path}")

    monkeypatch.setattr(trainer._loop.store, "write", full)
    with pytest.raises(StoreFull):
        trainer.step()
    trainer.step()
    assert trainer._live.state.rows == 200
    assert versions(loop)[-1].trained == ((1, 2),)
    assert parameters(trainer_of(loop)) == parameters(trainer)
