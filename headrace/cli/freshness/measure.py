"""How good scores are: area under the ROC curve, log-loss, calibration. Numpy, labels 0 or 1."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.cli.terminal import clean

Floats = NDArray[np.float64]

EPS = 1e-7
"""Scores are kept this far from 0 and 1, so that one certain mistake does not make the log-loss infinite."""


def auc(labels: Floats, scores: Floats) -> float:
    """Chance that a positive scores above a negative, ties counting half; NaN where a class is missing.

        auc = (sum of the positives' mean ranks - p (p + 1) / 2) / (p q)        p positives, q negatives

    >>> auc(np.array([0., 1., 0., 1.]), np.array([.1, .4, .35, .8]))
    1.0
    """
    positives = float(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts - 1) / 2
    return float((mean_rank[group][labels > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(labels: Floats, scores: Floats) -> float:
    """Mean of `-log(probability given to what happened)`, in nats.

    >>> round(log_loss(np.array([1., 0.]), np.array([.5, .5])), 4)
    0.6931
    """
    return float(losses(labels, scores).mean()) if len(labels) else float("nan")


def losses(labels: Floats, scores: Floats) -> Floats:
    """`-log(probability given to what happened)` of each row: float64 [n]."""
    kept = np.clip(scores, EPS, 1 - EPS)
    return np.asarray(-np.where(labels > 0, np.log(kept), np.log1p(-kept)))


def calibration(labels: Floats, scores: Floats) -> float:
    """Sum of predictions over number of positives: 1 is right, 2 promises twice what comes.

    >>> calibration(np.array([1., 0.]), np.array([.5, .25]))
    0.75
    """
    return float(scores.sum() / labels.sum()) if labels.sum() else float("nan")


@dataclass(frozen=True)
class Measure:
    """One line of the freshness curve."""

    auc: float
    log_loss: float
    calibration: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """NaN (no positive, or no negative) becomes null."""
        return dict(clean(asdict(self)))


def measure(labels: NDArray[np.float32], scores: NDArray[np.floating]) -> Measure:
    """All three. labels, scores: [n]; rows whose label is NaN have none and do not count."""
    known = ~np.isnan(labels)
    y, p = labels[known].astype(np.float64), scores[known].astype(np.float64)
    return Measure(auc(y, p), log_loss(y, p), calibration(y, p), len(y))
