"""Measures, against scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics

from headrace.cli.freshness.measure import measure


@pytest.mark.parametrize("seed", range(5))
def test_measures_equal_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 500).astype(np.float32)
    scores = np.round(rng.random(500), 1 + seed % 3).clip(0.01, 0.99).astype(np.float32)  # with many ties
    found = measure(labels, scores)
    assert found.auc == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, scores.astype(np.float64)), rel=1e-6)
    assert found.calibration == pytest.approx(scores.sum() / labels.sum(), rel=1e-6)


def test_rows_without_a_label_do_not_count() -> None:
    labels = np.array([1, np.nan, 0], np.float32)
    assert measure(labels, np.array([0.9, 0.1, 0.2], np.float32)).n == 2


def test_what_cannot_be_measured_is_null_in_json() -> None:
    found = measure(np.zeros(3, np.float32), np.full(3, 0.5, np.float32)).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "auc": None,
        "log_loss": pytest.approx(0.6931, abs=1e-4),
        "calibration": None,
        "n": 3,
    }


def test_a_certain_mistake_costs_much_but_not_everything() -> None:
    assert 10 < measure(np.array([1], np.float32), np.array([0], np.float32)).log_loss < 20
