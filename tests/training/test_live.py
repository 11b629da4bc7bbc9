"""The live weights and the published table: as of the head after a restart, and after what was refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from settings import ITEM, UNREAD, USER, settings_text
from trainers import parameters, trainer_of, versions

from headrace.delta import decode_rows
from headrace.published import PublishedTable

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]

OFTEN = {"train": {"checkpoint_every_s": 1e-6, "snapshot_every": 2}}
NEVER = {"train": {"checkpoint_every_s": 1e9, "snapshot_every": 10**6}}


def test_replicas_that_fold_the_deltas_hold_what_the_digest_says(feed: Any) -> None:
    from headrace.delta import load_delta

    loop = feed("mlp", train={"encoding": "f32", "checkpoint_every_s": 1e9})
    trainer = trainer_of(loop)
    table = PublishedTable(trainer._design.tables)
    for rows in (200, 30, 10):
        loop.rows(rows)
        trainer.step()
        record = versions(loop)[-1]
        table.apply(load_delta(loop.loop.store, record.delta.path, record.delta.sha256))
        assert table.digest().to_json() == record.digest
    learned = trainer._live.state.learner.tables["embedding"]
    scale, rows, found = table.lookup("embedding", learned.index.ids)
    assert found.all()
    np.testing.assert_array_equal(rows.view("<f4"), learned.read(np.arange(learned.index.used, dtype=np.int32)))
    assert (scale == 1).all()


@pytest.mark.parametrize("sections", [OFTEN, NEVER], ids=["checkpoints", "from the start"])
def test_a_restarted_trainer_has_the_same_bits(feed: Any, sections: Any) -> None:
    loop = feed("dcn_v2", **sections)
    trainer = trainer_of(loop)
    for rows in (200, 3, 40, 7):
        loop.rows(rows)
        trainer.step()
        if rows == 3:
            trainer = trainer_of(loop)
    again = trainer_of(loop)
    assert parameters(again) == parameters(trainer)
    assert again._live.published.digest() == trainer._live.published.digest()
    records = versions(loop)
    assert [record.version for record in records] == [0, 1, 2, 3, 4]
    if sections is OFTEN:
        assert records[-1].checkpoint.of == 4
        assert records[-1].snapshot.of == 4


@pytest.mark.parametrize("undone", [True, False], ids=["undone", "twin"])
def test_a_held_candidate_leaves_the_weights_as_they_were(feed: Any, monkeypatch: Any, undone: bool) -> None:
    """The twin: without the journal, what was held stays in the weights."""
    from training.gate import Decision

    loop = feed("lr", **NEVER)
    trainer = trainer_of(loop)
    loop.rows(200)
    trainer.step()
    before = parameters(trainer)
    monkeypatch.setattr("training.trainer.decide", lambda report, _: Decision("hold", ("refused",), report))
    if not undone:
        monkeypatch.setattr(type(trainer._live.state), "undo", lambda self: None)
    loop.rows(200)
    assert trainer.step().kind == "hold"
    assert (parameters(trainer) == before) == undone


def test_after_a_recovery_under_other_rates_replicas_get_what_was_learned(feed: Any) -> None:
    """Twin: a recovery that calls its rows published leaves the difference for good."""
    apart = {}
    for twin in (False, True):
        loop = feed("mlp", **(OFTEN | {"train": {"checkpoint_every_s": 1e9, "encoding": "f32"}}))
        trainer = trainer_of(loop)
        for _ in range(2):  # the first makes a checkpoint, the second is replayed
            loop.rows(200)
            trainer.step()
        loop.settings = loop.settings.replace("train", lr_linear=0.5)
        again = trainer_of(loop)
        if twin:
            again._live.state.settle()
        loop.rows(1)
        again.step()
        published = again._live.published
        apart[twin] = max(
            float(np.abs(rows.rows - decode_rows(*published.lookup(rows.spec.name, rows.ids)[:2], rows.spec)).max())
            for rows in everything(again)
        )
    assert apart[False] == 0
    assert apart[True] > 0.01


def everything(trainer: Any) -> Any:
    """All rows as learned."""
    from training.publish import learned_rows

    for table in trainer._live.state.learner.tables.values():
        table.touched[: len(table.index.ids)] = True
    return learned_rows(trainer._design.tables, trainer._live.state.learner.tables)


def test_a_model_without_a_tower_keeps_its_bias_as_the_offset(feed: Any) -> None:
    from headrace.config import parse

    text = settings_text(USER, ITEM, loop={"name": "test", "root": "memory://x"}, **UNREAD, model={"kind": "lr"})
    loop = feed("lr")
    loop.settings = parse(text)
    trainer = trainer_of(loop)
    loop.rows(100)
    trainer.step()
    record = versions(loop)[-1]
    assert record.offset == pytest.approx(float(trainer._live.state.tower_weights()["bias"][0]))
    assert record.digest["tower"] == ""
    assert record.gate["golden"]["difference"] <= 1e-5
