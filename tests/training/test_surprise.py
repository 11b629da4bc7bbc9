from __future__ import annotations

import numpy as np
import pytest

from training.surprise import LEAST_RECENT, RECENT, Excess, Past, excess_of, surprise_of

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


class Version:
    """As much of a version's record as the past is read from."""

    def __init__(self, excess: float | None, surprise: float | None = None, greatest: float = 0.0) -> None:
        self.kind = "hold" if (surprise or 0) > LIMIT else "delta"
        self.evaluation = {"live": {"excess": excess}} if excess is not None else {}
        self.gate = {"surprise": surprise, "greatest": greatest}


def test_the_past_remembers_what_was_held_and_counts_surprises_in_a_row() -> None:
    past = Past(10.0).after([Version(0.0)] * 30 + [Version(None)])
    assert (len(past.excesses), past.row) == (RECENT, 0)
    for row in (1, 2, 3):
        past = past.after([Version(2.0, 20.0)])
        assert (past.excesses[-1], past.row) == (2.0, row)
    assert past.limit_after(4) == 10.0
    assert past.limit_after(3) == float("inf")
    assert past.after([Version(2.0, 20.0)]).row == 4, "waived is a surprise all the same"
    assert past.after([Version(0.1, 0.5)]).limit_after(3) == 10.0


def test_what_is_held_for_another_reason_does_not_wear_the_gate_down() -> None:
    assert Past(10.0).after([Version(None)] * 5).limit_after(3) == 10.0


def test_of_several_records_the_greatest_surprise_counts() -> None:
    past = Past(10.0, (0.0,) * 20)
    assert past.surprise([Excess(0.0, 0.01), Excess(2.0, 0.01), Excess(0.1, 0.01)]) == surprise_of(
        Excess(2.0, 0.01), past.excesses
    )
    assert past.surprise([]) is None
    assert Past(10.0).surprise([Excess(9.0, 0.1)]) is None


def test_where_storms_are_part_of_life_a_record_must_be_worse_than_they_were() -> None:
    """The flights of 2013: 0.9 nats in a storm that was learned, 1.05 in a worse one. `calm` is the twin."""
    calm = Past(LIMIT).after([Version(0.0)] * 30)
    assert calm.surprise([Excess(0.9, 0.09)]) < LIMIT
    storm = calm.after([Version(0.9, 9.0), *[Version(0.0)] * 200])
    worse = [Excess(1.05, 0.09)]
    assert storm.surprise(worse) < LIMIT < calm.surprise(worse)
    assert storm.surprise([Excess(2.0, 0.05)]) > LIMIT


def test_what_was_held_does_not_widen_what_is_believed() -> None:
    past = Past(LIMIT).after([Version(0.0)] * 30).after([Version(2.0, 20.0)] * 3)
    assert past.greatest == 0.0


def test_the_greatest_outlives_a_restart_that_sees_a_few_versions_only() -> None:
    before = Past(LIMIT).after([Version(0.9), *[Version(0.0)] * 500])
    assert Past(LIMIT).after([Version(0.0, 0.0, before.greatest)]).greatest == before.greatest * 0.999
