"""Running statistics against numpy over all rows at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.delta import Numbers
from training.statistics import MEMORY, Running, standardised


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_merging_records_is_exact_whatever_the_cuts(cuts: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(3, 10, (sum(cuts), 2)).astype(np.float32)
    values[random.random(values.shape) < 0.3] = np.nan
    values[0] = 1
    running = Running.empty(2)
    for part in np.split(values, np.cumsum(cuts)[:-1]):
        running = running.folded(part)
    np.testing.assert_allclose(running.mean, np.nanmean(values.astype(np.float64), 0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(running.variance, np.nanvar(values.astype(np.float64), 0), rtol=1e-8, atol=1e-9)


def test_it_forgets_once_it_remembers_enough() -> None:
    old = Running(np.array([float(MEMORY)]), np.array([0.0]), np.array([1.0]))
    moved = old.folded(np.full((MEMORY // 10, 1), 5, np.float32))
    assert moved.mean[0] == 0.5
    assert moved.rows[0] == MEMORY


def test_standardised_numbers_and_flags() -> None:
    numbers = np.array([[1, np.nan], [1000, 4]], np.float32)
    expected = [[0, 0, 0, 1], [5, 2, 0, 0]]
    assert standardised(numbers, Numbers((1.0, 0.0), (2.0, 0.5))).tolist() == expected


def test_a_feature_without_values_is_left_alone() -> None:
    running = Running.empty(1).folded(np.full((3, 1), np.nan, np.float32))
    assert running.numbers() == Numbers((0.0,), (1.0,))
