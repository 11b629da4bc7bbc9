"""Arms, the cut and the edges."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.cli.freshness.periods import Interval, cut_of, edges_of, finest, parse_every
from headrace.errors import SettingsError

HOUR_US = 3_600_000_000


def test_intervals_keep_the_order_given() -> None:
    assert [one.name for one in parse_every("frozen, 1d,1h")] == ["frozen", "1d", "1h"]
    assert finest(parse_every("frozen,1d,1h")) == Interval(HOUR_US, "1h")
    assert finest(parse_every("frozen")) is None


@pytest.mark.parametrize(
    ("text", "part"),
    [("", "no interval"), ("1h,1h", "twice"), ("hourly", "'hourly' is not"), ("0h", "'0h'"), ("7h,1d", "multiple")],
)
def test_what_is_not_an_interval_is_refused(text: str, part: str) -> None:
    with pytest.raises(SettingsError, match=part) as refused:
        parse_every(text)
    assert refused.value.hint


def test_edges_are_aligned_to_utc_and_cover_every_impression() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        period = int(rng.integers(1, 50))
        cut, length = (int(number) for number in rng.integers(0, 500, 2))
        edges = edges_of(cut, cut + length, period)
        assert all(edge % period == 0 for edge in edges)
        assert edges[0] > cut >= edges[0] - period
        assert edges[-1] > cut + length >= edges[-1] - period
        assert list(np.diff(edges)) == [period] * (len(edges) - 1)


def test_the_cut_is_the_time_of_the_impression_at_the_fraction() -> None:
    times = np.arange(10, dtype=np.int64) * 100
    assert cut_of(times, 0.6) == 600
    for fraction in (0.0, 1.0, -1.0):
        with pytest.raises(SettingsError, match="between 0 and 1"):
            cut_of(times, fraction)
