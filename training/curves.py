"""The curves of a day: what rows cost before they were learned, live against frozen, and how fresh versions were."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

__all__ = ["PANELS", "drawn"]

PANELS: Final = (
    ("log-loss", ("live/log_loss", "frozen/log_loss")),
    ("AUC", ("live/auc", "frozen/auc")),
    ("calibration (mean score / rate)", ("live/calibration",)),
    ("freshness at commit, s", ("freshness_s",)),
)
"""Title and metrics (names as in MLflow) of each panel."""

_SMOOTHED: Final = 50  # points of the line over the versions' own, which are noisy


def drawn(title: str, series: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """One panel for each of `PANELS`. series: (time in ms, value) of each metric, ascending; missing = not drawn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.2 * len(PANELS)), dpi=100, layout="constrained")
    figure.suptitle(title)
    for axes, (name, metrics) in zip(figure.subplots(len(PANELS), 1, sharex=True), PANELS, strict=True):
        for at, metric in enumerate(metrics):
            points = series.get(metric, ())
            if points:
                _line(axes, points, label=metric.partition("/")[0], colour=f"C{at}")
        axes.set_ylabel(name, fontsize=8)
        axes.grid(alpha=0.3)
        if len(metrics) > 1 and axes.lines:
            axes.legend(loc="upper right", fontsize=8)
    return figure


def _line(axes: Any, points: Sequence[tuple[int, float]], *, label: str, colour: str) -> None:
    """The points, faint, and the mean of each fiftieth of them."""
    times = [datetime.fromtimestamp(ms / 1_000, UTC) for ms, _ in points]
    values = [value for _, value in points]
    size = max(1, len(points) // _SMOOTHED)
    groups = range(0, len(points), size)
    means = [sum(values[at : at + size]) / len(values[at : at + size]) for at in groups]
    if size > 1:
        axes.plot(times, values, ".", color=colour, markersize=2, alpha=0.2)
    axes.plot([times[min(at + size // 2, len(points) - 1)] for at in groups], means, color=colour, label=label)
