"""Random damage to every kind of committed file is noticed: `tests/loop/damage.py` does it."""

import pytest
from drivers import result_of

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]


def test_every_damage_is_noticed():
    result = result_of("damage.py", "--damages", "150")
    assert result["noticed"] == 150, result
    assert len(result["folders"]) >= 5


def test_a_server_keeps_its_version_and_a_stage_stops_naming_the_file():
    result = result_of("damage.py", "--damages", "40", "--used", "40")
    assert result["wrong"] == [], result
    assert set(result["used"].values()) == {40}
    assert {"pipeline", "trainer"} & set(result["stopped"])


def test_without_hashes_it_is_not():
    """The twin."""
    assert result_of("damage.py", "--damages", "30", "--without-hashes", "--seed", "1")["noticed"] < 30
