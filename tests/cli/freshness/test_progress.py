"""Progress off a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cli.freshness.progress import progress

if TYPE_CHECKING:
    import pytest


def test_lines_every_half_minute_and_an_estimate_after_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with progress("hours", 100, done=20, clock=lambda: now[0]) as advance:
        for step in range(21, 61):
            now[0] += 3.0
            advance(step)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "hours: 30 of 100",
        "hours: 40 of 100, about 3 minutes to go",
        "hours: 50 of 100, about 2 minutes to go",
        "hours: 60 of 100, about 2 minutes to go",
    ]
