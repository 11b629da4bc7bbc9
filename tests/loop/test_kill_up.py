"""kill -9 of all processes of a running `headrace up`: `tests/loop/kill_up.py` does it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("kill_up.py")


@pytest.mark.slow
def test_the_next_up_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, str(DRIVER), "--kills", "3"], capture_output=True, text=True, timeout=550, check=False
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["equal"], (result, done.stderr)
    assert result["sums"]
    assert result["gapless"]
    assert result["digest"]
    assert result["versions"] > 1
    assert result["rows"] > 0
