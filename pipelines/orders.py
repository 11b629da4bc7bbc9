"""What the driver of a tick tells its workers, and what they report: plain values, the same on every runner.

    Setup       constant for a process: streams, sources, schema, label policy, times
    ReadOrder   pieces of one partition to read, parse and encode
    PartOrder   what one part needs for its join: the runs before it, the clocks of all partitions, what is declared
    Report      what became of a ReadOrder; it travels to every part, so that each computes the same watermark
    PartResult  what a part wrote; a small file that the driver reads and then deletes

The number of a partition is its place in the ranges of the shard record, which it keeps for ever: rows wait under it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from headrace.shard import Policy
from headrace.window import Horizon, PartitionClock, advance, drained_us, newest
from pipelines.label import LabelPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.schema import Schema
    from pipelines.events import Stream
    from pipelines.sources.base import Source, Span

__all__ = [
    "PartOrder",
    "PartResult",
    "ReadOrder",
    "Report",
    "Setup",
    "Tick",
    "clocks_after",
    "watermark_after",
]


@dataclass(frozen=True)
class Setup:
    """What stays the same from tick to tick. Files are written to `write_url`, which differs in a replay only."""

    store_url: str
    write_url: str
    streams: Mapping[str, Stream]
    sources: Mapping[str, Source]
    schema: Schema
    policy: LabelPolicy
    horizon: Horizon
    parts: int
    record_bytes: int
    future_us: int

    @property
    def recorded(self) -> Policy:
        """What a shard record says of these settings."""
        return Policy(
            mode=self.policy.mode,
            wait_us=self.policy.wait_us,
            attribution_us=self.policy.attribution_us,
            lateness_us=self.policy.lateness_us,
            window_us=self.horizon.window_us,
            disorder_us=self.horizon.disorder_us,
            idle_us=self.horizon.idle_us,
            future_us=self.future_us,
            record_bytes=self.record_bytes,
        )

    def under(self, policy: Policy, parts: int) -> Setup:
        """The same streams and features under what a shard record says."""
        return replace(
            self,
            policy=LabelPolicy(policy.mode, policy.attribution_us, policy.wait_us, policy.lateness_us),
            horizon=Horizon(
                window_us=policy.window_us,
                disorder_us=policy.disorder_us,
                idle_us=policy.idle_us,
                attribution_us=policy.attribution_us,
                lateness_us=policy.lateness_us,
            ),
            parts=parts,
            record_bytes=policy.record_bytes,
            future_us=policy.future_us,
        )


@dataclass(frozen=True)
class Tick:
    """Number, `now` and nonce of one attempt at a tick."""

    seq: int
    now_us: int
    nonce: str

    def path(self, kind: str, name: str, ending: str) -> str:
        """A file name that carries the number it is written for."""
        return f"shards/{kind}/{self.seq:012d}-{name}-{self.nonce}.{ending}"


@dataclass(frozen=True)
class ReadOrder:
    """Read these pieces. `number` orders what comes of them, whatever order it arrives in."""

    tick: Tick
    number: int
    stream: str
    partition: str
    index: int
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class PartOrder:
    """Join one part. `clocks`: of every partition before the tick, with the idleness that holds after it."""

    tick: Tick
    part: int
    runs: tuple[Mapping[str, Any], ...]
    partitions: tuple[str, ...]
    clocks: tuple[PartitionClock, ...]
    before_us: int
    complete_until_us: int = 0
    drain: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> PartOrder:
        made = {
            **body,
            "tick": Tick(**body["tick"]),
            "runs": tuple(body["runs"]),
            "partitions": tuple(body["partitions"]),
            "clocks": tuple(PartitionClock(**clock) for clock in body["clocks"]),
        }
        return PartOrder(**made)


@dataclass(frozen=True)
class Report:
    """What became of one ReadOrder. `unseen`: features without a value in any of its events."""

    number: int
    index: int
    accepted: int
    invalid: int
    passed: int
    newest_us: int | None
    unseen: Sequence[str]
    quarantine: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class PartResult:
    """What one part made. counts: [[index, class, delta]]; reports: all that it saw, as every other part did."""

    part: int
    watermark_us: int
    shard: Mapping[str, Any] | None
    runs: Sequence[Mapping[str, Any]]
    counts: Sequence[tuple[int, str, int]]
    corrections: int
    quarantine: Mapping[str, Any] | None
    reports: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def clocks_after(clocks: Sequence[PartitionClock], reports: Sequence[Report], disorder_us: int) -> list[PartitionClock]:
    """Clocks of all partitions once the reported events are accepted."""
    after = list(clocks)
    for report in reports:
        clock = after[report.index]
        after[report.index] = PartitionClock(
            newest(clock.watermark_us, report.newest_us, disorder_us), clock.idle_since_us
        )
    return after


def watermark_after(order: PartOrder, reports: Sequence[Report], horizon: Horizon) -> int:
    """The loop's watermark after the tick: a pure function that every part and the driver compute alike."""
    clocks = clocks_after(order.clocks, reports, horizon.disorder_us)
    reached = advance(
        order.before_us,
        clocks,
        now_us=order.tick.now_us,
        idle_us=horizon.idle_us,
        complete_until_us=order.complete_until_us,
    )
    return max(reached, drained_us(clocks, horizon)) if order.drain else reached
