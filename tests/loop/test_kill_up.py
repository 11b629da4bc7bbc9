"""kill -9 of all processes of a running `headrace up`: `tests/loop/kill_up.py` does it."""

import pytest
from drivers import result_of


@pytest.mark.slow
def test_the_next_up_goes_on() -> None:
    result = result_of("kill_up.py", "--kills", "3", within_s=550)
    assert result["equal"], result
    assert result["sums"]
    assert result["gapless"]
    assert result["digest"]
    assert result["versions"] > 1
    assert result["rows"] > 0
