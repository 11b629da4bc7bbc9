"""What a backtest prints: a table, or JSON, a picture, and a few words.

With scores of another model (`beside`), every line is of the impressions that this model scored, too, so that all are
measured on the same rows.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headrace.cli import terminal
from headrace.cli.freshness.measure import Measure, losses, measure
from headrace.clock import SECOND_US, duration, iso

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from headrace.cli.freshness.predictions import Predictions

PICTURE_POINTS = 20
YOURS: Final = "yours"
"""The line of the other model. No refresh interval has that name."""

REFERENCE = {
    "frozen": (0.654, 0.5087),
    "30d": (0.677, 0.5034),
    "1d": (0.693, 0.4881),
    "1h": (0.709, 0.4793),
    "10m": (0.711, 0.4781),
}
"""Flights: AUC and log-loss of a hashed logistic regression that learns example by example (the data set's README)."""


@dataclass(frozen=True)
class Compared:
    """Where the scores of the other model came from: `rows` in the file, `matched` of the `scored` impressions."""

    file: str
    column: str
    rows: int
    matched: int
    scored: int


@dataclass(frozen=True)
class Result:
    """A finished backtest. times_us int64 [n], labels float32 [n] (NaN = none), scores {arm: float [n]}."""

    cut_us: int
    times_us: NDArray[np.int64]
    labels: NDArray[np.float32]
    scores: Mapping[str, NDArray[np.floating]]
    stages: Mapping[str, float]
    compared: Compared | None = None

    def measures(self) -> dict[str, Measure]:
        """One measure per arm, in the order asked for."""
        return {arm: measure(self.labels, scores) for arm, scores in self.scores.items()}

    def differences(self) -> dict[str, tuple[float, float]]:
        """Log-loss of the other model minus that of each arm, over the same rows: (mean, its standard error)."""
        known = ~np.isnan(self.labels)
        if not known.any():
            return {}
        labels = self.labels[known].astype(np.float64)
        each = {arm: losses(labels, scores[known].astype(np.float64)) for arm, scores in self.scores.items()}
        more = {arm: each[YOURS] - one for arm, one in each.items() if arm != YOURS}
        return {arm: (float(one.mean()), float(one.std() / np.sqrt(len(one)))) for arm, one in more.items()}

    def to_json(self) -> dict[str, Any]:
        """`{arm: {"auc", "log_loss", "calibration", "n"}, …, "stages": {stage: seconds}}`, and `compare`."""
        stages = {stage: round(seconds, 2) for stage, seconds in self.stages.items()}
        told = {**{arm: one.to_json() for arm, one in self.measures().items()}, "stages": stages}
        if self.compared is not None:
            more = {
                arm: {"log_loss_more": mean, "standard_error": error}
                for arm, (mean, error) in self.differences().items()
            }
            told["compare"] = {**asdict(self.compared), "yours_minus": more}
        return told


def beside(result: Result, scores: NDArray[np.float64], predictions: Predictions) -> Result:
    """The result on the impressions that the other model scored, with its scores as one more line.

    scores: float64 [n], NaN where it did not.
    """
    matched = ~np.isnan(scores)
    column = Compared(
        str(predictions.path), predictions.column, len(predictions), int(matched.sum()), len(result.times_us)
    )
    lines = {arm: one[matched] for arm, one in result.scores.items()} | {YOURS: scores[matched]}
    return replace(
        result, times_us=result.times_us[matched], labels=result.labels[matched], scores=lines, compared=column
    )


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
    same = f"\n{_same_rows(result.compared)}\n" if result.compared else ""
    return f"{terminal.table(rows, head)}\n{same}\ntime: {spent}"


def _same_rows(compared: Compared) -> str:
    return (
        f"every line is of the {compared.matched:,} of {compared.scored:,} impressions that have a score in "
        f"{compared.file}"
    )


def words(result: Result, *, example: bool) -> str:
    """What was seen, and what to try next."""
    measures = result.measures()
    ranked = [(arm, one) for arm, one in measures.items() if arm != YOURS]
    if not ranked[0][1].n:
        return ""
    if len(ranked) < 2 or any(np.isnan(one.auc) for one in measures.values()):
        return "\n".join(_beside_words(result, measures))
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
    lines += _beside_words(result, measures)
    if example:
        lines += [
            "Next: headrace backtest --example flights --every frozen,1d,1h     the worth of an hour (20 minutes)",
            "      headrace backtest --example flights --every frozen,7d,1d --plot curve.png",
            "      headrace init --from YOUR_EVENTS && headrace backtest                your own events",
        ]
    else:
        lines.append("Next: headrace pipeline run, headrace train --watch, headrace serve          the same, live")
    return "\n".join(lines)


def _beside_words(result: Result, measures: Mapping[str, Measure]) -> list[str]:
    """How the other model stands beside the best of the arms."""
    if result.compared is None or not measures[YOURS].n:
        return []
    best = min((arm for arm in measures if arm != YOURS), key=lambda arm: measures[arm].log_loss)
    more, error = result.differences()[best]
    chance = "no more than chance gives" if abs(more) <= 2 * error else f"give or take {2 * error:.4f}"
    theirs = measures[YOURS]
    verdict = f"refresh {best} has {abs(more):.4f} {'less' if more > 0 else 'more'} log-loss"
    return [
        f"Yours: log-loss {theirs.log_loss:.4f}, AUC {theirs.auc:.3f}; {verdict} ({chance}).",
        "      headrace cannot check that your scores knew only what came before.",
    ]


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
        style = {"color": "black", "linestyle": "--"} if arm == YOURS else {}
        axes[0].plot(middles, [one.auc for one in curve], label=arm, **style)
        axes[1].plot(middles, [one.log_loss for one in curve], label=arm, **style)
    axes[0].set_ylabel("AUC")
    axes[1].set_ylabel("log-loss")
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0}
    axes[0].legend(title="refresh", frameon=False, ncols=len(result.scores), **above)
    axes[1].xaxis.set_major_formatter(dates.ConciseDateFormatter(axes[1].xaxis.get_major_locator()))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _slices(rows: int) -> Sequence[tuple[int, int]]:
    cuts = np.linspace(0, rows, min(PICTURE_POINTS, max(1, rows // 200)) + 1).astype(int)
    return [(int(low), int(high)) for low, high in itertools.pairwise(cuts) if high > low]
