"""A feed in real time: `python -m headrace.feed.grow FOLDER --rate 2000` appends to FOLDER's logs until it is ended.

Every 0.1 s the steps that have become due are shown and written, all of them after a stall, so no moment is left out.
A second of the log is a minute of the world (`--pace`), so that hot topics come and go while one looks. `--rate` counts
lines of both logs. The process ends with the one that started it.

FOLDER/feed.json holds {"steps", "counts"} after every write: a feed that is started again goes on from there, with the
same users and items; the clicks that were still to come are lost.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from headrace.feed.lines import CLICKS, IMPRESSIONS, SECOND_US, TRUTH, Faults, Writer
from headrace.feed.world import World, WorldPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STATE: Final = "feed.json"
STEP_S: Final = 0.1
CLICK_SHARE: Final = 0.09  # clicks for each impression, about


@dataclass(frozen=True)
class GrowPolicy:
    """rate: lines a second; pace: world seconds for each second; change_s: the regime changes after so long."""

    rate: float = 1_000.0
    seed: int = 0
    pace: float = 60.0
    change_s: float | None = None
    delay_s: float = 0.4
    longest_delay_s: float = 1.5
    sample: float = 1.0

    def world(self) -> WorldPolicy:
        """A smaller world than the offline one, in which a minute is enough to learn something, and to lose it."""
        hours = self.pace / 3_600
        return WorldPolicy(
            seed=self.seed,
            step_h=STEP_S * hours,
            users=1_000,
            topics=12,
            authors=100,
            sd_topic=1.2,
            sd_item=0.8,
            base=-1.5,
            regime_h=None if self.change_s is None else self.change_s * hours,
            delay_s=self.delay_s,
            sd_delay=0.6,
            longest_delay_s=self.longest_delay_s,
        )


def grow(folder: Path, policy: GrowPolicy, *, stop: Callable[[], bool], faults: Faults | None = None) -> None:
    """Appends to the logs in `folder` until `stop()`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (IMPRESSIONS, CLICKS, TRUTH):
        (folder / name).touch()
    world = World(policy.world())
    state = folder / STATE
    first = json.loads(state.read_text())["steps"] if state.exists() else 0
    while world.step < first:
        world.advance()
    writer = Writer(folder, faults or Faults(), seed=policy.seed + first, sample=policy.sample)
    began_us = _now_us()
    per_step = policy.rate * STEP_S / (1 + CLICK_SHARE)
    counts = np.random.default_rng([policy.seed, 4])
    step_us = int(STEP_S * SECOND_US)
    shown_ids = first * 1_000_000
    while not stop():
        due = first + (_now_us() - began_us) // step_us
        while world.step < due:
            shown = world.show(int(counts.poisson(per_step)))
            into = (shown.at_h - world.now_h) / policy.world().step_h
            start_us = began_us + (world.step - first) * step_us
            writer.take(shown, start_us + (into * step_us).astype(np.int64), shown_ids)
            shown_ids += len(shown)
            world.advance()
        writer.write(began_us + (world.step - first) * step_us)
        _keep(state, {"steps": world.step, "changed": world.changed, "counts": dict(writer.counts)})
        next_us = began_us + (world.step - first + 1) * step_us
        time.sleep(max(0.0, (next_us - _now_us()) / SECOND_US))


def _keep(state: Path, value: dict[str, object]) -> None:
    aside = state.with_suffix(".tmp")
    aside.write_text(json.dumps(value))
    aside.replace(state)


def _now_us() -> int:
    return time.time_ns() // 1_000


def main(arguments: Sequence[str] | None = None) -> None:
    """The process."""
    options = argparse.ArgumentParser(prog="python -m headrace.feed.grow", description=(__doc__ or "").split("\n")[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--rate", type=float, default=1_000.0, help="lines a second, of both logs")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--pace", type=float, default=60.0, help="world seconds for each second")
    options.add_argument("--change-s", type=float, default=None, help="the regime changes after so many seconds")
    options.add_argument("--sample", type=float, default=1.0, help="share of impressions whose truth is kept")
    given = options.parse_args(arguments)
    policy = GrowPolicy(given.rate, given.seed, given.pace, given.change_s, sample=given.sample)
    parent = os.getppid()
    try:
        grow(given.folder, policy, stop=lambda: os.getppid() != parent)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
