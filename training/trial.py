"""Is what is served worse than what was served before? Both scored on the same rows, which neither has learned.

For row i with label y_i, logit s_i by the served version and a_i by the *anchor*, the newest version found good:

    d_i = loss(y_i, s_i) - loss(y_i, a_i),   loss(y, z) = log(1 + exp z) - y z

Paired, so that a night or a holiday, which is hard for both, is not held against one of them. Served is worse if

    mean d > Z sd(d) / sqrt(n)   and   mean d > MARGIN mean loss(y, a)                               (log-loss)
    |P_s - Y| > Z sqrt(V_s)      and   |log(P_s / Y)| - |log(P_a / Y)| > log CALIBRATION             (calibration)

with P the sum of predictions, V of p (1 - p), Y of labels (+ 1/2). Without the margins a difference of no account would
be significant on a large loop once a minute, and one bad day on a small one: rows of a day share its weather, which
sd(d) / sqrt(n) does not know. Labels are those known `wait_s` after the impression; both logits are
taken without what late positives add (training/arrival.py), so they mean the same.

A trial goes on over records until `gate.rows` rows are there. Good: the anchor moves to the version that half of them,
or more, have tested: what was learned last has been tested by few. Worse: back to the anchor. After `gate.max_holds`
rollbacks in a row, with no good verdict between, it is only told: then the world has changed, and the loop must learn.
A trial stands in each version record, so that a restarted trainer goes on with it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

Floats = npt.NDArray[np.float32]

Z = 3.3
"""One-sided p < 0.0005."""
MARGIN = 0.1
CALIBRATION = 1.6
MOST_VERSIONS = 64
"""A trial that has come over so many versions ends with the rows that it has."""


@dataclass(frozen=True)
class Sums:
    """Over n rows. difference, square: of d and d^2; loss: of the anchor; the others as above."""

    n: int = 0
    difference: float = 0.0
    square: float = 0.0
    loss: float = 0.0
    labels: float = 0.0
    served: float = 0.0
    variance: float = 0.0
    anchor: float = 0.0

    @classmethod
    def of(cls, labels: Floats, served: Floats, anchor: Floats) -> Sums:
        """labels, logits: float32 [n]. Logits that are not finite cost as much as the wildest that is."""
        y = labels.astype(np.float64)
        s, a = (np.clip(np.nan_to_num(z.astype(np.float64), nan=30.0), -30, 30) for z in (served, anchor))
        loss = np.logaddexp(0, a) - y * a
        d = np.logaddexp(0, s) - y * s - loss
        p = 1 / (1 + np.exp(-s))
        sums = (d.sum(), (d * d).sum(), loss.sum(), y.sum(), p.sum(), (p * (1 - p)).sum(), (1 / (1 + np.exp(-a))).sum())
        return cls(len(y), *map(float, sums))

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(one + two for one, two in zip(_values(self), _values(other), strict=True)))

    def worse(self) -> str:
        """Why what is served is worse; empty if it is not."""
        if self.n < 2:
            return ""
        mean = self.difference / self.n
        error = (max(self.square / self.n - mean * mean, 0.0) / self.n) ** 0.5
        if mean > Z * error and self.difference > MARGIN * self.loss > 0:
            return (
                f"log-loss {(self.difference + self.loss) / self.n:.4f} where it was {self.loss / self.n:.4f} before, "
                f"on the same {self.n:,} rows"
            )
        off = abs(self.served - self.labels) > Z * self.variance**0.5
        if off and self._miss(self.served) - self._miss(self.anchor) > np.log(CALIBRATION):
            return (
                f"{self.served:.0f} positives predicted where {self.labels:.0f} came and {self.anchor:.0f} were "
                f"predicted before, on the same {self.n:,} rows"
            )
        return ""

    def _miss(self, predicted: float) -> float:
        return float(abs(np.log((predicted + 0.5) / (self.labels + 0.5))))


def _values(sums: Sums) -> tuple[Any, ...]:
    return tuple(getattr(sums, name) for name in Sums.__dataclass_fields__)


@dataclass(frozen=True)
class Verdict:
    """On the versions (anchor, version]. reason: why they are worse; empty = they are good."""

    anchor: int
    version: int
    reason: str
    n: int

    def to_json(self) -> dict[str, Any]:
        """An entry of `verdicts` in a version record."""
        return {**asdict(self), "result": "worse" if self.reason else "good"}


@dataclass(frozen=True)
class Trial:
    """What was served since `anchor`: (version, rows that it scored) in order. rollbacks: in a row."""

    anchor: int
    served: tuple[tuple[int, int], ...] = ()
    sums: Sums = Sums()
    rollbacks: int = 0

    def after(self, version: int, sums: Sums) -> Trial:
        """After `version` was served while these rows came."""
        return replace(self, served=(*self.served, (version, sums.n)), sums=self.sums + sums)

    def verdict(self, rows: int) -> Verdict | None:
        """None while there are fewer than `rows` rows."""
        if not self.served or (self.sums.n < rows and len(self.served) < MOST_VERSIONS):
            return None
        reason = self.sums.worse()
        return Verdict(self.anchor, self.served[-1][0] if reason else self._tested(), reason, self.sums.n)

    def decided(self, verdict: Verdict) -> Trial:
        """The next trial, after a verdict that did not lead to a rollback."""
        return Trial(verdict.version, rollbacks=self.rollbacks if verdict.reason else 0)

    def _tested(self) -> int:
        """The newest version that half of the rows were scored by, or by one after it."""
        left = self.sums.n
        newest = self.served[0][0]
        for version, rows in self.served:
            if 2 * left < self.sums.n:
                break
            newest, left = version, left - rows
        return newest

    def to_json(self) -> dict[str, Any]:
        return {
            "anchor": self.anchor,
            "served": [list(one) for one in self.served],
            "sums": asdict(self.sums),
            "rollbacks": self.rollbacks,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Trial:
        served = tuple((int(version), int(rows)) for version, rows in body["served"])
        return cls(body["anchor"], served, Sums(**body["sums"]), body["rollbacks"])
