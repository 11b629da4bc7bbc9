"""The trainer's trials: broken candidates are not published, what proves worse is rolled back, nothing else is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from trainers import LEARNING, UNSURPRISED, flipped, learned, parameters, trainer_of, versions

from headrace import control
from headrace.requests import ask
from headrace.version import contains, trained_in
from training.trial import Sums

if TYPE_CHECKING:
    import pyarrow as pa

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]


def double(state: Any) -> None:
    bias = state.learner.weights["bias"]
    bias.assign_add(np.full(bias.shape, np.log(4), np.float32))


def permuted(state: Any) -> None:
    for table in state.learner.tables.values():
        rows = np.arange(table.index.used, dtype=np.int32)
        table.touch(rows)
        table._scatter(table.weights, rows, table.read(np.random.default_rng(0).permutation(rows)))


def constant(state: Any) -> None:
    for table in state.learner.tables.values():
        rows = np.arange(table.index.used, dtype=np.int32)
        table.touch(rows)
        table._scatter(table.weights, rows, np.zeros((len(rows), table.width), np.float32))
    for name, weight in state.learner.weights.items():
        if name != "bias":
            weight.assign(np.zeros(weight.shape, np.float32))


def exploding(state: Any) -> None:
    for weight in state.learner.weights.values():
        weight.assign(weight * 1e4)


def no_number(state: Any) -> None:
    state.learner.weights["bias"].assign(np.full(1, np.nan, np.float32))


def spoil(trainer: Any, monkeypatch: Any, damage: Any) -> None:
    """From now on what is learned is damaged afterwards."""
    learn = trainer._live.state.learn

    def spoiled(examples: Any, batch: Any) -> Any:
        logits = learn(examples, batch)
        damage(trainer._live.state)
        return logits

    monkeypatch.setattr(trainer._live.state, "learn", spoiled)


@pytest.mark.parametrize("damage", [double, permuted, constant, exploding, no_number], ids=lambda one: one.__name__)
def test_a_broken_candidate_is_never_published(feed: Any, monkeypatch: Any, damage: Any) -> None:
    loop = feed("lr", **LEARNING)
    trainer = trainer_of(loop)
    learned(loop, trainer, 10)
    before, digest = parameters(trainer), versions(loop)[-1].digest
    spoil(trainer, monkeypatch, damage)
    loop.rows(1_600)
    assert trainer.step().kind == "hold"
    assert (parameters(trainer), versions(loop)[-1].digest) == (before, digest)


@pytest.mark.parametrize("damage", [double, permuted], ids=lambda one: one.__name__)
def test_without_a_trial_on_its_own_rows_it_is(feed: Any, monkeypatch: Any, damage: Any) -> None:
    """The twin: the other gates let these pass."""
    loop = feed("lr", **LEARNING)
    trainer = trainer_of(loop)
    learned(loop, trainer, 10)
    monkeypatch.setattr(Sums, "worse", lambda _: "")
    spoil(trainer, monkeypatch, damage)
    loop.rows(1_600)
    assert trainer.step().kind == "delta"


def test_sound_versions_are_never_held_or_rolled_back_and_their_anchor_follows(feed: Any) -> None:
    loop = feed("lr", **LEARNING, gate={"rows": 400})
    trainer = trainer_of(loop)
    learned(loop, trainer, 40, rows=200)
    assert {one.kind for one in versions(loop)} == {"start", "delta"}
    newest = versions(loop)[-1]
    assert newest.version - newest.gate["trial"]["anchor"] <= 4
    verdicts = [verdict for one in versions(loop) for verdict in one.verdicts]
    assert {verdict["result"] for verdict in verdicts} == {"good"}
    assert len(verdicts) > 12


def test_a_trial_goes_on_after_a_restart(feed: Any) -> None:
    """The same versions, verdicts and bits as without one."""
    told = []
    for restarts in (False, True):
        loop = feed("lr", **LEARNING, gate={**UNSURPRISED, "rows": 500})
        trainer = trainer_of(loop)
        for record in range(14):
            if record == 10:
                loop.append(flipped(loop.made(300)))
            else:
                loop.rows(300)
            if restarts and record > 9:
                trainer.close()
                trainer = trainer_of(loop)
            trainer.step()
        told.append(
            ([(one.kind, one.to, one.digest, one.gate.get("trial")) for one in versions(loop)], parameters(trainer))
        )
    assert told[0] == told[1]
    assert "rollback" in {kind for kind, *_ in told[0][0]}


def test_a_change_of_regime_is_no_reason_to_go_back(feed: Any) -> None:
    loop = feed("lr", **LEARNING, gate=UNSURPRISED)
    trainer = trainer_of(loop)
    learned(loop, trainer, 12)
    for _ in range(6):
        loop.append(flipped(loop.made(400)))
        assert trainer.step().kind == "delta"


@pytest.mark.parametrize("wait_s", [0.5, 0.0], ids=["waits", "twin"])
def test_a_candidate_that_waits_is_tried_on_the_next_record_before_anybody_is_served(feed: Any, wait_s: float) -> None:
    """Poison that only a later record shows. The twin publishes it, and takes it back later."""
    loop = feed("lr", **LEARNING, gate={**UNSURPRISED, "wait_s": wait_s})
    trainer = trainer_of(loop)
    for _ in range(12):
        loop.rows(400)
    while trainer.step() is not None:
        pass
    settled = versions(loop)[-1].version
    bad = loop.append(flipped(loop.made(400)))
    sound = loop.rows(400)
    trainer._agenda._singly_until = sound.seq  # one record at a time, though both wait
    first = trainer.step()
    assert first.kind == ("hold" if wait_s else "delta")
    if not wait_s:
        return
    assert "G3: worse on a later record" in versions(loop)[-1].gate["reasons"][0]
    second = trainer.step()
    assert second.kind == "delta"
    lineage = trained_in(second.seq, lambda seq: versions(loop)[seq])
    assert [contains(lineage, one.seq) for one in (bad, sound)] == [False, True]
    assert second.seq == settled + 2


def held_by_a_rollback(loop: Any, trainer: Any, rows: pa.Table) -> tuple[int, int]:
    """The range of a shard record with `rows`, which was learned and gone back over."""
    good = versions(loop)[-1].version
    entry = loop.append(rows)
    assert trainer.step().kind == "delta"
    control.rollback(loop.loop, good, by="test", reason="", now_us=0)
    return entry.seq, entry.seq + 1


@pytest.mark.parametrize("tried", [True, False], ids=["tried", "twin"])
def test_what_is_released_is_tried_on_its_own_rows(feed: Any, monkeypatch: Any, tried: bool) -> None:
    loop = feed("lr", **LEARNING, gate=UNSURPRISED)
    trainer = trainer_of(loop)
    learned(loop, trainer, 12)
    shards = held_by_a_rollback(loop, trainer, loop.made(1_600))
    trainer._recover()
    if not tried:
        monkeypatch.setattr(Sums, "worse", lambda _: "")
    before = parameters(trainer)
    spoil(trainer, monkeypatch, double)
    entry = trainer.step(request=ask(loop.loop, "release", {"shards": [list(shards)]}, by="test", now_us=0))
    newest = versions(loop)[-1]
    assert (entry.kind, newest.held_now) == (("hold", (shards,)) if tried else ("delta", ()))
    if tried:
        assert newest.requests["outcomes"][0]["outcome"].startswith("refused: G2: worse on rows that it has learned")
        assert parameters(trainer) == before


@pytest.mark.parametrize("wait_s", [0.5, 0.0], ids=["waits", "twin"])
def test_what_is_released_is_tried_on_the_next_record(feed: Any, wait_s: float) -> None:
    loop = feed("lr", **LEARNING, gate={**UNSURPRISED, "rows": 10**6, "wait_s": wait_s})
    trainer = trainer_of(loop)
    for _ in range(12):
        loop.rows(400)
    while trainer.step() is not None:
        pass
    shards = held_by_a_rollback(loop, trainer, flipped(loop.made(400)))
    loop.rows(400)
    entry = trainer.step(request=ask(loop.loop, "release", {"shards": [list(shards)]}, by="test", now_us=0))
    assert (entry.kind, versions(loop)[-1].held_now) == (("hold", (shards,)) if wait_s else ("delta", ()))
    if wait_s:
        assert "G3: worse on a later record" in versions(loop)[-1].requests["outcomes"][0]["outcome"]


def test_what_is_released_says_nothing_of_what_is_served(feed: Any) -> None:
    """Its rows are of another time: the trial goes on without them."""
    loop = feed("lr", **LEARNING, gate={**UNSURPRISED, "rows": 10**6})
    trainer = trainer_of(loop)
    learned(loop, trainer, 3)
    shards = held_by_a_rollback(loop, trainer, loop.made(400))
    learned(loop, trainer, 1)
    trial = versions(loop)[-1].gate["trial"]
    trainer.step(request=ask(loop.loop, "release", {"shards": [list(shards)]}, by="test", now_us=0))
    assert (versions(loop)[-1].released, versions(loop)[-1].gate["trial"]) == ((shards,), trial)


def test_a_candidate_that_nothing_comes_after_is_published_pending(feed: Any) -> None:
    loop = feed("lr", **LEARNING, gate={"wait_s": 0.1})
    trainer = trainer_of(loop)
    learned(loop, trainer, 2)
    assert [one.gate.get("g3") for one in versions(loop)[1:]] == ["pending", "pending"]


def test_a_pin_does_not_end_the_trial(feed: Any) -> None:
    loop = feed("lr", **LEARNING, gate={**UNSURPRISED, "rows": 10**6})
    trainer = trainer_of(loop)
    learned(loop, trainer, 3)
    trial = versions(loop)[-1].gate["trial"]
    assert trial["sums"]["n"] > 0
    control.pin(loop.loop, 1, by="cli", reason="", now_us=0)
    assert versions(loop)[-1].gate["trial"] == trial
    loop.rows(400)
    trainer.step()
    assert versions(loop)[-1].gate["trial"]["anchor"] == trial["anchor"]
    assert versions(loop)[-1].gate["trial"]["sums"]["n"] > trial["sums"]["n"]


@pytest.mark.parametrize("policy", ["stop", "learn"])
def test_after_max_holds_the_loop_learns_or_stops_as_it_was_told(feed: Any, policy: str) -> None:
    loop = feed("lr", **LEARNING, gate={"surprise": 3.0, "on_max_holds": policy})
    trainer = trainer_of(loop)
    learned(loop, trainer, 14)
    for _ in range(4):
        loop.append(flipped(loop.made(400)))
    kinds = [entry.kind for entry in iter(trainer.step, None)]
    if policy == "learn":
        assert kinds == ["hold"] * 3 + ["delta"]
        return
    assert kinds == ["hold"] * 3
    assert "until `headrace retrain`" in trainer._info()["problem"]
    entry = trainer.step(request=ask(loop.loop, "retrain", {}, by="test", now_us=0))
    assert (entry.kind, entry.body["trained"]) == ("delta", [[17, 18]])
