"""What a probe saw, and what follows from it: delays, their stages, the verdict "not within 30 s".

    appended -> in a shard record -> in a version -> served

A probe of event time t is labelled at `due` = t + label wait, and the pipeline takes it when the watermark, which stays
`disorder_s` behind the newest event, has passed it. Both are settings, not delays: freshness is

    (first answer that counts - appended) - label wait - disorder bound

An answer counts when the watermark of its version has passed `due` and the score of the fresh value has moved towards
the label by more than 0.05 beyond the control, a fresh value without events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LONGEST_S: Final = 30.0
MOVE: Final = 0.05
SECOND_US: Final = 1_000_000


@dataclass
class Probe:
    """One fresh value of `feature`; `features`: a value of each other feature.

    `counted_us`: when each replica's answer counted; `first_us`: its first covering answer.
    """

    value: str
    control: str
    label: int
    appended_us: int
    due_us: int
    feature: str
    features: dict[str, Any]
    first_us: dict[str, int] = field(default_factory=dict)
    counted_us: dict[str, int] = field(default_factory=dict)
    moved: dict[str, float] = field(default_factory=dict)

    def take(self, replica: str, scores: Sequence[float], watermark_us: int | None, at_us: int) -> None:
        """An answer: scores of the value and of its control, and up to when its version has learned."""
        if replica in self.counted_us or watermark_us is None or watermark_us <= self.due_us:
            return
        self.first_us.setdefault(replica, at_us)
        moved = (scores[0] - scores[1]) * (1 if self.label else -1)
        self.moved[replica] = max(moved, self.moved.get(replica, -1.0))
        if moved > MOVE:
            self.counted_us[replica] = at_us

    def over(self, replicas: Iterable[str], now_us: int, excluded_s: float) -> bool:
        """Whether nothing is to be waited for: counted everywhere, or too late to count."""
        late = now_us - self.appended_us > (LONGEST_S + excluded_s) * SECOND_US
        return late or all(replica in self.counted_us for replica in replicas)

    def freshness_s(self, replica: str, excluded_s: float) -> float:
        """Infinite where it did not count within `LONGEST_S`."""
        if replica not in self.counted_us:
            return math.inf
        found = (self.counted_us[replica] - self.appended_us) / SECOND_US - excluded_s
        return found if found <= LONGEST_S else math.inf


@dataclass(frozen=True)
class Commit:
    """A committed record: up to when its events are complete, and when it was committed."""

    seq: int
    watermark_us: int
    at_us: int


def first_covering(commits: Iterable[Commit], due_us: int) -> Commit | None:
    """The first record, in the order of the log, whose watermark has passed `due_us`.

    >>> first_covering([Commit(0, 5, 10), Commit(1, 9, 20)], 5).seq
    1
    """
    return next((commit for commit in commits if commit.watermark_us > due_us), None)


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least `part` percent do not exceed; nan without values. Infinities are values.

    >>> percentile([1.0, 2.0, math.inf], 50), percentile([1.0, 2.0, math.inf], 99)
    (2.0, inf)
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part / 100 * len(ordered)) - 1)] if ordered else math.nan


def stages_of(
    probes: Iterable[Probe], shards: Sequence[Commit], versions: Sequence[Commit], excluded_s: float
) -> dict[str, list[float]]:
    """Seconds of each stage, for the probes of which all are known; the slowest replica's answer ends the last."""
    found: dict[str, list[float]] = {"shard": [], "version": [], "served": []}
    for probe in probes:
        shard, version = first_covering(shards, probe.due_us), first_covering(versions, probe.due_us)
        if shard is None or version is None or not probe.first_us:
            continue
        found["shard"].append((shard.at_us - probe.appended_us) / SECOND_US - excluded_s)
        found["version"].append((version.at_us - shard.at_us) / SECOND_US)
        found["served"].append((max(probe.first_us.values()) - version.at_us) / SECOND_US)
    return found


def summary(
    values: Sequence[float], rounded: Callable[[float], float] = lambda value: round(value, 3)
) -> dict[str, Any]:
    """{"p50", "p99", "n"}; an infinite percentile is the text "inf", which JSON has no number for."""
    parts = {f"p{part}": percentile(values, part) for part in (50, 99)}
    texts = {name: "inf" if math.isinf(value) else rounded(value) for name, value in parts.items()}
    return {**texts, "n": len(values)}
