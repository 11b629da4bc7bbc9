"""Running mean and variance of number features, and standardised numbers.

Per feature, with k values that are not missing in a record and m the rows remembered (at most `MEMORY`):

    m' = min(m + k, MEMORY),  r = k / m',  d = mean(record) - mean
    mean'     = mean + r d
    variance' = variance + r (variance(record) + (1 - r) d^2 - variance)

which is Chan, Golub, LeVeque's exact merge until MEMORY rows were seen, and forgets exponentially from then on. A
record is folded in before its rows are learned: that needs no labels, and the first record is standardised by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from headrace.delta import Numbers

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

MEMORY = 200_000
CLIP = np.float32(5)
SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Running:
    """rows, mean, variance: float64 [k], one entry per number feature."""

    rows: Doubles
    mean: Doubles
    variance: Doubles

    @classmethod
    def empty(cls, features: int) -> Self:
        return cls(np.zeros(features), np.zeros(features), np.ones(features))

    def folded(self, numbers: Floats) -> Running:
        """After a record with `numbers` float32 [n, k], NaN = missing.

        >>> running = Running.empty(1).folded(np.array([[1.0], [3.0], [np.nan]], np.float32))
        >>> running.mean.tolist(), running.variance.tolist()
        ([2.0], [1.0])
        """
        present = ~np.isnan(numbers)
        values = np.where(present, numbers, 0).astype(np.float64)
        k = present.sum(0).astype(np.float64)
        least = np.maximum(k, 1)
        mean = values.sum(0) / least
        variance = np.where(present, (values - mean) ** 2, 0).sum(0) / least
        rows = np.minimum(self.rows + k, MEMORY)
        r = np.minimum(k / np.maximum(rows, 1), 1)
        d = mean - self.mean
        return Running(rows, self.mean + r * d, self.variance + r * (variance + (1 - r) * d * d - self.variance))

    def numbers(self) -> Numbers:
        """What scoring standardises by; a feature without values yet gets mean 0 and scale 1."""
        scale = np.where(self.rows > 0, 1 / np.sqrt(self.variance + SMALLEST_VARIANCE), 1)
        return Numbers(tuple(self.mean.astype(np.float32).tolist()), tuple(scale.astype(np.float32).tolist()))


def standardised(numbers: Floats, by: Numbers) -> Floats:
    """float32 [n, k] -> [n, 2k]: clip((x - mean) * scale, -5, 5), missing = 0, then the missing flags."""
    missing = np.isnan(numbers)
    values = (numbers - np.asarray(by.mean, np.float32)) * np.asarray(by.scale, np.float32)
    values = np.where(missing, np.float32(0), np.clip(values, -CLIP, CLIP))
    return np.concatenate([values, missing.astype(np.float32)], 1)
