"""The newest version and the past before it: kept up to date, and read back."""

from __future__ import annotations

from typing import Any

import pytest
from trainers import LEARNING, flipped, learned, parameters, trainer_of, versions

from headrace.errors import Ambiguous

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]

NEVER = {"train": {"checkpoint_every_s": 1e9, "snapshot_every": 10**6}}


def test_a_commit_whose_answer_was_lost_leaves_a_log_that_can_be_read(feed: Any, monkeypatch: Any) -> None:
    loop = feed("mlp", **NEVER)
    trainer = trainer_of(loop)
    loop.rows(100)
    append = trainer._log.append

    def lost(*arguments: Any) -> Any:
        monkeypatch.setattr(trainer._log, "append", append)
        append(*arguments)
        raise Ambiguous("the answer was lost")

    monkeypatch.setattr(trainer._log, "append", lost)
    with pytest.raises(Ambiguous):
        trainer.step()
    assert trainer.step() is None
    loop.rows(100)
    trainer.step()
    assert [record.trained for record in versions(loop)] == [(), ((0, 1),), ((1, 2),)]
    assert parameters(trainer_of(loop)) == parameters(trainer)


def test_what_is_kept_up_to_date_is_what_a_restart_reads(feed: Any) -> None:
    from training.head import Head

    loop = feed("lr", **LEARNING, gate={"surprise": 3.0})
    trainer = trainer_of(loop)
    learned(loop, trainer, 12)
    loop.append(flipped(loop.made(400)))
    assert trainer.step().kind == "hold"
    read = Head(loop.loop.version_log(), 3.0)
    read.read()
    kept = trainer._head
    assert (read.version, read.record, read.decided_us) == (kept.version, kept.record, kept.decided_us)
    assert (read.past, read.past.row) == (kept.past, 1)
