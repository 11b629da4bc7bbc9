"""Places where a test kills the process: one at each numbered step of every commit order.

`HEADRACE_FAILPOINT=pipeline.before_commit` ends the process the first time that place is reached, as `kill -9` would
(no clean-up, no flushing, exit code 137); `pipeline.before_commit:3` the third time. Without the variable a hit costs
one look at the environment. Crash tests walk `NAMES`; a name is `<stage>.<step>` and is listed here once.
"""

from __future__ import annotations

import os
from typing import NoReturn

VARIABLE = "HEADRACE_FAILPOINT"
EXIT_CODE = 137  # what a shell reports for a process that kill -9 ended

NAMES: dict[str, str] = {
    "log.before_put": "a record is encoded, its detail files are durable, nothing is visible",
    "log.after_link": "the record is visible under its name, its folder is not yet synced (local store)",
    "log.after_put": "the record is durable, its writer does not know yet",
    "pipeline.planned": "ranges are chosen, nothing was read",
    "pipeline.read": "events are read and joined, nothing was written",
    "pipeline.shards_written": "shard files are durable, no record names them",
    "pipeline.state_written": "shard and pending files are durable, no record names them",
    "pipeline.before_commit": "the shard record is complete, the log has not seen it",
    "pipeline.committed": "the shard record is durable, the memory of the pipeline is not yet advanced",
    "collect.planned": "the oldest record to keep is known, nothing was deleted",
    "collect.records": "a record was deleted, its files are left over",
    "collect.files": "a file that no record names was deleted, others are left over",
    "trainer.scored": "the shards of a candidate are scored, nothing was learned",
    "trainer.learned": "the candidate is learned in memory",
    "trainer.encoded": "its delta is encoded in memory",
    "trainer.delta_written": "the delta is durable, no record names it",
    "trainer.copied": "what a snapshot or checkpoint will hold is copied, nothing of it was written",
    "trainer.snapshot_written": "a snapshot is durable, no record names it",
    "trainer.checkpoint_written": "a checkpoint is durable, no record names it",
    "trainer.before_commit": "the version record is complete, the log has not seen it",
    "trainer.committed": "the version record is durable, the memory of the trainer is not yet advanced",
}

_hits: dict[str, int] = {}


def hit(name: str) -> None:
    """Pass the place `name`; the process ends here if the environment says so."""
    if name not in NAMES:
        raise ValueError(f"no failpoint is called {name!r}; add it to headrace.failpoints.NAMES")
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    place, _, count = wanted.partition(":")
    if place != name:
        return
    _hits[name] = _hits.get(name, 0) + 1
    if _hits[name] == int(count or "1"):
        _die()


def _die() -> NoReturn:
    os._exit(EXIT_CODE)
