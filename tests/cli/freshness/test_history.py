"""A replayed loop has the features of the loop, whatever they say, in columns of their own names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace import config
from headrace.cli.freshness.history import replayed

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = """[loop]
name = "feed"
[streams.impression]
source = "i.jsonl"
id = "id"
time = "at"
time_unit = "s"
[streams.click]
source = "c.jsonl"
id = "id"
time = "at"
time_unit = "s"
[label]
mode = "implicit"
wait_s = 5
attribution_s = 60
[features]
user = { kind = "id", path = "who.user", ttl = "7d", admission = 2 }
tags = { kind = "ids", max = 3, admission = 3 }
age = { kind = "bucket", of = "age_h", edges = [1, 6] }
price = { kind = "number", column = "eur", transform = "log1p" }
hour = { kind = "time", part = "hour", time_zone = "Asia/Shanghai" }
both = { kind = "cross", of = ["user", "age"], ttl = "1d" }
"""


def test_every_feature_keeps_its_settings(tmp_path: Path) -> None:
    settings = config.parse(SETTINGS)
    changed = replayed(settings, {"impression": tmp_path / "i", "feedback": tmp_path / "f"}, root=tmp_path / "loop")
    assert changed.schema().fingerprint == settings.schema().fingerprint
    for name in ("user", "tags", "both"):
        assert (changed.features[name].ttl, changed.features[name].admission) == (
            settings.features[name].ttl,
            settings.features[name].admission,
        )
    assert changed.features["user"].column == "user"
