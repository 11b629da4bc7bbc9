"""Which tables stay in memory."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paramserver.generation import Tables
from paramserver.history import History, kept

DAY_S = 86_400


@given(st.lists(st.floats(0, DAY_S), min_size=1))
def test_at_most_seven_are_kept_and_the_youngest_among_them(ages_s):
    places = kept(ages_s)
    assert len(places) <= 7
    assert min(ages_s) in [ages_s[place] for place in places]


def history_of(step_s: float, until_s: float) -> tuple[History, dict[int, float]]:
    """A new version every `step_s`; version -> when it was replaced."""
    history, replaced = History(), {}
    for version, now_s in enumerate(np.arange(0, until_s, step_s)):
        history.add(version, Tables(), float(now_s))
        replaced[version - 1] = float(now_s)
    return history, replaced


def test_about_one_each_of_1_10_and_60_minutes_ago_is_there_at_any_time():
    for until_s in range(7_500, 9_000, 97):
        history, replaced = history_of(5, until_s)
        now_s = max(replaced.values())
        ages_s = [now_s - replaced[version] for version in history.versions if version in replaced]
        for wanted_s in (60, 600, 3_600):
            assert any(wanted_s <= age_s <= 2 * wanted_s for age_s in ages_s), (until_s, wanted_s, ages_s)
        assert len(history.versions) <= 8


def test_the_newest_stays_however_old_it_is():
    history = History()
    tables = Tables()
    history.add(1, tables, 0.0)
    history.add(2, Tables(), DAY_S)
    history.add(3, Tables(), 2 * DAY_S)
    assert history.find(1) is tables
    history.add(4, Tables(), 3 * DAY_S)
    assert history.find(1) is None
    assert history.find(4) is not None
    assert history.find(None) is None


def test_tables_gone_back_to_are_found_under_both_versions():
    history, tables = History(), Tables()
    history.add(1, tables, 0.0)
    history.add(2, Tables(), 1.0)
    history.add(3, tables, 2.0)
    assert history.find(1) is history.find(3) is tables
    assert sorted(history.versions) == [1, 2, 3]
