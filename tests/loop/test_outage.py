"""Versions while MLflow is away, each logged once when it is back: `tests/loop/outage.py` does it."""

import pytest
from drivers import result_of

pytest.importorskip("mlflow")

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("way", ["refused", "hung", "full"])
def test_no_version_waits_for_it_and_each_is_logged_once(way):
    result = result_of("outage.py", "--ways", way, within_s=590)
    found = result["ways"][way]
    assert not result["imported"]
    assert found["connections"] == 0
    assert found["tracker"] > 0 or way != "hung"  # the twin: the address sees whoever comes
    assert found["told"]
    assert found["versions"] >= 20
    assert found["once"], found
