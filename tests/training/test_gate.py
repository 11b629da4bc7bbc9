"""The version gate: one case per rule, each beside the candidate that passes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from training.gate import Golden, Limits, Report, decide

GOOD_SCORES = Golden(n=64, distinct_inputs=60, finite=True, difference=3e-8, spread=0.2)
GOOD = Report(finite=True, shapes=True, norm=12.0, norm_before=11.0, golden=GOOD_SCORES)
LIMITS = Limits(golden_tolerance=1e-5, norm_ratio=10.0)


def test_a_sound_candidate_is_published() -> None:
    assert decide(GOOD, LIMITS).action == "publish"


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (replace(GOOD, finite=False, norm=float("nan"), golden=None), "G0: a weight is not finite"),
        (replace(GOOD, shapes=False), "G0: a weight does not have the shape"),
        (replace(GOOD, norm=111.0), "G0: the norm of the tower went from 11 to 111"),
        (replace(GOOD, golden=replace(GOOD_SCORES, finite=False)), "G1: a golden score is not finite"),
        (replace(GOOD, golden=replace(GOOD_SCORES, difference=2e-5)), "G1: the served scores differ"),
        (replace(GOOD, golden=replace(GOOD_SCORES, spread=0.0)), "G1: 60 different requests all get the same score"),
    ],
)
def test_each_rule_holds_and_says_why(report: Report, reason: str) -> None:
    decision = decide(report, LIMITS)
    assert decision.action == "hold"
    assert len(decision.reasons) == 1
    assert decision.reasons[0].startswith(reason)
    json.dumps(decision.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    "report",
    [
        replace(GOOD, norm_before=None, norm=1e6),
        replace(GOOD, norm_before=0.01, norm=9.0),
        replace(GOOD, golden=replace(GOOD_SCORES, distinct_inputs=1, spread=0.0)),
    ],
)
def test_what_cannot_be_judged_passes(report: Report) -> None:
    assert decide(report, LIMITS).action == "publish"
