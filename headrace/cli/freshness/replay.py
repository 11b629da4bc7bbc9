"""The run of a backtest: history in event time through the real pipeline, trainers and servers, stepped by hand.

    1. Feeds: the history, sorted by arrival, in the scratch folder.          dies here: written again
    2. Warm-up: everything before the cut is one backfill, then one training  dies here: shard log and the `warmup`
       pass in the arm `warmup`; every arm starts as a copy of it             arm's version log say what is there
    3. For each period of the shortest interval:                              dies here: see below
         a. arms whose period ends here score its impressions
         b. what happened before the period's end arrives; both streams are declared complete up to it; one tick
         c. the same arms learn, publish, swap

A run that was stopped goes on at the period of the newest shard record. What is done there is skipped by what is on
disk: scores by their number, the tick by `declared.complete_until_us` of the record, learning by the cursor of the
arm's version log. As every step reads only what the steps before it wrote, an interrupted run gives the same scores.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.cli import terminal
from headrace.cli.freshness.arm import Arm, Requests
from headrace.cli.freshness.armstore import ArmStore, copy_models
from headrace.cli.freshness.history import History, replayed, write_feeds
from headrace.cli.freshness.lineage import Lineage
from headrace.cli.freshness.periods import Interval, cut_of, edges_of, finest
from headrace.cli.freshness.progress import progress
from headrace.cli.freshness.report import Result
from headrace.cli.freshness.scores import Scores
from headrace.loop import Loop, open_loop
from headrace.shard import ShardRecord
from headrace.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from headrace.config import Settings

WARMUP = Interval(0, "warmup")


@dataclass
class Stages:
    """Seconds spent in each stage; kept in a file, so that a resumed run adds to it."""

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            self.seconds = json.loads(self.path.read_text(encoding="utf-8"))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begun

    def save(self) -> None:
        self.path.write_text(json.dumps(self.seconds), encoding="utf-8")


class Replay:
    """One backtest of `history` in the folder `scratch`, which belongs to exactly these arguments.

    settings: the loop's own; intervals: the arms; warmup: share of the impressions before the cut.
    """

    def __init__(
        self, settings: Settings, history: History, intervals: Sequence[Interval], *, warmup: float, scratch: Path
    ) -> None:
        self._history = history
        self._intervals = tuple(intervals)
        self._scratch = scratch
        times = history.times_us
        self.cut_us = cut_of(times, warmup)
        first = int(np.searchsorted(times, self.cut_us))
        self._scored = history.impressions.slice(first)
        self._times = times[first:]
        shortest = finest(self._intervals)
        self.edges = edges_of(self.cut_us, int(times[-1]), shortest.period_us) if shortest else [int(times[-1]) + 1]
        self._now_us = self.cut_us
        scratch.mkdir(parents=True, exist_ok=True)
        self.stages = Stages(scratch / "stages.json")
        with self.stages.timed("write feeds"):
            feeds = write_feeds(history, scratch / "feeds")
        self._settings = replayed(settings, feeds, root=scratch / "loop")
        self._store = open_store(self._settings.loop.root)
        self._loop = open_loop(self._store, self._settings.loop.name)
        self._shards = self._loop.shard_log()

    def run(self) -> Result:
        """All of it, or what is left of it."""
        try:
            self._warm_up()
            with ExitStack() as open_arms:
                arms = [self._open(interval, open_arms) for interval in self._intervals]
                self._live(arms)
            scores = {arm.interval.name: arm.scores.read() for arm in arms}
        finally:
            self.stages.save()
            self._pipeline.close()
        labels = self._history.labels()[len(self._history.times_us) - len(self._times) :]
        return Result(self.cut_us, self._times, labels, scores, self.stages.seconds)

    # the pipeline

    @cached_property
    def _feeds(self) -> dict[str, Any]:
        from pipelines.sources.replay import ReplaySource

        return {name: ReplaySource(stream.source, "_ts") for name, stream in self._settings.streams.items()}

    @cached_property
    def _pipeline(self) -> Any:
        from pipelines.pipeline import Pipeline

        return Pipeline(self._loop, self._settings, sources=self._feeds, now_us=lambda: self._now_us)

    def _tick(self, until_us: int) -> None:
        """Lets everything before `until_us` arrive and runs the pipeline over it, unless that was done."""
        if until_us <= self._declared_us():
            return
        self._now_us = until_us
        with self.stages.timed("pipeline"):
            for feed in self._feeds.values():
                feed.reveal(until_us - 1)
            while self._pipeline.tick(complete_until_us=until_us) is not None and self._declared_us() < until_us:
                """A backlog takes several ticks; the declaration holds from the last one on."""

    def _declared_us(self) -> int:
        head = self._shards.head()
        return ShardRecord.from_entry(head).declared["complete_until_us"] if head else 0

    # warm-up

    def _warm_up(self) -> None:
        before = len(self._history.times_us) - len(self._times)
        if self._declared_us() < self.cut_us:
            terminal.say(f"warm-up: {before:,} impressions before the cut go through the pipeline …")
            self._tick(self.cut_us)
        if (self._scratch / "arms.ready").exists():
            return
        terminal.say("warm-up: learning (starting TensorFlow takes 10 to 30 s) …")
        with self._arm(WARMUP, []) as arm:
            if not arm.learn():
                terminal.say(
                    "no label was known before the cut: `frozen` answers the prior (a later cut: --warmup 0.8)"
                )
        for interval in self._intervals:
            copy_models(self._store, WARMUP.name, interval.name)
        (self._scratch / "arms.ready").touch()

    # arms

    @contextmanager
    def _arm(self, interval: Interval, ends: Sequence[int]) -> Iterator[Arm]:
        loop = Loop(ArmStore(self._store, interval.name), self._loop.name, self._loop.created_us)
        scores = Scores(self._scratch / "scores" / f"{interval.name}.f32", set(ends))
        arm = Arm(interval, loop, self._settings, scores=scores, lineage=self._lineage, timed=self.stages.timed)
        try:
            yield arm
        finally:
            arm.close()

    def _open(self, interval: Interval, open_arms: ExitStack) -> Arm:
        arm = open_arms.enter_context(self._arm(interval, [self._row(edge) for edge in self._ends(interval)]))
        arm.serve()
        arm.swap()
        return arm

    def _ends(self, interval: Interval) -> list[int]:
        """The edges at which an arm scores: its own, and the last one."""
        return [edge for edge in self.edges if interval.ends_at(edge) or edge == self.edges[-1]]

    def _row(self, until_us: int) -> int:
        """How many of the scored impressions happened before `until_us`."""
        return int(np.searchsorted(self._times, until_us))

    @cached_property
    def _lineage(self) -> Lineage:
        return Lineage(self._store, self._loop.shard_log(), self._history.truth())

    @cached_property
    def _requests(self) -> Requests:
        with self.stages.timed("encode"):
            return Requests.of(self._scored, self._settings.schema())

    # periods

    def _live(self, arms: Sequence[Arm]) -> None:
        declared_us = self._declared_us()
        first = next((i for i, edge in enumerate(self.edges) if edge >= declared_us), len(self.edges) - 1)
        if first:
            terminal.say(f"going on at period {first + 1:,} of {len(self.edges):,}")
        requests = self._requests
        title = f"{len(self._times):,} impressions, periods"
        with progress(title, len(self.edges), done=first) as advance:
            for done, edge in enumerate(self.edges[first:], first + 1):
                due = [arm for arm in arms if arm.interval.ends_at(edge)]
                scoring = arms if edge == self.edges[-1] else due
                for arm in scoring:
                    arm.score(requests, self._row(edge))
                if due:
                    self._tick(edge)
                    for arm in due:
                        arm.learn()
                advance(done)
