"""What the world writes: two logs as JSON lines, and the truth kept aside.

    impressions.jsonl  {"id": 17, "ts": <us>, "user": "u5", "item": "i9", "topic": "t3", "author": "a2", "slot": 4}
    clicks.jsonl       {"id": 17, "ts": …}
    truth.jsonl        an impression's line with "p" and "clicked"; headrace never reads it

A line is due at its event's time. Some come late, some twice, some cut in two; how many is counted.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.feed.world import Impressions

IMPRESSIONS: Final = "impressions.jsonl"
CLICKS: Final = "clicks.jsonl"
TRUTH: Final = "truth.jsonl"
SECOND_US: Final = 1_000_000

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Faults:
    """Shares of all lines. late_s: mean delay of a late line; twice_s: longest pause before it is written again."""

    late: float = 0.002
    late_s: float = 10.0
    twice: float = 0.005
    twice_s: float = 1.0
    broken: float = 0.001


class Writer:
    """Keeps lines until they are due, then appends them to the files in `folder`.

    seed: of the faults; sample: share of the impressions whose truth is written.
    """

    def __init__(self, folder: Path, faults: Faults, *, seed: int, sample: float = 1.0) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._faults = faults
        self._sample = sample
        self._draw = np.random.default_rng([seed, 3])
        self._due: list[tuple[int, int, str, str]] = []  # due at, in order, file, line
        self._order = 0

    def take(self, shown: Impressions, times_us: Ints, first_id: int) -> None:
        """Keeps what was shown at `times_us` (int64 [n], sorted); ids count from `first_id`."""
        n = len(shown)
        columns = (times_us, shown.user, shown.item, shown.topic, shown.author, shown.slot)
        heads = [
            f'"id":{first_id + j},"ts":{t},"user":"u{u}","item":"i{i}","topic":"t{k}","author":"a{a}","slot":{s}'
            for j, t, u, i, k, a, s in zip(range(n), *(column.tolist() for column in columns), strict=True)
        ]
        self._keep(IMPRESSIONS, times_us, [f"{{{head}}}\n" for head in heads])
        clicked = np.flatnonzero(shown.clicked)
        at = times_us[clicked] + (shown.delay_s[clicked] * SECOND_US).astype(np.int64)
        lines = [f'{{"id":{first_id + j},"ts":{t}}}\n' for j, t in zip(clicked.tolist(), at.tolist(), strict=True)]
        self._keep(CLICKS, at, lines)
        known = np.flatnonzero(self._draw.random(n) < self._sample).tolist()
        truth = [
            f'{{{heads[j]},"p":{shown.p[j]:.6f},"clicked":{"true" if shown.clicked[j] else "false"}}}\n' for j in known
        ]
        self._queue(TRUTH, times_us[known], truth)
        self.counts["impressions"] += n
        self.counts["clicks"] += len(clicked)

    def write(self, upto_us: int) -> None:
        """Appends every line that is due, one write to each file."""
        texts: dict[str, list[str]] = {IMPRESSIONS: [], CLICKS: [], TRUTH: []}
        while self._due and self._due[0][0] <= upto_us:
            _, _, file, line = heapq.heappop(self._due)
            texts[file].append(line)
        for name, lines in texts.items():
            with (self._folder / name).open("ab", buffering=0) as log:  # whole lines: others may append, too
                log.write("".join(lines).encode())

    def _keep(self, file: str, at_us: Ints, lines: list[str]) -> None:
        """Queues the lines of a log with their faults."""
        faults, draw, n = self._faults, self._draw, len(lines)
        written_us = at_us.copy()
        fate = draw.random(n)
        late = fate < faults.late
        written_us[late] += (draw.exponential(faults.late_s, int(late.sum())) * SECOND_US).astype(np.int64)
        twice = np.flatnonzero((fate >= faults.late) & (fate < faults.late + faults.twice))
        pause = (draw.random(len(twice)) * faults.twice_s * SECOND_US).astype(np.int64)
        self._queue(file, written_us[twice] + pause, [lines[j] for j in twice.tolist()])
        broken = np.flatnonzero(fate > 1 - faults.broken)
        for j in broken.tolist():
            lines[j] = lines[j][: int(draw.integers(1, len(lines[j]) - 1))] + "\n"
        self._queue(file, written_us, lines)
        self.counts["late"] += int(late.sum())
        self.counts["twice"] += len(twice)
        self.counts["broken"] += len(broken)

    def _queue(self, file: str, at_us: Ints, lines: list[str]) -> None:
        for at, line in zip(at_us.tolist(), lines, strict=True):
            self._order += 1
            heapq.heappush(self._due, (at, self._order, file, line))
