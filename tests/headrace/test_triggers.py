"""Triggers: when rows that wait are due, what they wait for, and cron lines that cannot be."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from settings import settings_text

from headrace import config
from headrace.errors import SettingsError
from headrace.triggers import Triggers, check, due, waits_for

S = 1_000_000
EVENING = round(datetime(2026, 3, 28, 20, tzinfo=UTC).timestamp()) * S
HOUR = 3_600 * S


def test_without_triggers_whatever_waits_is_due_at_once():
    assert due(Triggers(), rows=1, decided_us=EVENING, now_us=EVENING)
    assert not due(Triggers(), rows=0, decided_us=EVENING, now_us=EVENING + HOUR)


def test_the_first_rows_of_a_lineage_are_due_at_once():
    assert due(Triggers(min_rows=1_000), rows=1, decided_us=None, now_us=EVENING)


@pytest.mark.parametrize(
    ("triggers", "rows", "after_s", "expected"),
    [
        (Triggers(min_rows=100), 99, 9_999, False),
        (Triggers(min_rows=100), 100, 0, True),
        (Triggers(every_us=60 * S), 1, 59, False),
        (Triggers(every_us=60 * S), 1, 60, True),
        (Triggers(every_us=60 * S, min_rows=100), 100, 1, True),  # ORed
        (Triggers(every_us=60 * S, min_rows=100), 1, 60, True),
        (Triggers(at=("0 3 * * *",)), 1, 7 * 3_600 - 1, False),
        (Triggers(at=("0 3 * * *",)), 1, 7 * 3_600, True),
        (Triggers(at=("0 3 * * *",)), 1, 30 * 3_600, True),  # it fired while nobody looked
        (Triggers(at=("0 3 * * *", "0 21 * * *")), 1, 3_600, True),
        (Triggers(at=("0 3 * * *",)), 0, 30 * 3_600, False),
    ],
)
def test_each_trigger_is_due_from_its_moment_on(triggers, rows, after_s, expected):
    assert due(triggers, rows=rows, decided_us=EVENING, now_us=EVENING + after_s * S) is expected


@pytest.mark.parametrize("triggers", [Triggers(every_us=HOUR), Triggers(at=("0 3 * * *",)), Triggers(min_rows=100)])
def test_a_decision_of_a_clock_that_was_set_back_keeps_no_rows_waiting(triggers):
    years = 4 * 365 * 24 * HOUR
    assert due(triggers, rows=1, decided_us=EVENING + years, now_us=EVENING)
    assert not due(triggers, rows=0, decided_us=EVENING + years, now_us=EVENING)
    assert waits_for(triggers, rows=1, decided_us=EVENING + years, now_us=EVENING) == ""


def test_cron_lines_are_read_in_their_time_zone_through_summer_time():
    """Berlin springs forward in that night: 03:00 is 01:00 UTC, and six hours after 20:00 UTC minus one."""
    berlin = Triggers(at=("0 3 * * *",), time_zone="Europe/Berlin")
    assert not due(berlin, rows=1, decided_us=EVENING, now_us=EVENING + 5 * HOUR - S)
    assert due(berlin, rows=1, decided_us=EVENING, now_us=EVENING + 5 * HOUR)


def test_what_rows_wait_for_is_said_until_they_are_due():
    triggers = Triggers(every_us=2 * HOUR, at=("0 3 * * *",), min_rows=500)
    said = waits_for(triggers, rows=40, decided_us=EVENING, now_us=EVENING)
    assert "40 rows wait for 500 of them (train.min_rows) or for 2026-03-28T22:00:00Z (train.every_s)" in said
    assert waits_for(triggers, rows=40, decided_us=EVENING, now_us=EVENING + 2 * HOUR) == ""
    assert waits_for(Triggers(), rows=40, decided_us=EVENING, now_us=EVENING) == ""


@pytest.mark.parametrize("line", ["0 0 31 2 *", "0 0 30 2 *"])
def test_a_cron_line_that_never_fires_is_refused(line):
    with pytest.raises(SettingsError, match="never fires"):
        check(Triggers(at=(line,)))


@pytest.mark.parametrize(
    "line", ["", "every day", "61 3 * * *", "0 3 * *", "0 3 * * * *", "@daily x", "R 3 * * *", "0 1,r(2-4) * * *"]
)
def test_what_is_no_cron_line_is_refused(line):
    with pytest.raises(SettingsError, match="no cron line") as caught:
        check(Triggers(at=("0 3 * * *", line)))
    assert "minute, hour" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('at = "0 0 31 2 *"', "never fires"),
        ('at = ["0 3 * * *", "nonsense"]', "no cron line"),
        ('at = "0 3 * * *"\ntime_zone = "Mars/Base"', "train.time_zone"),
        ("every_s = 0", "every_s"),
        ("min_rows = 0", "min_rows"),
        ("on_drift = true", "not implemented yet"),
    ],
)
def test_settings_that_cannot_be_are_refused_where_they_are_read(tmp_path, text, message):
    file = tmp_path / "headrace.toml"
    file.write_text(settings_text(train={}) + text)
    with pytest.raises(Exception, match=message):
        config.load(file)
