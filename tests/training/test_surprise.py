from __future__ import annotations

import numpy as np
import pytest

from training.surprise import LEAST_RECENT, Excess, excess_of, surprise_of

LIMIT = 10.0  # the default of gate.surprise


def stream(random: np.random.Generator, n: int, hour: int, *, off: float = 0.0):
    """(labels, logits) of n rows whose rate of positives has a day cycle; off: what the model's logits miss."""
    truth = -3.0 + np.sin(hour / 24 * 2 * np.pi) + random.normal(0, 0.8, n)
    labels = (random.random(n) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return labels, (truth + off + random.normal(0, 0.3, n)).astype(np.float32)


def surprises(random: np.random.Generator, records: int, n: int, **fields: float) -> list[float]:
    recent: list[float] = []
    found = []
    for hour in range(records):
        excess = excess_of(*stream(random, n, hour, **fields))
        assert excess is not None
        surprise = surprise_of(excess, recent)
        found += [surprise] if surprise is not None else []
        recent.append(excess.mean)
    return found


@pytest.mark.parametrize("n", [20, 200, 5_000])
@pytest.mark.parametrize("off", [0.0, 0.5])
def test_a_day_cycle_is_no_surprise(n: int, off: float) -> None:
    assert max(surprises(np.random.default_rng(n), 2_000, n, off=off)) < LIMIT


@pytest.mark.parametrize("n", [50, 200, 5_000])
def test_flipped_labels_are(n: int) -> None:
    random = np.random.default_rng(n)
    recent = [excess_of(*stream(random, n, hour)).mean for hour in range(20)]
    for hour in range(100):
        labels, logits = stream(random, n, hour)
        assert surprise_of(excess_of(1 - labels, logits), recent) > LIMIT


def test_the_rate_alone_would_call_a_day_cycle_a_surprise() -> None:
    """The twin: the loss itself, without what the model expected of it."""
    random = np.random.default_rng(0)
    losses = []
    for hour in range(48):
        labels, logits = stream(random, 5_000, hour)
        losses.append(float(np.mean(np.logaddexp(0, logits) - labels * logits)))
    excesses = [excess_of(*stream(random, 5_000, hour)).mean for hour in range(48)]
    assert np.ptp(losses) > 4 * np.ptp(excesses)


def test_one_poisoned_record_does_not_make_the_next_believable() -> None:
    """The twin: mean and deviation would."""
    recent = [*np.random.default_rng(0).normal(0, 0.02, 19), 2.0]
    assert surprise_of(Excess(2.0, 0.01), recent) > LIMIT
    assert (2.0 - np.mean(recent)) / np.std(recent) < LIMIT


def test_too_little_is_known() -> None:
    assert surprise_of(Excess(9.0, 0.0), [0.0] * (LEAST_RECENT - 1)) is None
    assert excess_of(np.empty(0, np.float32), np.empty(0, np.float32)) is None
    assert excess_of(np.array([1], np.float32), np.array([np.nan], np.float32)) is None
