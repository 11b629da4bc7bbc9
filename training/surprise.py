"""The shard gate: whether the labels of a record are believable, given what the weights expected of them.

What a calibrated model pays beyond what it expects to pay, per row, with scores p and logits z before they learned it:

    excess = mean(loss(y, p) - E[loss(Y, p)], Y ~ p) = -mean((y - p) z),     se = sqrt(mean(p (1 - p) z^2) / n)

It does not depend on the rate of positives, so that nights and holidays are no surprise; flipped labels are: their
excess is about |z|. It is compared with that of the records before, held ones included:

    surprise = (excess - median of recent) / max(1.4826 MAD of recent, se, FLOOR, greatest / SHOCK)

Median and median absolute deviation, so that one poisoned record does not make the next one believable. The floor keeps
a quiet hour from making the next one look loud. `greatest` is the greatest excess that this loop has learned from,
forgotten slowly: where storms and strikes are part of life, a record must be twice as bad as the worst of them
(SHOCK = 5, at a limit of 10). A change of regime stays a surprise; `gate.max_holds` keeps it from locking the loop.
After the rule "mean + 6 sd of the last 5" that was measured on label-flipped shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from headrace.version import VersionRecord

    Floats = npt.NDArray[np.float32]

RECENT = 20
LEAST_RECENT = 10
FLOOR = 0.1
"""Nats per row."""
SHOCK = 5.0
MEMORY = 0.999
"""What is left of `greatest` after a version."""


@dataclass(frozen=True)
class Excess:
    """Of one record: mean excess loss in nats per row, and its standard error."""

    mean: float
    error: float


def excess_of(labels: Floats, logits: Floats) -> Excess | None:
    """labels, logits: float32 [n]. None if n = 0 or something is not finite.

    >>> excess_of(np.array([1, 0], np.float32), np.array([2, -2], np.float32)).mean < 0
    True
    """
    z, y = logits.astype(np.float64), labels.astype(np.float64)
    if not len(z) or not (np.isfinite(z).all() and np.isfinite(y).all()):
        return None
    p = 1 / (1 + np.exp(-np.clip(z, -700, 700)))
    return Excess(float(-np.mean((y - p) * z)), float(np.sqrt(np.mean(p * (1 - p) * z * z) / len(z))))


def surprise_of(excess: Excess, recent: Sequence[float], greatest: float = 0.0) -> float | None:
    """In standard deviations; None while fewer than LEAST_RECENT records are known.

    >>> round(surprise_of(Excess(2.0, 0.01), [0.0] * 10), 1)
    40.0
    """
    if len(recent) < LEAST_RECENT:
        return None
    before = np.array(recent[-RECENT:])
    middle = np.median(before)
    spread = 1.4826 * float(np.median(np.abs(before - middle)))
    return float((excess.mean - middle) / max(spread, excess.error, FLOOR, greatest / SHOCK))


@dataclass(frozen=True)
class Past:
    """What the newest versions say.

    excesses: of records, held ones included, oldest first; row: surprises in a row; greatest: as above, the `gate` of
    each version repeats what it was before; limit: `gate.surprise`. A version is a surprise if it was held as one, or
    would have been but for the waiver.
    """

    limit: float
    excesses: tuple[float, ...] = ()
    row: int = 0
    greatest: float = 0.0

    def after(self, records: Iterable[VersionRecord]) -> Past:
        """With newer versions, oldest first."""
        excesses, row, greatest = list(self.excesses), self.row, self.greatest
        for record in records:
            excess = record.evaluation.get("live", {}).get("excess")
            excesses += [excess] if excess is not None else []
            surprise = record.gate.get("surprise")
            if surprise is not None:  # a version that measured none, such as an operator's, changes nothing
                row = row + 1 if surprise > self.limit else 0
            greatest = max(greatest, record.gate.get("greatest") or 0.0)
            if record.kind == "delta" and excess is not None:
                greatest = max(greatest * MEMORY, excess)
        return Past(self.limit, tuple(excesses[-RECENT:]), row, greatest)

    def surprise(self, excesses: Iterable[Excess]) -> float | None:
        """The greatest surprise among the records of a candidate; None while too little is known."""
        found = (surprise_of(excess, self.excesses, self.greatest) for excess in excesses)
        return max((surprise for surprise in found if surprise is not None), default=None)

    def limit_after(self, max_holds: int) -> float:
        """The limit now: none after `max_holds` surprises in a row, until one would pass."""
        return self.limit if self.row < max_holds else float("inf")
