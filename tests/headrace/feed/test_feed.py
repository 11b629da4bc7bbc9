"""The feed is what it says: clicks follow their probabilities, worlds follow their seed, every line is there."""

import json
from collections import Counter

import numpy as np
import pytest

from headrace.feed import Faults, World, WorldPolicy, Writer, generate
from headrace.feed.lines import CLICKS, IMPRESSIONS, TRUTH

SMALL = WorldPolicy(seed=3, users=300)


def walked(policy, steps, each=200):
    world = World(policy)
    shown = []
    for _ in range(steps):
        shown.append(world.show(each))
        world.advance()
    return shown


def test_clicks_follow_their_probability():
    shown = generate(SMALL, days=0.5, per_day=200_000)
    order = np.argsort(shown.p)
    for part in np.array_split(order, 10):
        spread = np.sqrt((shown.p[part] * (1 - shown.p[part])).sum())
        assert abs(shown.clicked[part].sum() - shown.p[part].sum()) < 4 * spread


def test_the_same_seed_is_the_same_feed_and_another_is_not():
    once, again, other = (generate(WorldPolicy(seed=s, users=300), days=0.1, per_day=100_000) for s in (1, 1, 2))
    assert np.array_equal(once.p, again.p)
    assert np.array_equal(once.clicked, again.clicked)
    assert not np.array_equal(once.item[:500], other.item[:500])


def test_a_world_is_the_same_however_it_was_reached():
    watched, skipped = World(SMALL), World(SMALL)
    for _ in range(50):
        watched.show(100)
        watched.advance()
        skipped.advance()
    assert np.array_equal(watched.show(100).p, skipped.show(100).p)


def test_the_best_log_loss_is_that_of_the_true_probabilities():
    shown = generate(SMALL, days=1, per_day=200_000)
    of_outcomes = -np.where(shown.clicked, np.log(shown.p), np.log1p(-shown.p)).mean()
    assert shown.best_log_loss() == pytest.approx(of_outcomes, abs=0.01)


def test_items_are_born_and_die():
    shown = walked(WorldPolicy(seed=1, users=300, step_h=1.0), 80)
    assert set(shown[0].item) & set(shown[2].item)
    assert not set(shown[0].item) & set(shown[-1].item)


def test_a_regime_change_moves_what_users_click():
    def rate(policy):
        return np.concatenate([part.p for part in walked(policy, 40)[20:]])

    calm = WorldPolicy(seed=1, users=300)
    turned = WorldPolicy(seed=1, users=300, regime_h=20 / 60)
    assert np.array_equal(walked(calm, 19)[-1].p, walked(turned, 19)[-1].p)
    assert rate(turned).mean() < rate(calm).mean()


def test_without_drift_nothing_changes():
    still = World(WorldPolicy(seed=1, users=300, drift=0.0, births=False, regime_h=0.1))
    before = still.show(1_000)
    for _ in range(600):
        still.advance()
    assert not still.changed
    assert still.show(1_000).p.mean() == pytest.approx(before.p.mean(), rel=0.15)


def written(tmp_path, faults, *, n=4_000):
    shown = World(SMALL).show(n)
    writer = Writer(tmp_path, faults, seed=1)
    writer.take(shown, np.arange(n, dtype=np.int64) * 1_000, first_id=100)
    writer.write(1 << 62)
    return shown, writer, {name: (tmp_path / name).read_text().splitlines() for name in (IMPRESSIONS, CLICKS, TRUTH)}


def test_lines_carry_what_was_shown(tmp_path):
    shown, _, files = written(tmp_path, Faults(0, 0, 0, 0, 0))
    impressions = [json.loads(line) for line in files[IMPRESSIONS]]
    assert [one["id"] for one in impressions] == list(range(100, 4_100))
    assert [one["item"] for one in impressions] == [f"i{item}" for item in shown.item]
    assert sorted(json.loads(line)["id"] for line in files[CLICKS]) == [
        100 + at for at in np.flatnonzero(shown.clicked)
    ]
    truth = [json.loads(line) for line in files[TRUTH]]
    assert np.allclose([one["p"] for one in truth], shown.p, atol=1e-6)
    assert [one["clicked"] for one in truth] == shown.clicked.tolist()


def test_faults_come_at_their_rates_and_lose_nothing(tmp_path):
    _, writer, files = written(tmp_path, Faults(late=0.05, late_s=5.0, twice=0.1, twice_s=1.0, broken=0.02))
    counts = writer.counts
    lines = files[IMPRESSIONS] + files[CLICKS]
    assert len(lines) == counts["impressions"] + counts["clicks"] + counts["twice"]
    broken = sum(not _whole(line) for line in lines)
    assert broken == counts["broken"]
    for name, share in (("late", 0.05), ("twice", 0.1), ("broken", 0.02)):
        assert counts[name] == pytest.approx(share * (counts["impressions"] + counts["clicks"]), rel=0.3)
    times = [json.loads(line)["ts"] for line in files[IMPRESSIONS] if _whole(line)]
    assert times != sorted(times)
    assert max(Counter(files[IMPRESSIONS]).values()) == 2


def _whole(line):
    try:
        return bool(json.loads(line))
    except ValueError:
        return False


def test_nothing_is_written_before_it_is_due(tmp_path):
    shown = World(SMALL).show(100)
    writer = Writer(tmp_path, Faults(0, 0, 0, 0, 0), seed=1)
    writer.take(shown, np.arange(100, dtype=np.int64) * 1_000, first_id=0)
    writer.write(49_999)
    assert len((tmp_path / IMPRESSIONS).read_text().splitlines()) == 50
