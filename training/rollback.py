"""The trainer's own rollback: its record, once a trial says that what is served is worse than the anchor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headrace import control, lines
from headrace.errors import HeadraceError
from training.trial import Trial

if TYPE_CHECKING:
    from headrace.loop import Loop
    from headrace.version import VersionRecord
    from training.head import Head
    from training.trial import Verdict


def way_back(loop: Loop, head: Head, trial: Trial, verdict: Verdict, *, most: int, now_us: int) -> VersionRecord | None:
    """The record after `head` that goes back to the anchor: what was learned since is held.

    None, and said why, if the loop goes on with what is worse: after `most` rollbacks in a row, or where the anchor is
    no longer kept. trial: what the verdict is on.
    """
    if trial.rollbacks >= most:
        lines.GATE_MAX_ROLLBACKS(f"{verdict.reason}; the loop goes on", row=trial.rollbacks)
        return None
    try:
        back = control.planned_rollback(loop, head.record, verdict.anchor, head.history, now_us=now_us)
    except HeadraceError as error:
        lines.TRAINER_NO_WAY_BACK(f"{verdict.reason}; {error.message}", version=verdict.anchor)
        return None
    begun = Trial(back.version, rollbacks=trial.rollbacks + 1)
    gate = {"action": "rollback", "by": "trainer", "reason": verdict.reason, "trial": begun.to_json()}
    return replace(back, gate=gate, verdicts=(verdict.to_json(),))
