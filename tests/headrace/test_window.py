import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.window import (
    Horizon,
    PartitionClock,
    advance,
    closed_us,
    drained_us,
    idle_since,
    newest,
    window_start_us,
)

IDLE = 1_000


def after(previous, *clocks, now=5_000, complete=0):
    return advance(previous, clocks, now_us=now, idle_us=IDLE, complete_until_us=complete)


def test_the_slowest_partition_holds_the_watermark():
    assert after(0, PartitionClock(300), PartitionClock(200)) == 200


def test_a_partition_without_events_holds_it_until_it_is_idle():
    assert after(0, PartitionClock(300), PartitionClock(0)) == 0
    assert after(0, PartitionClock(300), PartitionClock(0, idle_since_us=4_001)) == 0
    assert after(0, PartitionClock(300), PartitionClock(0, idle_since_us=4_000)) == 300


def test_it_never_falls_when_a_partition_appears_or_wakes():
    assert after(250, PartitionClock(300), PartitionClock(0)) == 250
    assert after(300, PartitionClock(300), PartitionClock(100)) == 300


def test_an_outage_is_not_idleness():
    assert after(0, PartitionClock(300), PartitionClock(200, idle_since_us=None), now=10**9) == 200


def test_all_idle_moves_on_by_the_time_beyond_idle_not_to_now():
    clocks = [PartitionClock(300, 1_000), PartitionClock(200, 2_000)]
    assert after(200, *clocks, now=3_000) == 300
    assert after(200, *clocks, now=3_700) == 1_000


def test_nothing_known_stays_nothing():
    assert after(0, PartitionClock(0, 0), PartitionClock(0, 0), now=10**9) == 0
    assert after(0) == 0


def test_a_declaration_wins():
    assert after(0, PartitionClock(300), PartitionClock(0), complete=700) == 700
    assert after(800, PartitionClock(300), complete=700) == 800


@given(
    st.lists(st.tuples(st.integers(0, 1_000), st.none() | st.integers(0, 6_000)), max_size=4),
    st.integers(0, 2_000),
    st.integers(0, 6_000),
)
def test_never_falls(clocks, previous, now):
    assert after(previous, *(PartitionClock(*clock) for clock in clocks), now=now) >= previous


def test_idle_since_starts_anew_with_every_event_and_ends_with_an_outage():
    assert idle_since(None, caught_up=True, moved=False, now_us=7) == 7
    assert idle_since(3, caught_up=True, moved=False, now_us=7) == 3
    assert idle_since(3, caught_up=True, moved=True, now_us=7) == 7
    assert idle_since(3_600, caught_up=True, moved=False, now_us=7) == 7  # the clock was set back
    assert idle_since(3, caught_up=False, moved=False, now_us=7) is None


def test_partition_watermark():
    assert newest(0, 100, 30) == 70
    assert newest(90, 100, 30) == 90
    assert newest(90, None, 30) == 90


@pytest.mark.parametrize(("watermark", "closed"), [(0, 0), (100, 0), (1_000, 590)])
def test_closed_windows(watermark, closed):
    assert closed_us(watermark, Horizon(60, 5, IDLE, attribution_us=400, lateness_us=10)) == closed


def test_a_drain_passes_the_end_of_every_life_and_window():
    horizon = Horizon(60, 5, IDLE, attribution_us=400, lateness_us=10)
    drained = drained_us([PartitionClock(995), PartitionClock(100)], horizon)
    newest_event = 1_000
    assert newest_event + 400 + 10 < drained
    assert closed_us(drained, horizon) >= int(window_start_us(np.array([newest_event]), 60)[0]) + 60
    assert drained_us([PartitionClock(0)], horizon) == 0


def test_window_starts_before_1970_round_down():
    assert window_start_us(np.array([-1, 0, 59, 60]), 60).tolist() == [-60, 0, 0, 60]
