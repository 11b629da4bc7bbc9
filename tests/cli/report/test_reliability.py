"""The reliability curve: bins against plain Python, scores against rows and weights that are known."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.cli.report.records import read_records
from headrace.cli.report.reliability import Unscored, bins_of, ece, scored, wilson
from headrace.ids import id_of


def versions(made, span_us=None):
    return read_records(made.loop, span_us=span_us, now_us=1 << 60).versions


def by_hand(made, version, user):
    """The score of a user by a version, without what late positives add: sigmoid(offset - correction + row)."""
    (change,) = made.publisher.table(version).snapshot(0).changes
    rows = dict(zip(change.ids.tolist(), change.decoded()[:, 0].tolist(), strict=True))
    return 1 / (1 + np.exp(-(0.3 - 0.1 + rows[id_of("user", str(user))])))


def test_every_row_is_scored_by_the_version_before_the_one_that_learned_it(busy):
    found = scored(busy.loop, versions(busy), 1_000)
    expected = [
        (label, by_hand(busy, seq, user), by_hand(busy, 1, user))
        for seq in range(1, 8)  # version seq + 1 learned record seq; version 1 is the frozen one
        for user, label in zip(*busy.rows[seq], strict=True)
    ]
    labels, live, frozen = (np.array(part) for part in zip(*sorted(expected), strict=True))
    order = np.lexsort((found.reference, found.live, found.labels))
    np.testing.assert_array_equal(found.labels[order], labels)
    np.testing.assert_allclose(found.live[order], live, rtol=1e-5)
    assert sorted(found.reference) == pytest.approx(sorted(frozen), rel=1e-5)
    assert (found.versions, found.shards, found.reference_version, found.frozen_of) == ((2, 8), (1, 7), 1, 1)
    assert found.rows_there == len(labels) == 7 * 36, "corrections are not rows"
    after = [by_hand(busy, seq + 1, user) for seq in range(1, 8) for user in busy.rows[seq][0]]
    assert not np.allclose(np.sort(found.live), np.sort(after)), "a version that has learned its rows gives others"


def test_only_the_newest_rows_and_an_even_choice_of_them(busy):
    found = scored(busy.loop, versions(busy), 60)
    assert (found.versions, found.shards, found.rows_there, len(found.labels)) == ((7, 8), (6, 7), 72, 72)
    few = scored(busy.loop, versions(busy), 10)
    assert (few.versions, few.rows_there, len(few.labels)) == ((8, 8), 36, 9)
    (live,) = {by_hand(busy, 7, user) for user in busy.rows[7][0][:1]}
    assert few.live[0] == pytest.approx(live, rel=1e-5)


def test_without_the_frozen_version_the_oldest_that_can_be_built_is_the_reference(busy):
    for name in ("log/000000000000.json", "log/000000000001.json"):
        busy.loop.store.delete(f"models/default/{name}")
    with pytest.raises(Unscored, match="no version can be built"):
        scored(busy.loop, versions(busy), 1_000)
    busy.publisher.snapshot()
    seq = busy.shard([1, 2], [0, 1], at_s=90)
    busy.learned(seq, {1: 0.5}, at_s=92, offset=0.3, gate={"correction": 0.1})
    seq = busy.shard([1, 3], [0, 1], at_s=100)
    busy.learned(seq, {3: 0.5}, at_s=102, offset=0.3, gate={"correction": 0.1})
    found = scored(busy.loop, versions(busy), 1_000)
    assert (found.reference_version, found.frozen_of, found.versions) == (8, 1, (9, 10))


def test_shard_records_that_were_learned_twice_count_once(busy):
    busy.publisher.rollback(6)
    busy.learned(7, {1: 0.5}, at_s=99, released=((7, 8),), offset=0.3, gate={"correction": 0.1})
    found = scored(busy.loop, versions(busy), 60)
    assert found.versions == (7, 10)
    assert len(found.labels) == 72
    tail = [by_hand(busy, 6, user) for user in busy.rows[7][0]]
    assert sorted(found.live[36:]) == pytest.approx(sorted(tail), rel=1e-5), "scored by the table that was gone back to"


def test_a_loop_without_rows_says_why(made):
    with pytest.raises(Unscored, match="no version that is kept has learned rows"):
        scored(made.loop, [], 100)
    made.start()
    seq = made.shard([1, 2], [0, 1], at_s=1)
    made.learned(seq, {1: 0.5}, at_s=2)
    with pytest.raises(Unscored, match="version 1 is the only one that can be built"):
        scored(made.loop, versions(made), 100)


def test_bins_against_plain_python():
    rng = np.random.default_rng(1)
    scores = np.round(rng.random(997), 3)
    labels = (rng.random(997) < scores).astype(float)
    bins = bins_of(labels, scores)
    rows = sorted(zip(scores, labels, strict=True))
    start = 0
    for one in bins:
        part = rows[start : start + one.n]
        start += one.n
        assert one.score == pytest.approx(sum(score for score, _ in part) / one.n)
        assert one.rate == pytest.approx(sum(label for _, label in part) / one.n)
        assert one.low <= one.rate <= one.high
        assert 90 <= one.n <= 110
    assert start == 997
    by_hand = sum(one.n * abs(one.score - one.rate) for one in bins) / 997
    assert ece(bins) == pytest.approx(by_hand)


def test_equal_scores_share_a_bin():
    scores = np.array([0.1] * 70 + [0.2] * 30)
    bins = bins_of(np.arange(100) % 2.0, scores)
    assert [(one.n, one.score) for one in bins] == [(70, pytest.approx(0.1)), (30, pytest.approx(0.2))]
    assert bins_of(np.empty(0), np.empty(0)) == []


def test_wilson_covers_what_it_says():
    rng = np.random.default_rng(3)
    inside = 0
    for hits in rng.binomial(200, 0.07, 2_000):
        low, high = wilson(hits / 200, 200)
        inside += low <= 0.07 <= high
    assert 0.93 < inside / 2_000 < 0.97
