"""Joins, delays and waits of `headrace inspect`, against plain Python."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cli.inspect.events import Sample
from headrace.cli.inspect.labels import labels_of

S = 1_000_000


def sample_of(shown, told, *, whole=True):
    """shown: {id: second}; told: [(id, second, label)]."""
    items = sorted(shown.items(), key=lambda item: item[1])
    return Sample(
        id=np.array([key for key, _ in items], np.uint64),
        ts_us=np.array([at * S for _, at in items], np.int64),
        features=pa.table({}),
        duplicates=0,
        feedback_id=np.array([key for key, _, _ in told], np.uint64),
        feedback_us=np.array([at * S for _, at, _ in told], np.int64),
        label=np.array([label for _, _, label in told], np.float32),
        whole=whole,
        trials={},
    )


SHOWN = st.dictionaries(st.integers(0, 20), st.integers(0, 100), max_size=12)
TOLD = st.lists(st.tuples(st.integers(0, 24), st.integers(0, 200), st.sampled_from([0.0, 1.0])), max_size=20)


@given(shown=SHOWN, told=TOLD, attribution=st.integers(1, 90), explicit=st.booleans())
def test_counts_are_those_of_plain_python(shown, told, attribution, explicit):
    found = labels_of(sample_of(shown, told), wait_s=None if explicit else 0.5, attribution_s=attribution)
    good = [(key, at, label) for key, at, label in told if key in shown and 0 <= at - shown[key] <= attribution]
    assert found.joined == len(good)
    assert found.orphans == sum(key not in shown for key, _, _ in told)
    assert found.before == sum(key in shown and at < shown[key] for key, at, _ in told)
    assert found.too_late == sum(key in shown and at - shown[key] > attribution for key, at, _ in told)
    assert found.answered == len({key for key, _, _ in good})
    first = [min(at for key, at, _ in good if key == one) - shown[one] for one in {key for key, _, _ in good}]
    for wait, share in found.catches:
        assert share == pytest.approx(sum(delay <= wait for delay in first) / len(first))
    if not shown or (explicit and not good):
        assert found.positive_rate is None
    elif not explicit:
        assert found.positive_rate == pytest.approx(len(first) / len(shown))
    else:
        last = {}
        for key, at, label in good:
            if key not in last or at >= last[key][0]:
                last[key] = (at, label)
        assert found.positive_rate == pytest.approx(np.mean([label for _, label in last.values()]))


def test_only_impressions_whose_time_has_come_are_judged():
    """A sample that was cut knows nothing yet of its last impressions."""
    shown = {key: key for key in range(100)}
    told = [(key, key + 10, 1.0) for key in range(0, 90, 2)]
    cut = labels_of(sample_of(shown, told, whole=False), wait_s=5, attribution_s=20)
    assert (cut.judged, cut.answered, cut.positive_rate) == (80, 40, 0.5)
    whole = labels_of(sample_of(shown, told), wait_s=5, attribution_s=20)
    assert (whole.judged, whole.answered) == (100, 45)


def test_feedback_after_the_last_impression_that_was_looked_at_is_no_orphan():
    shown = {key: key for key in range(100)}
    told = [(5, 15, 1.0), (7, 130, 1.0), (300, 50, 1.0), *((key, key + 1, 1.0) for key in range(100, 160))]
    cut = labels_of(sample_of(shown, told, whole=False), wait_s=5, attribution_s=20)
    assert (cut.feedback, cut.joined, cut.too_late, cut.orphans) == (3, 1, 1, 1)
    whole = labels_of(sample_of(shown, told), wait_s=5, attribution_s=20)
    assert (whole.feedback, whole.joined, whole.too_late, whole.orphans) == (63, 1, 1, 61)


def test_nothing_to_join():
    found = labels_of(sample_of({}, []), wait_s=5, attribution_s=20)
    assert (found.join_rate, found.positive_rate, found.catches) == (None, None, ())
