"""How feedback joins impressions, and how long it takes: what `wait_s` and `attribution_s` would catch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headrace.clock import SECOND_US

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.cli.inspect.events import Sample

__all__ = ["WAITS_S", "Labels", "labels_of", "pairs"]

WAITS_S: Final = (
    1,
    5,
    10,
    30,
    60,
    120,
    180,
    300,
    600,
    1_800,
    3_600,
    6 * 3_600,
    86_400,
    3 * 86_400,
    7 * 86_400,
    30 * 86_400,
)
QUANTILES: Final = (0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Labels:
    """Counts of a sample. Rates are of `judged` impressions: those whose time for feedback lies within the sample.

    joined, before, too_late, orphans: feedback that has its impression within `attribution_s`, lies before it, after
    that time, or has none in the sample (feedback after its last impression is left out where there is more to look
    at); answered: judged impressions with feedback in time; positive_rate: of their final labels; catches: [(wait_s,
    share of the feedback in time that comes within it)]; delay_s: {quantile: seconds}.
    """

    impressions: int
    feedback: int
    joined: int
    before: int
    too_late: int
    orphans: int
    judged: int
    answered: int
    positive_rate: float | None
    catches: tuple[tuple[float, float], ...]
    delay_s: dict[str, float]

    @property
    def join_rate(self) -> float | None:
        """Share of feedback whose impression is in the sample; None without feedback."""
        return None if not self.feedback else (self.feedback - self.orphans) / self.feedback

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "catches": [list(pair) for pair in self.catches], "join_rate": self.join_rate}


def pairs(sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each feedback [m]: the place of its impression, -1 = none, and its delay in us (0 where none)."""
    order = np.argsort(sample.id)
    at = np.searchsorted(sample.id[order], sample.feedback_id)
    place = order[np.minimum(at, len(order) - 1)] if len(order) else np.zeros(len(at), np.int64)
    found = sample.id[place] == sample.feedback_id if len(order) else np.zeros(len(at), bool)
    delay = np.where(found, sample.feedback_us - (sample.ts_us[place] if len(order) else 0), 0)
    return np.where(found, place, -1), delay


def labels_of(sample: Sample, *, wait_s: float | None, attribution_s: float) -> Labels:
    """What the settings would make of the sample. wait_s None: feedback carries the label (explicit mode)."""
    place, delay = pairs(sample)
    limit = round(attribution_s * SECOND_US)
    known = place >= 0
    beyond = ~known & (sample.feedback_us > sample.ts_us.max(initial=0)) & (not sample.whole)
    good = known & (delay >= 0) & (delay <= limit)
    end_us = max(int(x[-1:].max(initial=0)) for x in (np.sort(sample.ts_us), np.sort(sample.feedback_us)))
    judged = sample.ts_us + limit <= end_us if not sample.whole else np.ones(len(sample.ts_us), bool)
    if not judged.any():
        judged = np.ones(len(sample.ts_us), bool)  # a sample shorter than attribution_s: the best there is
    label, first = _final(sample, place, delay, good, explicit=wait_s is None)
    counts = judged & ~np.isnan(first)
    delays_s = first[counts] / SECOND_US
    positives = judged & (label > 0) if wait_s is not None else counts
    base = counts if wait_s is None else judged
    waits = sorted({*(w for w in WAITS_S if w < attribution_s), attribution_s, *([wait_s] if wait_s else [])})
    return Labels(
        impressions=len(sample.ts_us),
        feedback=int((~beyond).sum()),
        joined=int(good.sum()),
        before=int((known & (delay < 0)).sum()),
        too_late=int((known & (delay > limit)).sum()),
        orphans=int((~known & ~beyond).sum()),
        judged=int(judged.sum()),
        answered=int(positives.sum()),
        positive_rate=float(np.nan_to_num(label[base]).mean()) if base.any() else None,
        catches=tuple((w, float((delays_s <= w).mean())) for w in waits) if len(delays_s) else (),
        delay_s={f"p{q * 100:g}": float(np.quantile(delays_s, q)) for q in QUANTILES} if len(delays_s) else {},
    )


def _final(
    sample: Sample, place: NDArray[np.int64], delay: NDArray[np.int64], good: NDArray[np.bool_], *, explicit: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Final label [n] (without feedback 0, in explicit mode NaN), delay in us of the first in time (NaN: none)."""
    first = np.full(len(sample.ts_us), np.nan)
    order = np.argsort(-delay[good], kind="stable")  # the earliest is written last
    first[place[good][order]] = delay[good][order]
    if not explicit:
        return np.where(np.isnan(first), 0.0, 1.0), first
    label = np.full(len(sample.ts_us), np.nan)
    order = np.argsort(delay[good], kind="stable")  # the latest revision is written last
    label[place[good][order]] = sample.label[good][order]
    return label, first
