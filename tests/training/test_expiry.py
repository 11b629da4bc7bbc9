"""Ids that no event has for their ttl lose their row; the row is taken again; nothing of it shows in any bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.published import PublishedTable
from headrace.version import VersionRecord
from paramserver.replica import Replica
from training.expiry import FOR_GOOD, Expiry

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]


def bits(trainer: Any) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in trainer._live.state.arrays().items()}


def published_ids(trainer: Any, table: str) -> set[int]:
    return {int(id_) for c in trainer._live.published.snapshot(0).changes if c.spec.name == table for id_ in c.ids}


def test_rows_go_once_their_time_is_over_and_then_the_stalest_of_too_many() -> None:
    newest_us = np.array([5, 64, 99, 900, 80, 70, 60], np.int64)
    feature = np.array([0, 0, FOR_GOOD, 0, 1, 1, 0], np.int16)
    expiry = Expiry((640, 6_400))
    assert expiry.gone(newest_us, feature, 7, 600, 705).tolist() == [0, 1, 6]
    assert expiry.gone(newest_us, feature, 7, 701, 709).tolist() == []  # T is in the same tenth as before
    full = Expiry((640, 6_400), max_rows=4)
    assert full.gone(newest_us, feature, 7, 0, 9).tolist() == [0, 6]  # the stalest; kept for good is not counted
    assert full.gone(newest_us, feature, 7, 600, 705).tolist() == [0, 1, 6]
    many = Expiry((), max_rows=32)
    every = np.arange(33), np.zeros(33, np.int16)
    assert many.gone(*every, 33, 0, 0).tolist() == [0, 1, 2]  # down to 15/16: not again at the next record


def test_rows_in_use_stay_few_however_many_ids_come_and_the_twin_grows(feed: Any, lasting: Any, ever_new: Any) -> None:
    from training.trainer import Trainer

    most = {}
    for ttl_s in (3.0, None):
        loop = feed("dcn_v2", train={"checkpoint_every_s": 1e9, "snapshot_every": 7})
        loop.settings = lasting(loop.settings, ttl_s)
        trainer = Trainer(loop.loop, loop.settings)
        replica = Replica(loop.loop.store, loop.loop.version_log())
        for record in range(40):
            loop.append(ever_new(loop.settings, record))
            trainer.step()
            assert replica.poll()
        assert replica.generation().tables.digest().to_json() == trainer.record.digest
        most[ttl_s] = {name: table.index.used for name, table in trainer._live.state.learner.tables.items()}
        assert most[ttl_s] == pytest.approx(
            {name: len(published_ids(trainer, name)) for name in most[ttl_s]}, rel=0.5 if ttl_s else 0
        )
        folded = {table.spec.name: table._used for table in trainer._live.published._tables}
        assert folded == pytest.approx(most[ttl_s], rel=0.4)
    assert most[3.0]["embedding"] < 6 * 41 + 20
    assert most[None]["embedding"] > 40 * 41


def test_an_id_that_comes_back_is_new_and_one_that_stays_is_not(feed: Any, lasting: Any, ever_new: Any) -> None:
    from training.table import init_rows
    from training.trainer import Trainer

    loop = feed("mlp", train={"encoding": "f32"})
    loop.settings = lasting(loop.settings, of=("user",))
    schema = loop.settings.schema()
    trainer = Trainer(loop.loop, loop.settings)
    for record in range(6):
        loop.append(ever_new(loop.settings, record))
        trainer.step()
    user, item = (int(ever_new(loop.settings, 0)[name][0].as_py()) for name in ("user", "item"))
    table = trainer._live.state.learner.tables["embedding"]
    assert table.index.find(np.array([user])).tolist() == [-1]
    assert table.index.find(np.array([item])).tolist() != [-1]
    assert user not in published_ids(trainer, "embedding")
    trainer._live.state.begin()
    row = table.rows_of(np.array([user]))
    np.testing.assert_array_equal(table.read(row), init_rows(np.array([user]), table.width, trainer._design.seed))
    assert (trainer._live.state.learner.tables["embedding"].slots.numpy()[row] == 1).all()
    trainer._live.state.undo()
    assert schema["item"].kind == "id"  # an open vocabulary, too, but without a ttl


@pytest.mark.parametrize("train", [{}, {"max_rows": 100}], ids=["ttl", "and max_rows"])
def test_a_restarted_trainer_has_the_same_bits_and_goes_on_to_the_same_rows(
    feed: Any, lasting: Any, ever_new: Any, train: Any
) -> None:
    from training.trainer import Trainer

    ends = []
    for restarts in (False, True):
        loop = feed("dcn_v2", train={"checkpoint_every_s": 1e-6 if restarts else 1e9, **train})
        loop.settings = lasting(loop.settings)
        trainer = Trainer(loop.loop, loop.settings)
        for record in range(14):
            loop.append(ever_new(loop.settings, record))
            trainer.step()
            if restarts and record % 3 == 0:
                loop.settings = loop.settings.replace("train", checkpoint_every_s=1e9 if record % 2 else 1e-6)
                before, trainer = trainer, Trainer(loop.loop, loop.settings)
                assert bits(trainer) == bits(before)
                assert trainer._live.published.digest() == before._live.published.digest()
        ends.append((bits(trainer), trainer.record.digest))
        if train:
            assert max(len(published_ids(trainer, name)) for name in ("linear", "embedding")) <= 100
    assert ends[0] == ends[1]


def test_a_held_record_expires_nothing(feed: Any, lasting: Any, ever_new: Any) -> None:
    from training.trainer import Trainer

    loop = feed("lr")
    loop.settings = lasting(loop.settings)
    trainer = Trainer(loop.loop, loop.settings)
    for record in range(3):
        loop.append(ever_new(loop.settings, record))
        trainer.step()
    before = bits(trainer)
    for _ in range(6):
        loop.append(None)  # time goes on
    bad = ever_new(loop.settings, 9)
    at = bad.column_names.index("label")
    loop.append(bad.set_column(at, "label", pa.array(np.full(len(bad), 3e38, np.float32))))
    assert trainer.step().kind == "hold"
    assert bits(trainer) == before
    loop.append(ever_new(loop.settings, 10))
    trainer.step()
    record = VersionRecord.from_entry(loop.loop.version_log().head())
    folded = PublishedTable(trainer._design.tables)
    folded.apply(trainer._live.published.snapshot(record.version))
    assert folded.digest().to_json() == record.digest
    assert len(published_ids(trainer, "linear")) < 2 * (40 + 40 + 2) + 5


def test_ids_in_use_stay_however_much_longer_dead_ones_may_live(feed: Any, lasting: Any, ever_new: Any) -> None:
    """The users come once and may live long, the items come always and may not."""
    from training.trainer import Trainer

    loop = feed("lr", train={"max_rows": 150})
    loop.settings = lasting(lasting(loop.settings, 3_600.0, of=("user", "user_item", "tags")), 60.0, of=("item",))
    trainer = Trainer(loop.loop, loop.settings)
    for record in range(12):
        loop.append(ever_new(loop.settings, record))
        trainer.step()
    index = trainer._live.state.learner.tables["linear"].index
    newest = ever_new(loop.settings, 11)
    for name in ("item", "user"):
        assert (index.find(np.unique(newest[name].to_numpy())) >= 0).all()
    assert index.live <= 150


@pytest.mark.parametrize("before_s", [None, 1_000.0], ids=["none", "a long one"])
@pytest.mark.parametrize("train", [{}, {"max_rows": 10_000}], ids=["", "max_rows"])
def test_a_ttl_that_is_set_or_shortened_later_reaches_the_rows_that_are_there(
    feed: Any, lasting: Any, ever_new: Any, before_s: Any, train: Any
) -> None:
    from training.trainer import Trainer

    loop = feed("lr", train={"checkpoint_every_s": 1e-6, **train})
    plain = loop.settings
    loop.settings = lasting(plain, before_s)
    trainer = Trainer(loop.loop, loop.settings)
    for record in range(5):
        loop.append(ever_new(plain, record))
        trainer.step()
    loop.settings = lasting(plain, 3.0)
    trainer = Trainer(loop.loop, loop.settings)
    for record in range(5, 15):
        loop.append(ever_new(plain, record))
        trainer.step()
    index = trainer._live.state.learner.tables["linear"].index
    assert index.live < 6 * 81 + 20
    assert published_ids(trainer, "linear") == set(index.ids.tolist()) - {-1}


def test_a_ttl_that_was_off_for_a_while_takes_no_id_in_use(feed: Any, lasting: Any, ever_new: Any) -> None:
    from training.trainer import Trainer

    loop = feed("lr", train={"checkpoint_every_s": 1e-6})
    plain = loop.settings
    for record in range(12):
        loop.settings = lasting(plain, None if 2 <= record < 8 else 3.0, of=("item",))
        loop.append(ever_new(plain, record))
        trainer = Trainer(loop.loop, loop.settings)
        trainer.step()
        items = np.unique(ever_new(plain, record)["item"].to_numpy())
        assert (trainer._live.state.learner.tables["linear"].index.find(items) >= 0).all()


RAISED_ROWS = {"max_rows": 200}, {"max_rows": 10_000}
LOWERED_ROWS = {"max_rows": 10_000}, {"max_rows": 200}
RAISED_ADMISSION = {"admission": 1}, {"admission": 3}
LOWERED_ADMISSION = {"admission": 3}, {"admission": 1}


@pytest.mark.parametrize(
    ("first", "then", "reconciled"),
    [
        pytest.param(*RAISED_ROWS, True, id="max_rows raised"),
        pytest.param(*RAISED_ROWS, False, id="twin: max_rows raised"),
        pytest.param(*LOWERED_ROWS, True, id="max_rows lowered"),
        pytest.param(*RAISED_ADMISSION, True, id="admission raised"),
        pytest.param(*RAISED_ADMISSION, False, id="twin: admission raised"),
        pytest.param(*LOWERED_ADMISSION, True, id="admission lowered"),
    ],
)
def test_what_a_replay_learns_with_other_settings_goes_out_with_the_next_version(
    feed: Any, ever_new: Any, monkeypatch: pytest.MonkeyPatch, first: Any, then: Any, reconciled: bool
) -> None:
    from training import live
    from training.trainer import Trainer

    if not reconciled:
        monkeypatch.setattr(live, "differing", lambda *_: 0)
    loop = feed("lr", train={"checkpoint_every_s": 1e9, **first})
    trainer = Trainer(loop.loop, loop.settings)
    for record in range(6):
        loop.append(ever_new(loop.settings, record))
        trainer.step()
    loop.settings = loop.settings.replace("train", **then)
    trainer = Trainer(loop.loop, loop.settings)
    loop.append(ever_new(loop.settings, 6))
    assert trainer.step().kind == "delta"
    learned = set(trainer._live.state.learner.tables["linear"].index.ids.tolist()) - {-1}
    assert (published_ids(trainer, "linear") == learned) is reconciled
