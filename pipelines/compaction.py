"""Which runs to merge: a pure plan over their metas.

A run belongs to the bucket `watermark // (life / 16)` of its *arrival*, so that rows with old times never hold a merge
up. In the open bucket FAN runs of one level become one of the next; once a bucket is closed, what is left of it becomes
one run. At most one merge per kind and tick, so the cost is spread; at most `17 + FAN * levels` runs of a kind live
(30 days of ticks of a second: about 80). A run whose newest row is past its life is dropped whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.runs import RunMeta

__all__ = ["bucket_of", "merge_plan"]

BUCKETS = 16
FAN = 12
MERGE_ROWS = 1 << 24  # larger ones stay apart: a merge must end within the tick, and positions are 32 bits


def bucket_of(watermark_us: int, life_us: int) -> int:
    """The bucket in which a run written at this watermark belongs."""
    return watermark_us // max(1, life_us // BUCKETS)


def merge_plan(metas: Sequence[RunMeta], bucket: int) -> list[int]:
    """Positions of the runs (of one kind) to merge now into one, in order; empty when nothing is due."""
    closed: dict[int, list[int]] = {}
    levels: dict[int, list[int]] = {}
    for position, meta in enumerate(metas):
        group = levels.setdefault(meta.level, []) if meta.bucket == bucket else closed.setdefault(meta.bucket, [])
        group.append(position)
    due = [closed[key] for key in sorted(closed) if len(closed[key]) > 1]
    due += [levels[key] for key in sorted(levels) if len(levels[key]) >= FAN]
    return next((group for group in due if sum(metas[at].rows for at in group) <= MERGE_ROWS), [])
