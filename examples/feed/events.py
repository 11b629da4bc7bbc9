"""A feed of which the click probability is known (headrace.feed.world): items are born and die within hours, topics
flare up and fade. `python events.py` writes the events anew.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace import simulate
from headrace.feed import WorldPolicy, generate

DAYS, PER_DAY, SEED = 3, 20_000, 0


def events(until: np.datetime64) -> dict[str, pa.Table]:
    """Impressions and their clicks before `until`."""
    world = WorldPolicy(SEED, users=2_000, topics=12, authors=100, sd_topic=1.0, sd_item=0.8, base=-1.5)
    shown = generate(world, days=DAYS, per_day=PER_DAY)
    at = simulate.after(np.full(len(shown), until - DAYS * simulate.DAY), 3_600 * shown.at_h)
    request = simulate.named("r", np.arange(len(shown)))
    impressions = {
        "request_id": request,
        "shown_at": at,
        "user": simulate.named("u", shown.user),
        "item": simulate.named("i", shown.item),
        "author": simulate.named("a", shown.author),
        "topic": simulate.named("t", shown.topic),
        "slot": shown.slot,
    }
    clicks = {
        "request_id": request[shown.clicked],
        "clicked_at": simulate.after(at, shown.delay_s)[shown.clicked],
    }
    return {"events/impressions.jsonl": pa.table(impressions), "events/clicks.jsonl": pa.table(clicks)}


if __name__ == "__main__":
    simulate.write(events(simulate.midnight()), simulate.midnight(), Path(__file__).parent)
