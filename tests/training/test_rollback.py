"""What proves worse than what was served before is taken back; not more often than the loop can bear."""

from __future__ import annotations

from typing import Any

import pytest
from trainers import LEARNING, UNSURPRISED, flipped, learned, parameters, trainer_of, versions

from headrace.version import contains, trained_in
from training.trial import Trial, Verdict

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]


@pytest.mark.parametrize("judged", [True, False], ids=["judged", "twin"])
def test_a_version_that_proves_worse_is_rolled_back_and_its_rows_are_held(
    feed: Any, monkeypatch: Any, judged: bool
) -> None:
    """Poison that no gate sees: wrong labels, which are only wrong beside those that come later."""
    loop = feed("lr", **LEARNING, gate=UNSURPRISED)
    trainer = trainer_of(loop)
    learned(loop, trainer, 12)
    good, before = versions(loop)[-1], parameters(trainer)
    if not judged:
        monkeypatch.setattr(Trial, "verdict", lambda *_: None)
    bad = [loop.append(flipped(loop.made(400))), loop.append(flipped(loop.made(400)))]
    assert trainer.step().kind == "delta"
    sound = loop.rows(400)
    entry = trainer.step()
    if not judged:
        assert entry.kind == "delta"
        return
    back = versions(loop)[-1]
    assert (entry.kind, back.to, back.digest) == ("rollback", good.version, good.digest)
    assert (back.gate["by"], "log-loss" in back.gate["reason"]) == ("trainer", True)
    assert back.verdicts[0]["result"] == "worse"
    assert all(contains(back.held_now, one.seq) for one in bad)
    assert parameters(trainer) == before
    assert trainer.step().kind == "delta"  # what showed it is learned next
    lineage = trained_in(versions(loop)[-1].version, lambda seq: versions(loop)[seq])
    assert [contains(lineage, one.seq) for one in (*bad, sound)] == [False, False, True]
    assert parameters(trainer_of(loop)) == parameters(trainer)


def test_after_max_holds_rollbacks_in_a_row_the_loop_goes_on(feed: Any, monkeypatch: Any) -> None:
    """What looks worse whatever is learned must not keep it from learning."""
    loop = feed("lr", **LEARNING, gate={**UNSURPRISED, "max_holds": 2})
    trainer = trainer_of(loop)
    learned(loop, trainer, 3)
    monkeypatch.setattr(Trial, "verdict", lambda trial, _: Verdict(trial.anchor, trial.served[-1][0], "worse", 400))
    kinds = []
    for _ in range(12):
        loop.rows(400)
        kinds.append(trainer.step().kind)
    assert kinds.count("rollback") == 2
    assert kinds[-3:] == ["delta"] * 3
    assert versions(loop)[-1].verdicts[0]["result"] == "worse"  # told all the same
