"""kill -9 of the pipeline at every step of its commit order and at random: `tests/loop/kill_pipeline.py` does it."""

import pytest
from drivers import result_of

SEED = "1795856476"  # one in twenty has no partition that falls behind; `make soak` draws another each time


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_comes_twice():
    result = result_of("kill_pipeline.py", "--kills", "20", "--seed", SEED)
    assert result["equal"], result
    assert result["sums"]
    assert result["kills"] >= 20
    assert result["by_idleness"] > 0
    assert result["behind"] > 0
    assert {"pipeline.before_commit", "pipeline.committed", "log.after_link"} <= set(result["places"])


@pytest.mark.slow
def test_without_the_records_rows_come_twice():
    """The twin: files that no record names are there, and only the log tells them from the others."""
    result = result_of("kill_pipeline.py", "--kills", "20", "--trust-listing")
    assert result["twice"] > 0
