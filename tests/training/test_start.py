"""How a lineage begins, and who goes on from it."""

from __future__ import annotations

from typing import Any

import pytest
from trainers import trainer_of, versions

from headrace import control, status
from headrace.clock import now_us as trainer_now
from headrace.errors import Busy
from headrace.requests import ask
from headrace.version import pin_of
from paramserver.replica import Replica
from training import start

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]

NEVER = {"train": {"checkpoint_every_s": 1e9, "snapshot_every": 10**6}}


def test_another_model_begins_a_lineage_that_learns_the_same_records(feed: Any) -> None:
    loop = feed("lr", **NEVER)
    trainer = trainer_of(loop)
    loop.rows(50)
    trainer.step()
    loop.settings = loop.settings.replace("model", kind="mlp")
    trainer_of(loop).step()
    assert [(record.kind, record.lineage) for record in versions(loop)] == [
        ("start", 0), ("delta", 0), ("start", 2), ("delta", 2)
    ]  # fmt: skip
    assert versions(loop)[-1].trained == ((0, 1),)


def test_other_features_begin_a_lineage_that_leaves_out_the_records_before(feed: Any, caplog: Any) -> None:
    loop = feed("lr", **NEVER)
    trainer_of(loop).close()
    loop.rows(50)
    trainer_of(loop).step()
    loop.rows(50)  # nobody has learned it, and nobody can any more
    loop.without("user_item")
    again = trainer_of(loop)
    assert "lineage.begun after=1" in caplog.text
    assert again.step() is None
    loop.rows(50)
    again.step()
    assert [(one.kind, one.lineage, one.trained) for one in versions(loop)[2:]] == [
        ("start", 2, ()), ("delta", 2, ((2, 3),))
    ]  # fmt: skip
    loop.rows(50)
    restarted = trainer_of(loop)
    restarted.step()
    assert versions(loop)[-1].trained == ((3, 4),)


@pytest.mark.parametrize("meanwhile", [True, False], ids=["meanwhile", "twin"])
def test_the_lineage_before_answers_until_the_new_one_has_learned(
    feed: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any, meanwhile: bool
) -> None:
    if not meanwhile:
        monkeypatch.setattr(start, "_learned", lambda before: None)
    loop = feed("lr", **NEVER)
    loop.rows(50)
    trainer_of(loop).step()
    served = Replica(loop.loop.store, loop.loop.version_log())
    served.poll()

    def answered() -> tuple[int, int]:
        """By a replica that followed, and by one that begins now."""
        fresh = Replica(loop.loop.store, loop.loop.version_log())
        served.poll(), fresh.poll()
        return served.generation().version, fresh.generation().version

    assert answered() == (1, 1)
    loop.without("user_item")
    trainer = trainer_of(loop)
    assert answered() == ((1, 1) if meanwhile else (2, 2))
    if not meanwhile:
        return
    assert "version 1 answers till then" in caplog.text
    control.pin(loop.loop, 0, by="test", reason="", now_us=0)
    assert answered() == (0, 0)
    control.pin(loop.loop, None, by="test", reason="", now_us=0)
    assert answered() == (1, 1)
    loop.settings = loop.settings.replace("model", kind="mlp")  # once more, before anything was learned
    trainer.close()
    trainer = trainer_of(loop)
    assert answered() == (1, 1)
    loop.rows(50)
    learned = trainer.step()
    assert answered() == (learned.seq, learned.seq)
    assert versions(loop)[-1].meanwhile is None


def test_another_model_does_not_begin_beside_a_living_trainer(feed: Any) -> None:
    loop = feed("lr", **NEVER)
    trainer_of(loop)
    status.beat(loop.loop.store, "trainer", {}, trainer_now(), nonce="deadbeef")
    loop.settings = loop.settings.replace("model", kind="mlp")
    with pytest.raises(Busy, match="another trainer runs on this root"):
        trainer_of(loop)
    assert len(versions(loop)) == 1


def test_a_trainer_whose_lineage_was_superseded_stops(feed: Any) -> None:
    loop = feed("lr", **NEVER)
    old = trainer_of(loop)
    loop.settings = loop.settings.replace("model", kind="mlp")
    trainer_of(loop)
    loop.rows(50)
    with pytest.raises(Busy, match=r"version 1 belongs to another model \(mlp\)"):
        old.step()
    assert [record.kind for record in versions(loop)] == ["start", "start"]


def test_a_new_lineage_keeps_the_pin_and_the_answered_requests(feed: Any) -> None:
    loop = feed("lr", **NEVER)
    trainer = trainer_of(loop)
    trainer.step(request=ask(loop.loop, "retrain", {}, by="test", now_us=0))
    log = loop.loop.version_log()
    pin = pin_of(versions(loop)[-1], 1, now_us=0, code="test")
    log.append(pin.kind, pin.to_body(), log.head())
    loop.settings = loop.settings.replace("model", kind="mlp")
    start = trainer_of(loop).record
    assert (start.kind, start.pinned, start.requests["cursor"]["seq"]) == ("start", 1, 0)
