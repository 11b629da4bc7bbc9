"""What a backtest prints: a table, or JSON, a picture, and a few words."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.cli import terminal
from headrace.cli.freshness.measure import Measure, measure
from headrace.clock import SECOND_US, duration, iso

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PICTURE_POINTS = 20

REFERENCE = {
    "frozen": (0.654, 0.5087),
    "30d": (0.677, 0.5034),
    "1d": (0.693, 0.4881),
    "1h": (0.709, 0.4793),
    "10m": (0.711, 0.4781),
}
"""Flights: AUC and log-loss of a hashed logistic regression that learns example by example (the data set's README)."""


@dataclass(frozen=True)
class Result:
    """A finished backtest. times_us int64 [n], labels float32 [n] (NaN = none), scores {arm: float32 [n]}."""

    cut_us: int
    times_us: NDArray[np.int64]
    labels: NDArray[np.float32]
    scores: Mapping[str, NDArray[np.float32]]
    stages: Mapping[str, float]

    def measures(self) -> dict[str, Measure]:
        """One measure per arm, in the order asked for."""
        return {arm: measure(self.labels, scores) for arm, scores in self.scores.items()}

    def to_json(self) -> dict[str, Any]:
        """`{arm: {"auc", "log_loss", "calibration", "n"}, …, "stages": {stage: seconds}}`."""
        stages = {stage: round(seconds, 2) for stage, seconds in self.stages.items()}
        return {**{arm: one.to_json() for arm, one in self.measures().items()}, "stages": stages}


def as_text(result: Result, *, reference: bool) -> str:
    """The table; beside the flights' reference where asked for."""
    head: tuple[str, ...] = ("refresh", "AUC", "log-loss", "calibration", "scored")
    if reference:
        head += ("reference AUC", "reference log-loss")
    rows = []
    for arm, one in result.measures().items():
        row: tuple[str, ...] = (arm, f"{one.auc:.4f}", f"{one.log_loss:.4f}", f"{one.calibration:.3f}", f"{one.n:,}")
        if reference:
            known = REFERENCE.get(arm)
            row += (f"{known[0]:.3f}", f"{known[1]:.4f}") if known else ("-", "-")
        rows.append(row)
    spent = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in result.stages.items() if seconds >= 0.5)
    return f"{terminal.table(rows, head)}\n\ntime: {spent}"


def words(result: Result, *, example: bool) -> str:
    """What was seen, and what to try next."""
    measures = result.measures()
    ranked = list(measures.items())
    if len(ranked) < 2 or any(np.isnan(one.auc) for one in measures.values()):
        return ""
    stale, fresh = ranked[0], ranked[-1]
    gain = stale[1].log_loss - fresh[1].log_loss
    spent = duration((int(result.times_us[-1]) - result.cut_us) / SECOND_US)
    share = f"{abs(gain) / stale[1].log_loss:.1%}"
    verb = "lower" if gain > 0 else "higher"
    lines = [
        f"Seen: over {spent} from {iso(result.cut_us)}, refresh {fresh[0]} instead of {stale[0]} gave",
        f"      {share} {verb} log-loss and an AUC of {fresh[1].auc:.3f} instead of {stale[1].auc:.3f}. Each of the",
        f"      {fresh[1].n:,} impressions was scored over gRPC by a version that knew only labels from before it.",
    ]
    if example:
        lines += [
            "Next: headrace backtest --example flights --every frozen,1d,1h     the worth of an hour (20 minutes)",
            "      headrace backtest --example flights --every frozen,7d,1d --plot curve.png",
            "      headrace init --from YOUR_EVENTS && headrace backtest                your own events",
        ]
    else:
        lines.append("Next: headrace pipeline run, headrace train --watch, headrace serve          the same, live")
    return "\n".join(lines)


def plot(result: Result, path: Path) -> None:
    """AUC and log-loss over time, one line per arm."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import dates
    from matplotlib import pyplot as plt

    slices = _slices(len(result.times_us))
    middles = [np.datetime64(int(result.times_us[low:high].mean()), "us") for low, high in slices]
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(9, 6), layout="constrained")
    for arm, scores in result.scores.items():
        curve = [measure(result.labels[low:high], scores[low:high]) for low, high in slices]
        axes[0].plot(middles, [one.auc for one in curve], label=arm)
        axes[1].plot(middles, [one.log_loss for one in curve], label=arm)
    axes[0].set_ylabel("AUC")
    axes[1].set_ylabel("log-loss")
    axes[0].legend(title="refresh", frameon=False, ncols=len(result.scores))
    axes[1].xaxis.set_major_formatter(dates.ConciseDateFormatter(axes[1].xaxis.get_major_locator()))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _slices(rows: int) -> Sequence[tuple[int, int]]:
    cuts = np.linspace(0, rows, min(PICTURE_POINTS, max(1, rows // 200)) + 1).astype(int)
    return [(int(low), int(high)) for low, high in itertools.pairwise(cuts) if high > low]
