"""Swaps under calls, each answer checked by its value: `tests/loop/swaps.py` does it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).with_name("swaps.py")


def swaps(*arguments):
    done = subprocess.run(
        [sys.executable, str(DRIVER), *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_answer_is_wrong_mixed_or_older_than_the_one_before():
    result = swaps("--swaps", "40", "--predictions", "8000")
    assert (result["errors"], result["mixed"], result["back"], result["unserved"]) == (0, 0, 0, 0), result
    assert result["swaps"] == 40
    assert result["predictions"] >= 8_000
    assert set(result["kinds"]) == {"delta", "rollback", "snapshot"}
    assert result["versions_seen"] >= 20


def test_rows_changed_in_place_are_seen():
    """The twin."""
    assert swaps("--swaps", "20", "--predictions", "4000", "--in-place")["mixed"] > 0
