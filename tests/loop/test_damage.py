"""Random damage to every kind of committed file is noticed: `tests/loop/damage.py` does it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

DRIVER = Path(__file__).with_name("damage.py")


def damage(*arguments):
    done = subprocess.run(
        [sys.executable, str(DRIVER), *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_damage_is_noticed():
    result = damage("--damages", "150")
    assert result["noticed"] == 150, result
    assert len(result["folders"]) >= 5


def test_a_server_keeps_its_version_and_a_stage_stops_naming_the_file():
    result = damage("--damages", "40", "--used", "40")
    assert result["wrong"] == [], result
    assert set(result["used"].values()) == {40}
    assert {"pipeline", "trainer"} & set(result["stopped"])


def test_without_hashes_it_is_not():
    """The twin."""
    assert damage("--damages", "30", "--without-hashes", "--seed", "1")["noticed"] < 30
