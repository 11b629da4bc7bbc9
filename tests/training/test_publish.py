"""The residual rule: what replicas hold stays within eps and half a step of what was learned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.delta import Change, Delta, TableSpec, decode_rows
from headrace.published import PublishedTable

NONE = np.empty(0, np.int64)

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]


@given(st.integers(0, 2**32 - 1), st.sampled_from(["int8", "f32"]), st.sampled_from([0.0, 0.003, 0.1]))
def test_replicas_stay_within_eps_and_half_a_step(seed: int, encoding: str, eps: float) -> None:
    from training.publish import Learned, changed

    random = np.random.default_rng(seed)
    spec = TableSpec("embedding", 4, encoding, ("user",))
    published = PublishedTable((spec,))
    ids = np.arange(20, dtype=np.int64)
    rows = random.normal(size=(20, 4)).astype(np.float32)
    for version in range(1, 8):
        touched = random.random(20) < 0.5
        rows[touched] += random.normal(0, 0.01, (touched.sum(), 4)).astype(np.float32)
        change = changed(Learned(spec, ids, rows, NONE), published, eps)
        published.apply(Delta(version, version - 1, (change,)))
        scale, encoded, found = published.lookup("embedding", ids)
        assert found.all()
        step = np.abs(rows).max(1) / 127 if encoding == "int8" else 0
        worst = np.abs(decode_rows(scale, encoded, spec) - rows).max(1)
        assert (worst <= eps + step / 2 + 1e-6).all()


def test_what_did_not_change_is_not_sent_again() -> None:
    from training.publish import Learned, changed

    spec = TableSpec("linear", 1, "f32", ("user",))
    published = PublishedTable((spec,))
    learned = Learned(spec, np.array([3, 5]), np.array([[0.0], [1.0]], np.float32), NONE)
    first = changed(learned, published, 0.0)
    assert first.ids.tolist() == [3, 5]
    published.apply(Delta(1, 0, (first,)))
    assert len(changed(learned, published, 0.0).ids) == 0
    moved = Learned(spec, learned.ids, np.array([[0.0], [1.01]], np.float32), NONE)
    assert changed(moved, published, 0.0).ids.tolist() == [5]
    assert len(changed(moved, published, 0.02).ids) == 0


def test_what_went_is_a_tombstone_if_replicas_have_it() -> None:
    from training.publish import Learned, changed

    spec = TableSpec("linear", 1, "f32", ("user",))
    published = PublishedTable((spec,))
    rows = Change.of_rows(spec, np.array([3, 5]), np.array([[0.0], [1.0]], np.float32))
    published.apply(Delta(1, 0, (rows,)))
    went = changed(Learned(spec, NONE, np.empty((0, 1), np.float32), np.array([4, 5])), published, 0.0)
    assert (went.ids.tolist(), went.tombstones.tolist()) == ([], [5])
