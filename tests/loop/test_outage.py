"""Versions while MLflow is away, each logged once when it is back: `tests/loop/outage.py` does it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mlflow")

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.timeout(600)]

DRIVER = Path(__file__).with_name("outage.py")


@pytest.mark.parametrize("way", ["refused", "hung", "full"])
def test_no_version_waits_for_it_and_each_is_logged_once(way):
    done = subprocess.run(
        [sys.executable, str(DRIVER), "--ways", way], capture_output=True, text=True, timeout=590, check=False
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    found = result["ways"][way]
    assert not result["imported"]
    assert found["connections"] == 0
    assert found["tracker"] > 0 or way != "hung"  # the twin: the address sees whoever comes
    assert found["told"]
    assert found["versions"] >= 20
    assert found["once"], (found, done.stderr)
