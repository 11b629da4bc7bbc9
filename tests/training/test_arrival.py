"""The share of positives in time, against delays of known law while feedback is still to come; and its twin."""

from __future__ import annotations

import numpy as np
import pytest

from training.arrival import LEAST, Arrival, Waits

S = 1_000_000
WAITS = Waits(30 * S, 1_800 * S)
LAWS = {
    "exponential": lambda random, n: random.exponential(120.0, n),
    "lognormal": lambda random, n: random.lognormal(3.5, 1.2, n),
}


def stream(law: str, seed: int, until_s: int, per_s: int = 2) -> tuple[list[tuple[np.ndarray, ...]], float]:
    """Records of 10 s of decisions: (event times, delays, newest decision); and the true share in time."""
    random = np.random.default_rng(seed)
    event = np.sort(random.uniform(0, until_s, until_s * per_s))
    delay = LAWS[law](random, len(event))
    event, delay = event[delay <= 1_800], delay[delay <= 1_800]
    decided = event + np.maximum(delay, 30)
    records = []
    for start in range(0, until_s, 10):
        here = (decided >= start) & (decided < start + 10)
        times = (event[here] * S).astype(np.int64), (delay[here] * S).astype(np.int64)
        records.append((*times, np.int64((start + 10) * S)))
    sample = LAWS[law](np.random.default_rng(seed + 1), 1_000_000)
    return records, float((sample <= 30).mean() / (sample <= 1_800).mean())


def folded(records: list[tuple[np.ndarray, ...]]) -> Arrival:
    arrival = Arrival.empty()
    for event, delay, newest in records:
        arrival = arrival.folded(WAITS, event, delay, int(newest))
    return arrival


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("until_s", [2_400, 20_000])
def test_the_share_is_right_while_feedback_is_still_to_come(law: str, until_s: int) -> None:
    records, share = stream(law, 3, until_s)
    arrival = folded(records)
    assert arrival.share(WAITS) == pytest.approx(share, rel=0.12 if until_s < 9_000 else 0.06)
    assert arrival.offset(WAITS) == pytest.approx(-np.log(arrival.share(WAITS)))
    assert len(arrival.cohorts) < 70  # what it keeps does not grow


def test_twin_without_truncation_late_feedback_is_missed() -> None:
    records, share = stream("exponential", 3, 240, per_s=50)
    right = folded(records).share(WAITS)
    delays = np.concatenate([delay for _, delay, _ in records])
    naive = float((delays <= 30 * S).mean())
    assert abs(naive / share - 1) > 0.2
    assert abs(right / share - 1) < abs(naive / share - 1)


def test_few_corrections_move_nothing_and_the_bounds_hold() -> None:
    one = Arrival.empty().folded(WAITS, np.array([S]), np.array([500 * S]), 4_000 * S)
    assert 0.9 < one.share(WAITS) < 1
    assert Arrival.empty().offset(WAITS) == 0
    times = np.full(100_000, S)
    assert folded([(times, np.full(100_000, 500 * S), np.int64(4_000 * S))]).share(WAITS) == LEAST


def test_it_comes_back_from_a_checkpoint_and_follows_a_change() -> None:
    records, _ = stream("exponential", 5, 6_000)
    arrival = folded(records)
    again = Arrival.restored(arrival.arrays())
    assert again.share(WAITS) == arrival.share(WAITS)
    assert Arrival.restored({}).share(WAITS) == 1
    late = 6_000 * S + np.arange(0, 80_000 * S, S // 2)
    for part in np.array_split(late, 200):
        again = again.folded(WAITS, part, np.zeros(len(part), np.int64), int(part[-1]) + 30 * S)
    assert again.share(WAITS) > 0.9
