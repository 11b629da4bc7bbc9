"""Progressive validation: every row is scored before it is learned, so each figure is honest by construction.

    log_loss            -mean(y log p + (1 - y) log(1 - p))
    normalised_entropy  log_loss / entropy of the rate of positives in these rows (1 = no better than the rate)
    auc                 chance that a positive scores above a negative, ties count half
    calibration         mean(p) / mean(y)

He et al., ADKDD 2014, section 2, on why these four. `live` are the weights that learn; `frozen` those of the first
version that learned anything, as they were published: the distance is what retraining is worth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def measured(labels: Floats, logits: Floats) -> dict[str, Any]:
    """Figures of n >= 1 rows; None where one is not defined (all labels alike, a logit or label that is not finite).

    >>> measured(np.array([0, 1, 1, 0], np.float32), np.zeros(4, np.float32))["normalised_entropy"]
    1.0
    """
    z, y = logits.astype(np.float64), labels.astype(np.float64)
    if not (np.isfinite(z).all() and np.isfinite(y).all()):
        return {"n": len(y), **dict.fromkeys(("positives", "log_loss", "normalised_entropy", "auc", "calibration"))}
    loss = float(np.mean(np.logaddexp(0, z) - y * z))
    rate = float(y.mean())
    both = 0 < rate < 1  # labels are 0 or 1, unless a record is damaged
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)) if both else None
    scores = 1 / (1 + np.exp(-np.clip(z, -700, 700)))
    return {
        "n": len(y),
        "positives": float(y.sum()),
        "log_loss": loss,
        "normalised_entropy": float(loss / entropy) if entropy else None,
        "auc": auc(labels, logits) if both else None,
        "calibration": float(scores.mean() / rate) if rate > 0 else None,
    }


def auc(labels: Floats, scores: Floats) -> float:
    """Area under the ROC curve, by ranks; ties share their mean rank.

    >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    positive = labels > 0
    wins = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(wins / (positive.sum() * (~positive).sum()))
