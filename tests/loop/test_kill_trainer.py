"""kill -9 of the trainer at every step of its commit order and at random: `tests/loop/kill_trainer.py` does it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.timeout(1200)]

DRIVER = Path(__file__).with_name("kill_trainer.py")
KILLS = "14"


def torture(*arguments):
    done = subprocess.run(
        [sys.executable, str(DRIVER), *arguments], capture_output=True, text=True, timeout=1100, check=False
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_parameters_are_those_of_a_trainer_that_never_died():
    result = torture("--kills", KILLS)
    assert result["equal"], result
    assert result["gapless"], result
    assert result["once"], result
    assert {"trainer.before_commit", "trainer.committed", "trainer.delta_written"} <= set(result["places"])


def test_without_replay_they_are_others():
    """The twin: a checkpoint alone forgets what was learned since."""
    assert not torture("--kills", "6", "--seed", "3", "--without-replay")["equal"]
