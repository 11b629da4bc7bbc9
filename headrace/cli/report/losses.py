"""Log-loss of the weights that learn beside the frozen ones, over time, from the records of the versions.

The trainer scores every row just before it learns it, and writes the means over the n rows of a version into its record
(training/evaluate.py). Over several versions

    log_loss = sum n_i log_loss_i / sum n_i
    calibration = sum n_i mean(p)_i / sum n_i mean(y)_i,   n_i mean(p)_i = calibration_i positives_i

A record without a positive has no calibration to tell what was promised; where more than `LEFT_OUT` of the rows are in
such records, none is given: it would be too low.

Only versions that were published count, and only those whose record has both sides: the rows are the same ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.cli.report.records import Version

POINTS: Final = 40
LEFT_OUT: Final = 0.02
SIDES: Final = ("live", "frozen")


@dataclass(frozen=True)
class Point:
    """Versions that follow each other, `from_us` to `until_us` by commit."""

    from_us: int
    until_us: int
    versions: int
    n: int
    positives: float
    live: float
    frozen: float
    live_calibration: float | None
    frozen_calibration: float | None


def both(versions: Sequence[Version]) -> list[Version]:
    """Those with a log-loss of both sides."""
    return [one for one in versions if one.kind == "delta" and one.changed and all(_has(one, side) for side in SIDES)]


def _has(one: Version, side: str) -> bool:
    return one.evaluation.get(side, {}).get("log_loss") is not None


def points(versions: Sequence[Version], most: int = POINTS) -> list[Point]:
    """`both(versions)` in up to `most` groups of about as many rows each, in the order of time."""
    found = both(versions)
    if not found:
        return []
    rows = np.array([one.evaluation["live"]["n"] for one in found], np.float64)
    place = np.minimum(((np.cumsum(rows) - rows / 2) / rows.sum() * most).astype(int), most - 1)
    return [_point([found[i] for i in np.flatnonzero(place == group)]) for group in np.unique(place)]


def total(versions: Sequence[Version]) -> Point | None:
    """All of them as one."""
    return next(iter(points(versions, 1)), None)


def _point(group: Sequence[Version]) -> Point:
    told = {side: [one.evaluation[side] for one in group] for side in SIDES}
    n = sum(one["n"] for one in told["live"])
    loss = {side: sum(one["n"] * one["log_loss"] for one in told[side]) / n for side in SIDES}
    ratio = {side: _calibration(told[side]) for side in SIDES}
    return Point(
        group[0].committed_us,
        group[-1].committed_us,
        len(group),
        n,
        sum(one["positives"] for one in told["live"]),
        loss["live"],
        loss["frozen"],
        ratio["live"],
        ratio["frozen"],
    )


def _calibration(told: Sequence[Mapping[str, Any]]) -> float | None:
    known = [one for one in told if one.get("calibration") is not None]
    if sum(one["n"] for one in known) < (1 - LEFT_OUT) * sum(one["n"] for one in told):
        return None
    return float(sum(one["calibration"] * one["positives"] for one in known) / sum(one["positives"] for one in known))


def figures(versions: Sequence[Version]) -> dict[str, Any]:
    """What `--json` prints."""
    every = total(versions)
    return {
        "frozen_versions": sorted({one.evaluation["frozen"].get("of", -1) for one in both(versions)}),
        "total": asdict(every) if every else None,
        "curve": [asdict(point) for point in points(versions)],
    }
