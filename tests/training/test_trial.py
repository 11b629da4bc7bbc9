"""When something is worse: paired, significant and material; what a trial counts, and where its anchor goes."""

from __future__ import annotations

import numpy as np
import pytest

from training.trial import MOST_VERSIONS, Sums, Trial


def drawn(n, seed=0, rate=0.1):
    """Labels, and logits that know them a little."""
    random = np.random.default_rng(seed)
    z = random.normal(np.log(rate / (1 - rate)), 1.0, n).astype(np.float32)
    return (random.random(n) < 1 / (1 + np.exp(-z))).astype(np.float32), z


def test_a_version_beside_itself_is_not_worse():
    y, z = drawn(5_000)
    assert Sums.of(y, z, z).worse() == ""


def test_noise_is_not_worse_in_a_thousand_trials():
    random = np.random.default_rng(1)
    for seed in range(1_000):
        y, z = drawn(2_000, seed)
        moved = z + random.normal(0, 0.1, len(z)).astype(np.float32)
        assert Sums.of(y, moved, z).worse() == ""


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda z: z + np.log(2).astype(np.float32),  # predicts twice as much
        lambda z: z - np.log(2).astype(np.float32),
        lambda z: np.random.default_rng(2).permutation(z),
        lambda z: -z,
        lambda z: np.full_like(z, np.nan),
        lambda z: z * 50,
    ],
    ids=["double", "half", "permuted", "flipped", "nan", "exploded"],
)
def test_what_is_broken_is_worse(spoiled):
    y, z = drawn(2_000)
    assert Sums.of(y, spoiled(z), z).worse()
    assert Sums.of(y, z, spoiled(z)).worse() == ""  # the other way round it is better


def test_what_is_hard_for_both_is_held_against_none():
    y, z = drawn(2_000)
    assert Sums.of(1 - y, z, z + np.float32(0.05)).worse() == ""


def test_what_is_significant_but_of_no_account_is_not_worse():
    y, z = drawn(2_000_000)
    slightly = z + np.float32(0.1)
    sums = Sums.of(y, slightly, z)
    assert sums.difference / sums.n > 3.3 * (sums.square / sums.n / sums.n) ** 0.5
    assert sums.worse() == ""


def test_few_rows_prove_nothing():
    y, z = drawn(20)
    assert Sums.of(y, z + np.float32(0.7), z).worse() == ""
    assert Sums().worse() == ""


def test_sums_add_up():
    y, z = drawn(1_000)
    a = z + np.float32(0.3)
    both = Sums.of(y[:400], z[:400], a[:400]) + Sums.of(y[400:], z[400:], a[400:])
    whole = Sums.of(y, z, a)
    assert both.n == whole.n
    assert both.difference == pytest.approx(whole.difference)


def good(n):
    y, z = drawn(n)
    return Sums.of(y, z, z)


def test_there_is_no_verdict_before_there_are_rows_enough():
    trial = Trial(3).after(4, good(900)).after(5, good(900))
    assert trial.verdict(2_000) is None
    assert trial.after(6, good(900)).verdict(2_000) is not None
    assert Trial(3).verdict(1) is None


def test_the_anchor_moves_to_what_half_of_the_rows_have_tested():
    assert Trial(3).after(4, good(2_000)).verdict(2_000).version == 4
    even = Trial(3)
    for version in range(4, 14):
        even = even.after(version, good(200))
    verdict = even.verdict(2_000)
    assert (verdict.anchor, verdict.version, verdict.to_json()["result"]) == (3, 9, "good")
    assert even.decided(verdict) == Trial(9)


def test_a_trial_of_very_many_versions_ends_with_the_rows_that_it_has():
    trial = Trial(0)
    for version in range(1, MOST_VERSIONS + 1):
        assert trial.verdict(10**6) is None
        trial = trial.after(version, good(2))
    assert trial.verdict(10**6) is not None


def test_a_bad_verdict_names_all_since_the_anchor_and_a_good_one_forgets_the_rollbacks():
    y, z = drawn(2_000)
    bad = Trial(3, rollbacks=2).after(4, Sums.of(y, -z, z))
    verdict = bad.verdict(2_000)
    assert (verdict.anchor, verdict.version, verdict.to_json()["result"]) == (3, 4, "worse")
    assert "log-loss" in verdict.reason
    assert bad.decided(verdict).rollbacks == 2
    assert Trial(3, rollbacks=2).after(4, good(2_000)).decided(verdict.__class__(3, 4, "", 2_000)).rollbacks == 0


def test_a_trial_goes_through_a_record_bit_by_bit():
    y, z = drawn(1_000)
    trial = Trial(3, rollbacks=1).after(4, Sums.of(y, z, -z))
    assert Trial.from_json(trial.to_json()) == trial
