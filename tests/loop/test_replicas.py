"""Replicas that get their files badly, late or from another past: `tests/loop/replicas.py` does it."""

import pytest
from drivers import result_of

pytestmark = pytest.mark.slow


def test_each_fault_is_told_and_ends_with_what_is_published():
    result = result_of("replicas.py", "--faults", "80", "--offline", "200", "--restores", "5")
    assert (result["noticed"], result["healed"], result["wrong"]) == (80, 80, 0), result
    assert [(one["versions"], one["equal"]) for one in result["offline"]] == [(200, True), (200, True)]
    assert result["restored"] == {"times": 5, "reported": 5, "equal": 5}
    assert {kind.split(",")[0] for kind in result["kinds"]} == {"drop", "reorder", "duplicate", "damage"}


def test_without_hashes_something_else_is_served():
    """The twin."""
    result = result_of(
        "replicas.py", "--faults", "40", "--offline", "5", "--restores", "1", "--without-hashes", "--seed", "1"
    )
    assert result["wrong"] > 0
    assert result["noticed"] < 40
