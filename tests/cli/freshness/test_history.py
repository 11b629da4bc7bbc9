"""A replayed loop has the features of the loop, whatever they say, in columns of their own names."""

from __future__ import annotations

from pathlib import Path

from headrace import config
from headrace.cli.freshness.history import replayed

FEED = (Path(__file__).parents[3] / "examples/demo/headrace.toml").read_text()
FEATURES = """[features]
who = { kind = "id", path = "user.id", ttl = "7d", admission = 2 }
tags = { kind = "ids", max = 3, admission = 3 }
age = { kind = "bucket", of = "age_h", edges = [1, 6] }
price = { kind = "number", column = "eur", transform = "log1p" }
hour = { kind = "time", part = "hour", time_zone = "Asia/Shanghai" }
both = { kind = "cross", of = ["who", "age"], ttl = "1d" }
"""


def test_every_feature_keeps_its_settings(tmp_path: Path) -> None:
    settings = config.parse(FEED.replace("[features]", FEATURES))
    changed = replayed(settings, {"impression": tmp_path / "i", "feedback": tmp_path / "f"}, root=tmp_path / "loop")
    assert changed.schema().fingerprint == settings.schema().fingerprint
    for name, line in settings.features.items():
        assert (changed.features[name].ttl, changed.features[name].admission) == (line.ttl, line.admission)
    assert changed.features["who"].column == "who"
