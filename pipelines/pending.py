"""What one tick works on: the pending runs of each kind, the watermarks, the counters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipelines.runs import ROW, ROW_BITS, Run, build, gather, probe, standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipelines.label import LabelPolicy
    from pipelines.runs import RunKind

__all__ = ["FOREVER", "Counts", "Pending", "Tick"]

FOREVER = 1 << 62  # watermarks are clamped to it, so that sums with durations stay in 64 bits


@dataclass
class Counts:
    """Changes of the counters, {(kind, partition, class): delta}; kind is "impression" or "feedback"."""

    delta: dict[tuple[str, int, str], int] = field(default_factory=dict)

    def add(self, kind: str, partitions: NDArray[Any], name: str, sign: int = 1) -> None:
        for partition, count in zip(*np.unique(partitions, return_counts=True), strict=True) if len(partitions) else ():
            key = (kind, int(partition), name)
            self.delta[key] = self.delta.get(key, 0) + sign * int(count)

    def leave(self, kind: str, partitions: NDArray[Any], name: str) -> None:
        """From pending to its class."""
        self.add(kind, partitions, "pending", -1)
        self.add(kind, partitions, name)


@dataclass(frozen=True)
class Pending:
    """The runs of one kind: those from before the tick, then the one that it adds, if any."""

    kind: RunKind
    runs: list[Run]
    old: int

    def get(self, refs: NDArray[np.int64], name: str) -> NDArray[Any]:
        return gather(self.runs, refs, name)

    def is_old(self, refs: NDArray[np.int64]) -> NDArray[np.bool_]:
        return refs >> ROW_BITS < self.old

    def passing(self, low_us: int, high_us: int) -> NDArray[np.int64]:
        """Old rows with low <= ts < high, and new ones with ts < high."""
        found = [np.empty(0, np.int64)]
        for number, run in enumerate(self.runs):
            rows = run.between(low_us if number < self.old else -2 * FOREVER, high_us)
            found.append(rows | number << ROW_BITS)
        return np.concatenate(found)

    def with_new(self, payload: pa.Table) -> Pending:
        return Pending(self.kind, [*self.runs, build(self.kind, payload)] if payload.num_rows else self.runs, self.old)

    def probe(self, key: NDArray[np.uint64]) -> NDArray[np.int64]:
        return probe(self.runs, key)

    def standing(self, refs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those that no void row cancels; void rows of the same events must be among them."""
        return np.asarray(refs[standing(self.runs, refs)])

    def take(self, refs: NDArray[np.int64], columns: Sequence[str]) -> pa.Table | None:
        """Columns of these rows, which must be in the order of runs; None when there are none."""
        number = refs >> ROW_BITS
        found = np.flatnonzero(np.bincount(number))
        parts = [self.runs[which].take(refs[number == which] & ROW, columns) for which in found]
        return pa.concat_tables(parts) if parts else None


@dataclass(frozen=True)
class Tick:
    policy: LabelPolicy
    before: int
    watermark: int
    counts: Counts
