"""Freshness by the records, against a watch that looks every few milliseconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headrace.cli.report.ages import Pieces, band, covered, cut, figures, in_force, steps
from headrace.cli.report.records import Records, Shards, Version

S = 1_000_000
NOTHING = Version(0, "start", 0, None, 0, 0, None, None, (), (), (), 0, False, {}, {}, ())


def version(seq, kind="delta", *, at_s, watermark_s, **changes):
    mark = None if watermark_s is None else round(watermark_s * S)
    one = replace(NOTHING, seq=seq, kind=kind, committed_us=round(at_s * S), watermark_us=mark, served=seq)
    return replace(one, changed=kind == "delta", cursor=seq, trained=((seq, seq + 1),), **changes)


def records(versions, *, from_s, until_s, before=None):
    return Records("t", round(from_s * S), round(until_s * S), versions, before, [], None, {}, {}, [])


def random_versions(rng, n=60):
    at = np.cumsum(rng.exponential(2.0, n)) + 10
    lag = rng.uniform(0.5, 3, n)
    marks = np.maximum.accumulate(at - lag)
    return [version(i, at_s=a, watermark_s=w) for i, (a, w) in enumerate(zip(at, marks, strict=True))]


def watched(versions, times_s):
    """Plain Python: at each time, the newest version that is there, and its age."""
    ages, place = [], 0
    for time in times_s:
        while place < len(versions) and versions[place].committed_us <= time * S:
            place += 1
        if place and versions[place - 1].watermark_us:
            ages.append(time - versions[place - 1].watermark_us / S)
    return np.array(ages)


@pytest.mark.parametrize("seed", range(3))
def test_quantiles_are_those_of_a_watch(seed):
    rng = np.random.default_rng(seed)
    versions = random_versions(rng)
    end = versions[-1].committed_us / S + 4
    pieces = in_force(records(versions, from_s=0, until_s=end), lambda seq: None)
    seen = watched(versions, np.arange(0, end, 0.005))
    for part in (0.1, 0.5, 0.9, 0.99):
        assert pieces.quantile(part) == pytest.approx(np.quantile(seen, part), abs=0.02)
    assert pieces.mean() == pytest.approx(seen.mean(), abs=0.02)
    assert figures(pieces, covered(versions), {}, alive=True)["now_s"] == pytest.approx(seen[-1], abs=0.02)


def test_a_pin_a_hold_and_a_rollback_say_whose_watermark_counts():
    first, second = version(1, at_s=10, watermark_s=9), version(2, at_s=20, watermark_s=18)
    hold = version(3, "hold", at_s=30, watermark_s=18)
    back = version(4, "rollback", at_s=40, watermark_s=9, to=1)
    pinned = version(5, "pin", at_s=50, watermark_s=9)
    pin = replace(pinned, served=2)
    pieces = in_force(records([first, second, hold, back, pin], from_s=0, until_s=60), lambda seq: None)
    assert pieces.low.tolist() == [1, 2, 12, 31, 32]
    assert pieces.high.tolist() == [11, 12, 22, 41, 42]
    elsewhere = in_force(records([replace(pin, served=0)], from_s=0, until_s=60), lambda seq: 45 * S)
    assert elsewhere.low.tolist() == [5], "a version that is not in the span is asked for"


def test_a_span_begins_with_what_was_served_before_it():
    before = version(1, at_s=10, watermark_s=9)
    pieces = in_force(records([version(2, at_s=30, watermark_s=29)], from_s=20, until_s=40, before=before), int)
    assert (pieces.low.tolist(), pieces.high.tolist()) == ([11, 1], [21, 11])


def test_nothing_is_told_before_anything_was_learned():
    start = version(0, "start", at_s=1, watermark_s=None)
    pieces = in_force(records([start], from_s=0, until_s=50), int)
    assert not len(pieces)
    told = figures(pieces, covered([start]), steps([start], []), alive=True)
    assert told["now_s"] is told["age_s"]["p99"] is told["event_to_version_s"]["max"] is None
    assert told["steps_s"] == {}


def test_events_wait_for_the_version_that_covers_them():
    rng = np.random.default_rng(5)
    versions = random_versions(rng)
    marks = np.array([one.watermark_us for one in versions]) / S
    events = np.arange(marks[0] + 1e-6, marks[-1], 0.003)
    waited = np.array([versions[int(np.searchsorted(marks, event))].committed_us / S - event for event in events])
    pieces = covered(versions)
    for part in (0.5, 0.99):
        assert pieces.quantile(part) == pytest.approx(np.quantile(waited, part), abs=0.02)
    assert pieces.high.max() == pytest.approx(waited.max(), abs=0.02)
    later = covered(versions[30:], versions[29])
    assert later.high.tolist() == pieces.high[-len(later) :].tolist(), "a span begins where the one before it ends"
    assert later.start_us[0] >= versions[30].committed_us


def test_steps_add_up_to_the_age_at_the_commit():
    versions = [version(1, at_s=10, watermark_s=7), version(2, at_s=20, watermark_s=18)]
    shards = [Shards(seq, at * S, mark * S, 1, 1, 0, {}, {}) for seq, at, mark in ((1, 9, 7), (2, 19, 18))]
    assert steps(versions, shards) == {"pipeline": [2, 1], "trainer": [1, 1]}


def test_a_band_holds_every_age_of_its_span():
    rng = np.random.default_rng(3)
    versions = random_versions(rng, 200)
    until = versions[-1].committed_us + 5 * S
    pieces = in_force(records(versions, from_s=0, until_s=until / S), int)
    edges = np.linspace(0, until + 1, 31).astype(np.int64)
    middles, least, mean, greatest = band(pieces, edges)
    times = np.arange(0, until / S, 0.01)
    for middle, low, centre, high in zip(middles, least, mean, greatest, strict=True):
        place = np.searchsorted(edges, middle) - 1
        seen = watched(versions, times[(times * S >= edges[place]) & (times * S < edges[place + 1])])
        assert low == pytest.approx(seen.min(), abs=0.02)
        assert high == pytest.approx(seen.max(), abs=0.02)
        assert centre == pytest.approx(seen.mean(), abs=0.05)


def test_cutting_changes_no_quantile():
    pieces = Pieces(np.array([1.0, 2.0]), np.array([5.0, 3.0]), np.array([0, 4 * S]))
    small = cut(pieces, np.array([0, S, 2 * S, 4 * S, 9 * S]))
    assert small.low.tolist() == [1, 2, 3, 2]
    assert small.high.tolist() == [2, 3, 5, 3]
    assert small.quantile(0.7) == pieces.quantile(0.7)
