"""Log-loss live and frozen from the records, against the rows that the records are of."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from headrace.cli.report.losses import figures, points, total
from headrace.cli.report.records import Version
from training.evaluate import measured

NOTHING = Version(0, "delta", 0, None, 0, 0, None, None, (), (), (), 0, True, {}, {}, ())


def versions_of(rng, sizes):
    """Versions as a trainer would write them, and the rows of all: labels, live and frozen logits."""
    made, rows = [], []
    for seq, n in enumerate(sizes, 1):
        labels = (rng.random(n) < 0.2).astype(np.float32)
        live, frozen = rng.normal(-1.4, 1, (2, n)).astype(np.float32)
        told = {"live": measured(labels, live), "frozen": {"of": 1, **measured(labels, frozen)}}
        made.append(replace(NOTHING, seq=seq, committed_us=seq, evaluation=told))
        rows.append((labels, live, frozen))
    return made, [np.concatenate(part) for part in zip(*rows, strict=True)]


def test_together_they_are_what_all_rows_would_give():
    made, (labels, live, frozen) = versions_of(np.random.default_rng(2), [400, 50, 900, 100])
    every = total(made)
    for side, logits in (("live", live), ("frozen", frozen)):
        whole = measured(labels, logits)
        assert getattr(every, side) == pytest.approx(whole["log_loss"])
        assert getattr(every, f"{side}_calibration") == pytest.approx(whole["calibration"])
    assert (every.n, every.versions, every.positives) == (1_450, 4, labels.sum())


def test_points_share_the_rows_and_keep_their_order():
    made, _ = versions_of(np.random.default_rng(4), [100] * 90)
    curve = points(made, 10)
    assert [one.versions for one in curve] == [9] * 10
    assert sum(one.n for one in curve) == 9_000
    assert all(one.until_us < later.from_us for one, later in itertools.pairwise(curve))
    assert sum(one.n * one.live for one in curve) / 9_000 == pytest.approx(total(made).live)


def test_only_published_versions_with_both_sides_count():
    made, _ = versions_of(np.random.default_rng(6), [100, 100, 100])
    first = replace(made[0], evaluation={"live": made[0].evaluation["live"]})
    held = replace(made[1], kind="hold", changed=False)
    assert total([first, held, made[2]]).n == 100
    assert total([first, held]) is None
    assert figures([first]) == {"frozen_versions": [], "total": None, "curve": []}


def test_no_calibration_is_made_up_where_records_have_no_positive():
    made, _ = versions_of(np.random.default_rng(8), [100, 100])
    silent = measured(np.zeros(50, np.float32), np.full(50, -1, np.float32))
    none = replace(made[0], seq=9, evaluation={"live": silent, "frozen": {"of": 1, **silent}})
    every = total([*made, none])
    assert every.live_calibration is None
    assert every.n == 250
