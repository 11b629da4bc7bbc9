"""Figures against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluate import auc, measured


def test_figures_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    random = np.random.default_rng(0)
    logits = np.round(random.normal(-1, 2, 5000), 1).astype(np.float32)
    labels = (random.random(5000) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    found = measured(labels, logits)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, logits))
    assert found["log_loss"] == pytest.approx(log_loss(labels, scores))
    assert found["calibration"] == pytest.approx(scores.mean() / labels.mean())
    assert found["normalised_entropy"] == pytest.approx(
        found["log_loss"] / log_loss(labels, np.full(5000, labels.mean()))
    )
    assert (found["n"], found["positives"]) == (5000, labels.sum())


def test_what_is_not_defined_is_none_and_what_is_certain_stays_finite() -> None:
    found = measured(np.zeros(2, np.float32), np.array([1e4, -1e4], np.float32))
    assert (found["auc"], found["normalised_entropy"], found["calibration"]) == (None, None, None)
    assert found["log_loss"] == 5000


def test_a_candidate_that_is_not_finite_has_no_figures() -> None:
    found = measured(np.ones(2, np.float32), np.array([np.nan, 0], np.float32))
    assert found["n"] == 2
    assert set(found.values()) == {2, None}


def test_ties_count_half() -> None:
    assert auc(np.array([0, 1, 1, 0]), np.array([3, 3, 3, 3])) == 0.5
