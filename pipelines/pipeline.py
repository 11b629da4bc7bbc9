"""The resident pipeline: plan, run, commit, wait; and the replay of a committed record.

One writer: the shard log is the lock. A pipeline that sees the living heartbeat of another one waits (`run`) or stops
with `Busy` (`tick`). A commit that was lost to a living writer stops it; one that was lost to a dead writer's last put
is folded, and the tick is planned again.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headrace import clock, failpoints, metrics, status
from headrace.collector import ShardCollector
from headrace.errors import LogRewritten, LostRace, NotFound, StoreFull
from headrace.log import Follower
from headrace.room import INTAKE, Room
from headrace.shard import BLANK, ShardRecord
from pipelines.orders import Setup, Tick
from pipelines.plan import Plan, as_recorded, plan_tick
from pipelines.retry import with_retry
from pipelines.setup import setup_of
from pipelines.tick import Weighing, commit, make
from pipelines.work import run_files, store_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headrace.collector import Collected
    from headrace.config import Settings
    from headrace.log import Entry
    from headrace.loop import Loop
    from pipelines.sources.base import Source

__all__ = ["Pipeline", "Replay"]

ROLE = "pipeline"
FULL_S = 1.0  # between two tries while there is no room


@dataclass(frozen=True)
class Replay:
    """A record as it was committed, and as it came out again."""

    recorded: ShardRecord
    replayed: ShardRecord

    @property
    def same(self) -> bool:
        """Whether every shard has the same bytes, and everything else that is decided is equal."""
        one, other = (
            (
                [(shard.part, shard.sha256) for shard in record.shards],
                record.watermark_us,
                record.closed_us,
                record.counts,
                record.ranges,
            )
            for record in (self.recorded, self.replayed)
        )
        return one == other


class Pipeline:
    """Ticks of one loop. `sources`: other sources than the settings name; `beam_args`: flags after `--`."""

    def __init__(
        self,
        loop: Loop,
        settings: Settings,
        *,
        sources: Mapping[str, Source] | None = None,
        beam_args: Sequence[str] = (),
        now_us: clock.Now = clock.now_us,
    ) -> None:
        self._loop = loop
        self._settings = settings.pipeline
        self._now_us = now_us
        self._beam_args = tuple(beam_args)
        self._setup: Setup = setup_of(loop.store, settings, sources)
        self._log = loop.shard_log()
        self._follower = Follower(loop.requests())
        self._requests: list[Entry] = []
        self._open_run = run_files(self._setup.store_url)
        self._idle: dict[str, int | None] = {}
        self._run: Callable[[Sequence[Any]], None] | None = None
        self._backlog = False
        self._unfinished: Mapping[str, str] = {}
        self._awaited = ""
        self._collector = ShardCollector(loop, settings)
        self._room = Room(loop.store, settings.retention.max_bytes, share=INTAKE)
        self._claim = status.Claim(
            loop.store,
            ROLE,
            lambda: {
                "tick_s": settings.pipeline.tick_s,
                "problem": self._room.problem,
                "settings": settings.reading,
                "awaited": dict(self._unfinished),
            },
        )

    def plan(self, *, drain: bool = False, complete_until_us: int = 0) -> Plan:
        """What the next tick would do. Asks the sources, changes nothing."""
        plan = plan_tick(
            self._setup,
            self._log.head(),
            now_us=self._now_us(),
            max_bytes=self._settings.max_bytes_per_tick,
            idle=self._idle,
            open_run=self._open_run,
            drain=drain,
            complete_until_us=complete_until_us,
        )
        plan = with_retry(self._setup, self._log, plan, self._asked(plan), self._settings.max_bytes_per_tick)
        self._idle = {one.key: one.idle_since_us for one in plan.ranges}
        self._backlog, self._unfinished = not plan.complete, plan.awaited
        return plan

    def _asked(self, plan: Plan) -> list[Entry]:
        """Requests that the newest record does not answer."""
        cursor = plan.previous.requests["cursor"]
        try:
            self._requests += self._follower.poll()
        except LogRewritten:  # or collected: from the oldest that is left
            self._follower, self._requests = Follower(self._loop.requests()), []
        self._requests = [one for one in self._requests if cursor is None or one.seq > cursor["seq"]]
        return self._requests

    def tick(self, *, drain: bool = False, complete_until_us: int | None = None) -> Entry | None:
        """Commit one record; None when there is nothing to do.

        `drain`: all streams have ended. `complete_until_us`: all streams are complete up to this event time. Both hold
        from the tick on that reaches every end; a backlog takes several.
        """
        self._claim.take()
        began = time.monotonic()
        plan = self.plan(drain=drain, complete_until_us=complete_until_us or 0)
        if not plan.due:
            return None
        failpoints.hit("pipeline.planned")
        tick = Tick(plan.seq, plan.now_us, secrets.token_hex(4))
        weighing = Weighing(self._settings.quarantine_alarm, self._settings.quarantine_stop)
        record, results = make(self._setup, plan, tick, self._runner(), self._loop.store, weighing)
        try:
            entry = commit(self._log, plan, record, clock.now_us())
        except LostRace:
            self._idle = {}
            self._claim.check()
            return self.tick(drain=drain, complete_until_us=complete_until_us)
        _measure(plan.previous, record, time.monotonic() - began)
        self._room.took(sum(shard.bytes for shard in record.shards) + sum(meta["bytes"] for meta in record.pending))
        self._open_run.keep({meta["path"] for meta in record.pending})
        for path in results:
            self._loop.store.delete(path)
        return entry

    def replay(self, seq: int) -> Replay:
        """Run a committed record again, with its ranges, policy and `now`, into a store of its own."""
        entry = self._recorded(seq)
        recorded = ShardRecord.from_entry(entry)
        parent = self._recorded(seq - 1) if seq else None
        previous = ShardRecord.from_entry(parent) if parent else BLANK
        clocks = {one.key: one.watermark_us for one in previous.ranges}
        plan = Plan(
            parent=parent,
            previous=previous,
            now_us=recorded.now_us,
            ranges=tuple(replace(one, watermark_us=clocks.get(one.key, 0)) for one in recorded.ranges),
            size=0,
            complete=True,
            complete_until_us=recorded.declared["complete_until_us"],
            drain=recorded.declared["drain"],
            due=True,
        )
        setup = replace(as_recorded(self._setup, recorded), write_url=f"memory://replay-{secrets.token_hex(4)}")
        from pipelines.job import run_of

        tick = Tick(seq, recorded.now_us, secrets.token_hex(4))
        weighing = Weighing(alarm=1.0, stop=1.0)
        replayed, _ = make(setup, plan, tick, run_of(setup, ()), store_at(setup.write_url), weighing)
        return Replay(recorded, replayed)

    def _recorded(self, seq: int) -> Entry:
        try:
            return self._log.read(seq)
        except NotFound as gone:
            first = self._log.first()
            if first is None or seq > first.seq:
                raise
            raise NotFound(
                f"record {seq} of {self._log.prefix} was collected; the oldest that can be replayed is {first.seq + 1}",
                hint="[retention] says how long records are kept",
                seq=seq,
            ) from gone

    def run(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        once: bool = False,
        drain: bool = False,
        on_record: Callable[[Entry], None] = lambda _: None,
        on_wait: Callable[[status.Heartbeat], None] = lambda _: None,
    ) -> None:
        """Tick until `stop`. `once`: until there is nothing new; `drain`: the same, and the streams have ended.

        While another pipeline lives on this root, it waits (and calls `on_wait`); with `once` or `drain` that is Busy.
        """
        try:
            while not stop():
                if not (once or drain) and self._waited(on_wait):
                    continue
                began = time.monotonic()
                try:
                    entry = self._collected(drain=drain)
                except StoreFull as full:
                    if once or drain:
                        raise
                    self._room.refused(full)
                    _sleep_until(began + max(self._settings.tick_s, FULL_S), stop)
                    continue
                if entry is not None:
                    on_record(entry)
                elif once or drain:
                    break
                if not (once or drain or self._backlog):
                    _sleep_until(began + self._settings.tick_s, stop)
        finally:
            self.close()

    def _collected(self, *, drain: bool) -> Entry | None:
        """A tick, if there is room for one, and now and then what retention lets go."""
        self._claim.take()
        self._collector.run(self._now_us())
        if not self._room.left():
            raise StoreFull(self._room.problem, hint="raise retention.max_bytes, or shorten what [retention] keeps")
        entry = self.tick(drain=drain)
        self._room.freed()
        return entry

    def collect(self) -> Collected | None:
        """One pass of retention over the shard log, now."""
        self._claim.take()
        return self._collector.run(self._now_us(), force=True)

    def _waited(self, on_wait: Callable[[status.Heartbeat], None]) -> bool:
        """Wait a little if another pipeline lives; `on_wait` hears of each one once."""
        other = self._claim.rival()
        if other is None:
            return False
        self._claim.release()
        self._idle = {}  # who waits does not look
        if other.nonce != self._awaited:
            self._awaited = other.nonce
            on_wait(other)
        time.sleep(status.BEAT_S)
        return True

    def close(self) -> None:
        """Say that this pipeline runs no more, so that a successor need not wait."""
        self._claim.release()

    def _runner(self) -> Callable[[Sequence[Any]], None]:
        if self._run is None:
            from pipelines.job import run_of  # brings Beam: seconds that `plan` and a waiting pipeline need not pay

            self._run = run_of(self._setup, self._beam_args)
        return self._run


def _measure(previous: ShardRecord, record: ShardRecord, seconds: float) -> None:
    metrics.TICK_SECONDS.observe(seconds)
    metrics.WATERMARK.set(record.watermark_us / clock.SECOND_US)
    for file in record.quarantine:
        for reason, count in file.reasons.items():
            metrics.QUARANTINED.labels(reason).inc(count)
    for key, counts in record.counts.items():
        before = previous.counts.get(key, {})
        for outcome, count in counts.items():
            if outcome not in ("read", "pending"):
                metrics.EVENTS.labels(key.split("/", 1)[0], outcome).inc(count - before.get(outcome, 0))


def _sleep_until(at: float, stop: Callable[[], bool]) -> None:
    while not stop() and (left := at - time.monotonic()) > 0:
        time.sleep(min(left, 0.2))
