"""kill -9 of the trainer at every step of its commit order and at random: `tests/loop/kill_trainer.py` does it."""

import pytest
from drivers import result_of

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.timeout(1200)]

KILLS = "14"


def test_parameters_are_those_of_a_trainer_that_never_died():
    result = result_of("kill_trainer.py", "--kills", KILLS, within_s=1100)
    assert result["equal"], result
    assert result["gapless"], result
    assert result["once"], result
    assert {"trainer.before_commit", "trainer.committed", "trainer.delta_written"} <= set(result["places"])


def test_without_replay_they_are_others():
    """The twin: a checkpoint alone forgets what was learned since."""
    assert not result_of("kill_trainer.py", "--kills", "6", "--seed", "3", "--without-replay", within_s=1100)["equal"]
