"""Swaps under calls, each answer checked by its value: `tests/loop/swaps.py` does it."""

import pytest
from drivers import result_of

pytestmark = pytest.mark.slow


def test_no_answer_is_wrong_mixed_or_older_than_the_one_before():
    result = result_of("swaps.py", "--swaps", "40", "--predictions", "8000")
    assert (result["errors"], result["mixed"], result["back"], result["unserved"]) == (0, 0, 0, 0), result
    assert result["swaps"] == 40
    assert result["predictions"] >= 8_000
    assert set(result["kinds"]) == {"delta", "rollback", "snapshot"}
    assert result["versions_seen"] >= 20


def test_rows_changed_in_place_are_seen():
    """The twin."""
    assert result_of("swaps.py", "--swaps", "20", "--predictions", "4000", "--in-place")["mixed"] > 0
