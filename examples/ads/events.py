"""Auctions that were won, clicks, conversions. Campaigns follow each other within a day or two, and tire; a publisher's
audience drifts. `python events.py` writes the events anew.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace import simulate

DAYS, PER_DAY, SEED = 5, 16_000, 0
PLACES, PUBLISHERS = 40, 60  # campaigns at a time; sites


def events(until: np.datetime64) -> dict[str, pa.Table]:
    """All three kinds of events before `until`, in one log."""
    draw = np.random.default_rng(SEED)
    at, hour = simulate.moments(draw, until, DAYS, PER_DAY)
    n = len(at)
    place = (PLACES * draw.random(n) ** 1.5).astype(int)
    lasts = draw.integers(18, 48, PLACES)[place]  # hours of a campaign in this place
    age = hour + draw.integers(0, 48, PLACES)[place]
    campaign = place + PLACES * (age // lasts)
    creative = 3 * campaign + draw.integers(0, 3, n)
    publisher = (PUBLISHERS * draw.random(n) ** 2).astype(int)
    device = draw.choice(3, n, p=[0.6, 0.3, 0.1])
    bid = np.exp(draw.normal(0.3, 0.5, n))
    logit = -3.6 + draw.normal(0, 1.0, 10_000)[campaign] + draw.normal(0, 0.4, 10_000)[creative]
    logit += draw.normal(0, 0.5, (10_000, 3))[campaign, device] - 0.25 * np.log1p(age % lasts)
    logit += simulate.wander(draw, 24 * DAYS, PUBLISHERS, sd=0.7, tau=24)[hour, publisher] + 0.2 * np.log(bid)
    clicked = np.flatnonzero(simulate.happens(draw, logit))
    slow = draw.random(len(clicked)) < 0.08
    click_at = simulate.after(at[clicked], draw.lognormal(np.where(slow, 6.0, 2.0), 0.8))
    bought = np.flatnonzero(simulate.happens(draw, -2.0 + draw.normal(0, 0.7, 10_000)[campaign[clicked]]))
    bought_at = simulate.after(click_at[bought], 3_600 * draw.lognormal(1.0, 1.0, len(bought)))

    auction = simulate.named("q", np.arange(n))
    impressions = {
        "type": np.full(n, "impression"),
        "auction": auction,
        "at": at,
        "campaign": simulate.named("c", campaign),
        "creative": simulate.named("k", creative),
        "publisher": simulate.named("p", publisher),
        "page": simulate.named("s", publisher * 1_000 + (1_000 * draw.random(n) ** 3).astype(int)),
        "device": np.array(["phone", "desktop", "tablet"])[device],
        "bid": np.round(bid, 2),
    }
    clicks = {"type": np.full(len(clicked), "click"), "auction": auction[clicked], "at": click_at}
    conversions = {"type": np.full(len(bought), "conversion"), "auction": auction[clicked[bought]], "at": bought_at}
    kinds = [pa.table(kind) for kind in (impressions, clicks, conversions)]
    return {"events/ads.jsonl": pa.concat_tables(kinds, promote_options="default")}


if __name__ == "__main__":
    simulate.write(events(simulate.midnight()), simulate.midnight(), Path(__file__).parent)
