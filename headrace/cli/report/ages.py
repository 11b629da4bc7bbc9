"""Freshness over time: the age of what was served, and how long an event waited for a version that covers it.

Version i is committed at c_i and has events up to its watermark w_i. In force from c_i to c_{i+1}, what answers at t is

    age(t) = t - w_i                                       a line that rises by a second a second, and falls at c_{i+1}

so its distribution over time is a mixture of uniform ones, and each quantile is exact. An event at e in (w_{i-1}, w_i]
is covered at c_i: it waited c_i - e, which is uniform over (c_i - w_i, c_i - w_{i-1}] for events spread evenly in time.

Records say when a version was committed, not when a server took it: `headrace probe` measures that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.clock import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headrace.cli.report.records import Records, Shards, Version

Floats = NDArray[np.float64]
LINES: Final = 100
"""More pieces than that are drawn as a band."""


@dataclass(frozen=True)
class Pieces:
    """Uniform spans of a quantity: seconds `low` to `high`, float64 [n]; each weighs `high - low`.

    Of ages in force, `start_us` int64 [n] is when each began.
    """

    low: Floats
    high: Floats
    start_us: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.low)

    def quantile(self, part: float) -> float | None:
        """The value in seconds below which the share `part` of the weight lies; None without any.

        >>> Pieces(np.array([0., 10.]), np.array([2., 12.]), np.array([0, 2])).quantile(0.75)
        11.0
        """
        if not len(self):
            return None
        ends = np.concatenate([self.low, self.high])
        slopes = np.concatenate([np.ones(len(self)), -np.ones(len(self))])
        order = np.argsort(ends, kind="stable")
        ends, slope = ends[order], np.cumsum(slopes[order])
        below = np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(ends))])
        wanted = part * below[-1]
        at = int(np.searchsorted(below, wanted, side="left"))
        if at == 0:
            return float(ends[0])
        rise = below[at] - below[at - 1]
        return float(ends[at - 1] + (wanted - below[at - 1]) / rise * (ends[at] - ends[at - 1]))

    def mean(self) -> float | None:
        weight = self.high - self.low
        return float(((self.low + self.high) / 2 * weight).sum() / weight.sum()) if weight.sum() > 0 else None


def in_force(records: Records, watermark_of: Callable[[int], int | None]) -> Pieces:
    """Ages of what was served in the span. watermark_of: of a version that was pinned; without one, nothing is said."""
    versions = list(records.versions)
    if records.before_version is not None:
        versions.insert(0, records.before_version)
    known = {one.seq: one.watermark_us for one in versions}
    starts: list[int] = []
    lows, highs = [], []
    ends_us = [*(one.committed_us for one in versions), records.until_us][1:]
    for one, until_us in zip(versions, ends_us, strict=bool(versions)):
        watermark_us = known[one.served] if one.served in known else watermark_of(one.served)
        start_us = max(one.committed_us, starts[-1] if starts else records.from_us)  # a clock may be set back
        if watermark_us and until_us >= start_us:
            starts.append(start_us)
            lows.append((start_us - watermark_us) / SECOND_US)
            highs.append((until_us - watermark_us) / SECOND_US)
    return Pieces(np.array(lows), np.array(highs), np.array(starts, np.int64))


def covered(versions: Sequence[Version], before: Version | None = None) -> Pieces:
    """How long events waited, in event time, for the version that covers them. before: the version before the first."""
    starts, lows, highs = [], [], []
    reached = before.watermark_us if before else None
    for one in versions:
        mark = one.watermark_us
        if one.kind != "delta" or not one.changed or not mark:
            continue
        if reached is not None and mark > reached:
            starts.append(one.committed_us)
            lows.append((one.committed_us - mark) / SECOND_US)
            highs.append((one.committed_us - reached) / SECOND_US)
        reached = max(reached or 0, mark)
    return Pieces(np.array(lows), np.array(highs), np.array(starts, np.int64))


def steps(versions: Sequence[Version], shards: Sequence[Shards]) -> dict[str, list[float]]:
    """Seconds of each version: `pipeline`, from its watermark to its newest shard record; `trainer`, from there on."""
    committed = {one.seq: one for one in shards}
    found: dict[str, list[float]] = {"pipeline": [], "trainer": []}
    for one in versions:
        newest = committed.get(one.cursor) if one.cursor is not None else None
        if one.kind == "delta" and one.changed and one.trained and newest and newest.watermark_us:
            found["pipeline"].append((newest.committed_us - newest.watermark_us) / SECOND_US)
            found["trainer"].append((one.committed_us - newest.committed_us) / SECOND_US)
    return found


def figures(ages: Pieces, waits: Pieces, spent: Mapping[str, Sequence[float]], *, alive: bool) -> dict[str, Any]:
    """What `--json` prints. alive: something runs, so that the age has gone on until now."""
    return {
        "now_s": float(ages.high[-1]) if alive and len(ages) else None,
        "last_s": float(ages.high[-1]) if len(ages) else None,
        "age_s": _spread(ages),
        "event_to_version_s": _spread(waits),
        "steps_s": {
            name: {"p50": float(np.median(values)), "p99": float(np.quantile(values, 0.99)), "versions": len(values)}
            for name, values in spent.items()
            if values
        },
    }


def _spread(pieces: Pieces) -> dict[str, float | None]:
    return {
        "p50": pieces.quantile(0.5),
        "p99": pieces.quantile(0.99),
        "max": float(pieces.high.max()) if len(pieces) else None,
        "mean": pieces.mean(),
    }


def cut(pieces: Pieces, edges_us: NDArray[np.int64]) -> Pieces:
    """The same ages in force, with a piece beginning at every edge that lies inside one."""
    ends_us = pieces.start_us + np.round((pieces.high - pieces.low) * SECOND_US).astype(np.int64)
    at = np.searchsorted(pieces.start_us, edges_us, side="right") - 1
    inside = (at >= 0) & (edges_us > pieces.start_us[at]) & (edges_us < ends_us[at])
    starts = np.concatenate([pieces.start_us, edges_us[inside]])
    of = np.concatenate([np.arange(len(pieces)), at[inside]])
    order = np.argsort(starts, kind="stable")
    starts, of = starts[order], of[order]
    low = pieces.low[of] + (starts - pieces.start_us[of]) / SECOND_US
    last = np.ones(len(of), bool)  # of the pieces that one was cut into
    last[:-1] = of[1:] != of[:-1]
    high = pieces.high[of].copy()
    high[~last] = low[~last] + (starts[1:] - starts[:-1])[np.flatnonzero(~last)] / SECOND_US
    return Pieces(low, high, starts)


def band(pieces: Pieces, edges_us: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """(middles us, least, mean, greatest age) of each span between two edges in which something was served."""
    small = cut(pieces, edges_us)
    place = np.searchsorted(edges_us, small.start_us, side="right") - 1
    places, first = np.unique(place, return_index=True)
    weight = np.maximum(small.high - small.low, 1e-9)
    middle = np.add.reduceat((small.low + small.high) / 2 * weight, first) / np.add.reduceat(weight, first)
    least, greatest = np.minimum.reduceat(small.low, first), np.maximum.reduceat(small.high, first)
    kept = (places >= 0) & (places < len(edges_us) - 1)
    middles = (edges_us[:-1] + edges_us[1:]) // 2
    return middles[places[kept]], least[kept], middle[kept], greatest[kept]
