"""kill -9 of the pipeline at every step of its commit order and at random: `tests/loop/kill_pipeline.py` does it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("kill_pipeline.py")


def torture(*arguments):
    done = subprocess.run(
        [sys.executable, str(DRIVER), *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_comes_twice():
    result, done = torture("--kills", "20")
    assert result["equal"], (result, done.stderr)
    assert result["sums"]
    assert result["kills"] >= 20
    assert result["by_idleness"] > 0
    assert result["behind"] > 0
    assert {"pipeline.before_commit", "pipeline.committed", "log.after_link"} <= set(result["places"])


@pytest.mark.slow
def test_without_the_records_rows_come_twice():
    """The twin: files that no record names are there, and only the log tells them from the others."""
    result, _ = torture("--kills", "20", "--trust-listing")
    assert result["twice"] > 0
