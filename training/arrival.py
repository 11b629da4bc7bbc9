"""How many of the positives arrive in time: late positives by calibration on arrival.

A row is learned with the label that is known `wait_s` after its impression, so the model learns P(feedback within
wait_s). What is wanted is P(feedback within attribution_s); with F = P(delay <= wait_s | delay <= attribution_s) the
odds are divided by F: every logit gets the offset -log F. Corrections (late feedback) feed this estimate only.

F must not wait until all feedback is in, nor take what has not come for what never comes: of an impression made a
minute ago only delays below a minute can have been seen. That is right truncation, and the estimator is the reverse
product limit (Lynden-Bell 1971; Woodroofe, Annals of Statistics 1985). With delays in bins 0 (at most wait_s), 1 … B up
to attribution_s,

    r_j = positives in bin j / positives in bins 0 … j,    both among impressions old enough to show all of bin j
    F   = product over j = 1 … B of (1 - r_j)

Impressions are counted in cohorts by event time. What cohorts no longer grow goes into two sums per bin that are
forgotten exponentially, by event time. A prior of `PRIOR` positives in time in every denominator keeps F near 1 until
there is evidence; F stays above `LEAST`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

Doubles = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

BINS = 24
COHORTS = 64
"""Cohorts that one attribution time is divided into."""
MEMORY = 20.0
"""Attribution times after which a cohort counts 1 / e."""
PRIOR = 50.0
LEAST = 0.02


@dataclass(frozen=True)
class Waits:
    """`[label]` wait_s and attribution_s in microseconds."""

    wait_us: int
    attribution_us: int

    @property
    def cohort_us(self) -> int:
        return max(1, self.attribution_us // COHORTS)

    def edges(self) -> Doubles:
        """Upper ends of the bins 0 … B, float64 [B + 1]: from wait_us to attribution_us, geometrically."""
        first = max(self.wait_us, self.attribution_us / 1000)
        late = np.geomspace(first, self.attribution_us, BINS + 1)[1:]
        return np.concatenate([[self.wait_us], late])


@dataclass(frozen=True)
class Arrival:
    """cohorts: int64 [c], numbers (event time // cohort_us), ascending; counts: float64 [c, B + 1] positives by bin.

    seen, among: float64 [B + 1], numerator and denominator of r_j from cohorts before those; newest_us: the newest
    decision that was seen.
    """

    cohorts: Times
    counts: Doubles
    seen: Doubles
    among: Doubles
    newest_us: int

    @classmethod
    def empty(cls) -> Self:
        bins = BINS + 1
        return cls(np.empty(0, np.int64), np.zeros((0, bins)), np.zeros(bins), np.zeros(bins), 0)

    def folded(self, waits: Waits, event_us: Times, delay_us: Times, newest_us: int) -> Arrival:
        """After a record whose positives, observed and corrections, have these event times and delays.

        newest_us: the newest time at which one of its rows was decided, positive or not.
        """
        newest_us = max(newest_us, self.newest_us)
        cohorts, place = np.unique(np.concatenate([self.cohorts, event_us // waits.cohort_us]), return_inverse=True)
        counts = np.zeros((len(cohorts), BINS + 1))
        counts[place[: len(self.cohorts)]] = self.counts
        edges = waits.edges()
        bins = np.searchsorted(edges, np.minimum(delay_us, edges[-1]), side="left")
        np.add.at(counts, (place[len(self.cohorts) :], bins), 1.0)
        return _matured(Arrival(cohorts, counts, self.seen, self.among, newest_us), waits)

    def share(self, waits: Waits) -> float:
        """F."""
        shown = _age(waits, self.cohorts, self.newest_us)[:, None] >= waits.edges()
        seen = self.seen + np.where(shown, self.counts, 0).sum(0)
        among = self.among + np.where(shown, self.counts.cumsum(1), 0).sum(0)
        late = seen[1:] / (among[1:] + PRIOR)
        return float(max(LEAST, np.prod(1 - late)))

    def offset(self, waits: Waits) -> float:
        """What calibrates a logit: -log F."""
        return -float(np.log(self.share(waits)))

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps."""
        newest = np.array([self.newest_us], np.int64)
        return {
            "cohorts": self.cohorts,
            "counts": self.counts,
            "seen": self.seen,
            "among": self.among,
            "newest_us": newest,
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The inverse of `arrays`; empty where a checkpoint has none."""
        if not arrays:
            return cls.empty()
        newest_us = int(arrays["newest_us"][0])
        return cls(arrays["cohorts"], arrays["counts"], arrays["seen"], arrays["among"], newest_us)


def _matured(arrival: Arrival, waits: Waits) -> Arrival:
    """The cohorts that can show no more feedback go into the sums, with what they count by now."""
    cohorts, counts, newest_us = arrival.cohorts, arrival.counts, arrival.newest_us
    old = int((_age(waits, cohorts, newest_us) >= waits.attribution_us + 2 * waits.cohort_us).sum())
    if not old:
        return arrival
    kept = np.exp(-(cohorts[old - 1] - cohorts[:old]) / (COHORTS * MEMORY))
    seen = arrival.seen * kept[0] + (counts[:old] * kept[:, None]).sum(0)
    among = arrival.among * kept[0] + (counts[:old].cumsum(1) * kept[:, None]).sum(0)
    return Arrival(cohorts[old:], counts[old:], seen, among, newest_us)


def _age(waits: Waits, cohorts: Times, newest_us: int) -> Doubles:
    """How old the youngest impression of each cohort is."""
    age: Doubles = (newest_us - (cohorts + 1) * waits.cohort_us).astype(np.float64)
    return age
