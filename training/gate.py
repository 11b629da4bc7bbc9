"""The gate: whether a candidate may be published. Pure; `training/golden.py` and the trainer measure.

S  surprise    the labels of a record cost far more than the weights expected (training/surprise.py). After `max_holds`
               refusals in a row it is waived: then the world has changed, and the loop must learn that
G0 structure   every weight and row finite; shapes as the design says; the norm of the tower at most `norm_ratio`
               times that of the version before
G1 golden      requests from the newest record, scored by headrace.scoring (what the server runs) on published rows
               and by TensorFlow: finite, at most `golden_tolerance` apart, not all the same
G2 shift       rows of the newest record by the candidate, which has learned them, and by the version that it changes:
               not worse (training/trial.py)
G3 later       the same, on records that the candidate has not learned. Within `wait_s` before it is published, else
               marked pending, and the verdict stands in a later version
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.trial import Sums

SMALL_NORM = 1.0
"""A tower below it has only begun to learn (lr begins with zeros): it is not compared with its own norm."""


@dataclass(frozen=True)
class Golden:
    """n scores by both paths; distinct_inputs: among the n requests; spread: greatest minus smallest score."""

    n: int
    distinct_inputs: int
    finite: bool
    difference: float
    spread: float


@dataclass(frozen=True)
class Report:
    """What was measured of a candidate. norm_before: None if no version of the lineage was published yet.

    surprise, greatest: see training/surprise.py; shift: on the newest rows, the version before as the anchor;
    correction: the part of the offset that late positives add.
    """

    finite: bool
    shapes: bool
    norm: float
    norm_before: float | None
    golden: Golden | None
    surprise: float | None = None
    greatest: float = 0.0
    shift: Sums | None = None
    correction: float = 0.0


@dataclass(frozen=True)
class Limits:
    """`[gate]` of the settings."""

    golden_tolerance: float
    norm_ratio: float
    surprise: float = float("inf")


@dataclass(frozen=True)
class Decision:
    """action: publish | hold; reasons: why it is held, one sentence each; g3: pending | good | worse."""

    action: str
    reasons: tuple[str, ...]
    report: Report
    g3: str = "pending"

    def to_json(self) -> dict[str, Any]:
        """The `gate` of a version record; what is not finite is null."""
        report = asdict(self.report)
        report["norm"] = _finite(report["norm"])
        if report["golden"]:
            report["golden"] = {name: _finite(value) for name, value in report["golden"].items()}
        return {"action": self.action, "reasons": list(self.reasons), "g3": self.g3, **report}


def decide(report: Report, limits: Limits) -> Decision:
    """Publish or hold; every check that fails is named.

    >>> limits = Limits(golden_tolerance=1e-5, norm_ratio=10.0)
    >>> decide(Report(True, True, 30.0, 2.0, None), limits).reasons
    ('G0: the norm of the tower went from 2 to 30, more than 10 times',)
    """
    reasons = [*_structure(report, limits)]
    if report.surprise is not None and report.surprise > limits.surprise:
        reasons.append(
            f"surprise: the labels of a record are {report.surprise:.1f} standard deviations worse than expected, "
            f"more than {limits.surprise:g}"
        )
    if report.finite and report.golden is not None:
        reasons += _golden(report.golden, limits)
    if report.finite and report.shift is not None and report.shift.worse():
        reasons.append(f"G2: worse on rows that it has learned: {report.shift.worse()}")
    return Decision("hold" if reasons else "publish", tuple(reasons), report)


def tried(decision: Decision, sums: Sums) -> Decision:
    """The decision to publish, after the candidate stood beside the version before on a later record."""
    reason = sums.worse()
    if not reason:
        return replace(decision, g3="good")
    return replace(decision, action="hold", reasons=(f"G3: worse on a later record: {reason}",), g3="worse")


def _structure(report: Report, limits: Limits) -> list[str]:
    reasons = []
    if not report.finite:
        reasons.append("G0: a weight is not finite")
    if not report.shapes:
        reasons.append("G0: a weight does not have the shape that the model kind gives it")
    before = report.norm_before
    if report.finite and before is not None and report.norm > limits.norm_ratio * max(before, SMALL_NORM):
        reasons.append(
            f"G0: the norm of the tower went from {before:.4g} to {report.norm:.4g}, "
            f"more than {limits.norm_ratio:.4g} times"
        )
    return reasons


def _golden(golden: Golden, limits: Limits) -> list[str]:
    reasons = []
    if not golden.finite:
        return ["G1: a golden score is not finite"]
    if golden.difference > limits.golden_tolerance:
        reasons.append(f"G1: the served scores differ from TensorFlow's by {golden.difference:.2g}")
    if golden.distinct_inputs > 1 and golden.spread == 0:
        reasons.append(f"G1: {golden.distinct_inputs} different requests all get the same score")
    return reasons


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
