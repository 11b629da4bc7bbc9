"""Lines of a text block: where each begins and ends, as arrays; the base of both text parsers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipelines.sources.base import Lines

__all__ = ["LineIndex"]

NEWLINE, RETURN = 0x0A, 0x0D


@dataclass(frozen=True)
class LineIndex:
    """starts, ends: int64 [n] byte offsets in the block, without line break; empty lines are not in it.

    places: int64 [n], where each stands in its file, if they do not follow each other there.
    """

    block: Lines
    starts: np.ndarray
    ends: np.ndarray
    places: np.ndarray | None = None

    @staticmethod
    def of(block: Lines) -> LineIndex:
        raw = np.frombuffer(block.data, np.uint8)
        breaks = np.flatnonzero(raw == NEWLINE)
        starts = np.r_[0, breaks + 1]
        ends = np.r_[breaks, len(raw)]
        if len(raw):
            ends = ends - ((ends > starts) & (raw[np.maximum(ends, 1) - 1] == RETURN))
        keep = ends > starts
        places = None if block.offsets is None else np.array([*block.offsets, 0])[: len(keep)][keep]
        return LineIndex(block, starts[keep], ends[keep], places)

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def raw(self) -> np.ndarray:
        return np.frombuffer(self.block.data, np.uint8)

    @cached_property
    def offsets(self) -> np.ndarray:
        """Offset of each line in its file."""
        return self.starts + self.block.start if self.places is None else self.places

    def line(self, i: int) -> bytes:
        return self.block.data[self.starts[i] : self.ends[i]]

    def span(self, low: int, high: int) -> memoryview:
        """The bytes of lines `[low, high)`, with what lies between them."""
        return memoryview(self.block.data)[self.starts[low] : self.ends[high - 1]]

    def stretches(self, keep: np.ndarray) -> list[tuple[int, int]]:
        """`[low, high)` of the runs of consecutive lines that are kept."""
        edges = np.flatnonzero(np.diff(np.r_[False, keep, False].astype(np.int8)))
        return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
