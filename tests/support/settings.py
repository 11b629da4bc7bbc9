"""The text of a headrace.toml in which a test names only what matters to it."""

from __future__ import annotations

import json
from typing import Any

Section = dict[str, Any]

USER = 'user = { kind = "id" }'
ITEM = 'item = { kind = "id" }'
TAGS = 'tags = { kind = "ids", max = 4 }'
PRICE = 'price = { kind = "number" }'

UNREAD: dict[str, Section] = {  # the test puts shards and versions into the loop itself
    "streams": {"source": "none.parquet", "time": "time"},
    "label": {"wait_s": 1, "attribution_s": 2},
}


def settings_text(*features: str, **sections: Section) -> str:
    """Settings of a loop `feed` that learns clicks of the user from events.jsonl, but for what is given.

    `features` are lines of their section. Other sections are given by name: `loop`, `impression`, `click` and `label`
    change what stands here, `streams` what both streams have; any other section follows at the end as it is.
    """
    changes = {name: sections.pop(name, {}) for name in ("loop", "streams", "impression", "click", "label")}
    event = {"source": "events.jsonl", "id": "id"}
    first = {
        "loop": {"name": "feed"} | changes["loop"],
        "streams.impression": event | {"time": "at"} | changes["streams"] | changes["impression"],
        "streams.click": event | {"time": "clicked"} | changes["streams"] | changes["click"],
        "label": {"mode": "implicit", "wait_s": 5, "attribution_s": 60} | changes["label"],
    }
    learned = "".join(f"{line}\n" for line in features or (USER,))
    return f"{_text(first)}[features]\n{learned}{_text(sections)}"


def _text(sections: dict[str, Section]) -> str:
    """Texts, numbers and lists of them are written in TOML as in JSON."""
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
        for name, section in sections.items()
    )
