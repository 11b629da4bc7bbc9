"""What a report draws. Each figure is drawn for a wide page and for a narrow one, and all of them into one PNG."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headrace.cli.report import ages
from headrace.clock import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.cli.report.summary import Report

    Draw = Callable[[Report, Sequence[Any]], None]

LIVE: Final = "#0969da"
FROZEN: Final = "#8c6d1f"
BAD: Final = "#cf222e"
INK: Final = "#57606a"
STREAMS: Final = ("#0969da", "#1a7f37", "#8250df", "#8c6d1f")
SPANS: Final = 160  # of the band of ages
RATES: Final = 80  # points of the events' rate
NARROW_IN: Final = 6.0  # inches
UNITS: Final = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0), ("seconds", 1.0))
STYLE: Final = {
    "axes.edgecolor": "#d0d7de",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.size": 9.5,
    "grid.color": "#eaeef2",
    "lines.linewidth": 1.4,
    "xtick.color": INK,
    "ytick.color": INK,
}


def drawable(found: Report) -> dict[str, tuple[int, Draw]]:
    """Name -> (axes, how to draw on them), of what there is something to draw of."""
    figures: dict[str, tuple[int, Draw]] = {}
    if len(found.ages):
        figures["freshness"] = 1, draw_freshness
    if found.figures["log_loss"]["curve"]:
        figures["log_loss"] = 1, draw_losses
    if found.scored is not None:
        figures["calibration"] = 2, draw_reliability
    if len(found.records.shards) > 1:
        figures["events"] = 1, draw_events
    return figures


def pictures(found: Report) -> dict[str, tuple[bytes, bytes]]:
    """Name -> PNG for a wide page, and for a narrow one."""
    return {
        name: (_png(found, draw, count, (9.6, 3.1), 130, 1), _png(found, draw, count, (4.2, 2.9 * count), 170, count))
        for name, (count, draw) in drawable(found).items()
    }


def poster(found: Report) -> bytes:
    """All figures in one PNG."""
    plt = _pyplot()
    figures = drawable(found)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(9.6, max(3.2 * len(figures), 1.0)), layout="constrained")
        parts = np.atleast_1d(figure.subfigures(max(len(figures), 1), 1))
        for part, (count, draw) in zip(parts, figures.values(), strict=False):
            draw(found, np.atleast_1d(part.subplots(1, count)).tolist())
        if not figures:
            figure.text(0.5, 0.5, f"{found.records.name}: nothing to draw yet", ha="center", va="center", color=INK)
        return _saved(plt, figure, 130)


def _png(found: Report, draw: Draw, count: int, size: tuple[float, float], dpi: int, rows: int) -> bytes:
    plt = _pyplot()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, count // rows, figsize=size, layout="constrained", squeeze=False)
        draw(found, axes.ravel().tolist())
        return _saved(plt, figure, dpi)


def _saved(plt: Any, figure: Any, dpi: int) -> bytes:
    sink = io.BytesIO()
    with warnings.catch_warnings():  # of the ticks of an axis that is a minute long
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(sink, dpi=dpi, format="png")
    plt.close(figure)
    return sink.getvalue()


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def draw_freshness(found: Report, axes: Sequence[Any]) -> None:
    """Age of what was served: a line that falls with each version, or where there are many, a band."""
    (ax,) = axes
    pieces = found.ages
    top = float(pieces.high.max())
    unit, size = next(((name, s) for name, s in UNITS if np.median(pieces.high) >= 2 * s), UNITS[-1])
    if len(pieces) <= ages.LINES:
        ends = pieces.start_us + np.round((pieces.high - pieces.low) * SECOND_US).astype(np.int64)
        x = np.column_stack([pieces.start_us, ends]).ravel()
        ax.plot(_time(x), np.column_stack([pieces.low, pieces.high]).ravel() / size, color=LIVE)
    else:
        edges = np.linspace(found.records.from_us, found.records.until_us + 1, SPANS + 1).astype(np.int64)
        middles, least, mean, greatest = ages.band(pieces, edges)
        ax.fill_between(_time(middles), least / size, greatest / size, color=LIVE, alpha=0.2, linewidth=0)
        ax.plot(_time(middles), mean / size, color=LIVE)
    if top > 20 * max(float(np.median(pieces.high)), 0.1):
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        ax.set_ylim(0, None)
    ax.set_ylabel(f"age of what is served, {unit}")
    _marks(found, ax)
    if found.figures["gates"]["holds"] or found.figures["gates"]["rollbacks"]:
        _legend(ax)
    _dates(ax)


def draw_losses(found: Report, axes: Sequence[Any]) -> None:
    """Live beside frozen."""
    (ax,) = axes
    curve = found.figures["log_loss"]["curve"]
    x = _time(np.array([(one["from_us"] + one["until_us"]) // 2 for one in curve]))
    ax.plot(x, [one["live"] for one in curve], color=LIVE, marker=".", label="live")
    ax.plot(x, [one["frozen"] for one in curve], color=FROZEN, marker=".", label="frozen")
    ax.set_ylabel("log-loss (lower is better)")
    ax.margins(y=0.12)
    _marks(found, ax)
    _legend(ax)
    _dates(ax)


def draw_reliability(found: Report, axes: Sequence[Any]) -> None:
    """Rates beside scores, and how many rows have which score."""
    curve, counts = axes
    told, scored = found.figures["calibration"], found.scored
    assert scored is not None
    name = "frozen" if scored.frozen else f"version {scored.reference_version}"
    top = 0.0
    for side, label, color in (("reference", name, FROZEN), ("live", "live", LIVE)):
        bins = told[side]["bins"]
        x, y = np.array([one["score"] for one in bins]), np.array([one["rate"] for one in bins])
        spread = np.abs(np.array([[one["low"], one["high"]] for one in bins]).T - y)
        curve.errorbar(x, y, spread, color=color, label=label, marker=".", elinewidth=0.8, capsize=2)
        top = max(top, float(x.max()), float(y.max()))
    curve.plot([0, top], [0, top], color=INK, linestyle=":", linewidth=1, label="right")
    curve.set(xlabel="mean score of a tenth of the rows", ylabel="positives among them", xlim=(0, None), ylim=(0, None))
    curve.legend(frameon=False)
    edges = np.linspace(0, max(float(scored.live.max()), float(scored.reference.max())), 41)
    counts.hist(scored.live, edges, color=LIVE, alpha=0.35, label="live")
    counts.hist(scored.reference, edges, histtype="step", color=FROZEN, label=name)
    counts.set(xlabel="score", ylabel="rows", xlim=(0, None))
    counts.legend(frameon=False)


def draw_events(found: Report, axes: Sequence[Any]) -> None:
    """Events read and refused a second, by the time of the commit."""
    (ax,) = axes
    shards = [*([found.records.before_shards] if found.records.before_shards else []), *found.records.shards]
    times = np.array([one.committed_us for one in shards])
    edges = np.linspace(max(times[0], found.records.from_us), times[-1], min(RATES, len(shards)) + 1)
    x = _time(((edges[:-1] + edges[1:]) / 2).astype(np.int64))
    seconds = np.maximum(np.diff(edges) / SECOND_US, 1e-6)
    totals = {name: [one.read.get(name, 0) for one in shards] for name in sorted(shards[-1].read)}
    for (name, total), color in zip(totals.items(), STREAMS, strict=False):
        ax.plot(x, np.diff(np.interp(edges, times, total)) / seconds, color=color, label=name)
    refused = np.cumsum([sum(one.refused.values()) for one in shards])
    if refused[-1]:
        ax.plot(x, np.diff(np.interp(edges, times, refused)) / seconds, color=BAD, label="refused")
    ax.set(ylabel="events read per second", ylim=(0, None))
    _legend(ax)
    _dates(ax)


def _marks(found: Report, ax: Any) -> None:
    """Holds and rollbacks, at the top, where they happened."""
    for name, label, color in (("holds", "held", "#bf8700"), ("rollbacks", "rolled back", BAD)):
        times = _time([one["at_us"] for one in found.figures["gates"][name]])
        if len(times):
            top = [0.97] * len(times)
            ax.plot(times, top, "v", color=color, markersize=4, label=label, transform=ax.get_xaxis_transform())


def _legend(ax: Any) -> None:
    """Above the axes, in as many columns as there is room for."""
    columns = 4 if ax.get_figure(root=True).get_figwidth() > NARROW_IN else 2
    ax.legend(frameon=False, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)


def _time(us: Any) -> Any:
    return np.asarray(us, np.int64).astype("datetime64[us]")


def _dates(ax: Any) -> None:
    from matplotlib import dates

    locator = dates.AutoDateLocator(maxticks=7)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
