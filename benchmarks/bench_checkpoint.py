"""How long a checkpoint, or a snapshot, of 2^20 rows stops training: all of it in line, against the copy alone.

    python benchmarks/bench_checkpoint.py

The state is that of `mlp` with width 16 and its linear table, each with Adagrad slots: 160 MB. The published
table is the same rows as int8. Medians of five, on a local store, with fsync.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from bench_trainer import settings_for

from headrace.delta import Numbers, write_delta
from headrace.published import PublishedTable
from headrace.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, ROUNDS = 1 << 20, 5


def report(name: str, value: float, unit: str, bar: str = "", *, holds: bool = True) -> bool:
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": holds}), flush=True)
    return holds


def measured(copy: Callable[[], Any], write: Callable[[Any], Any]) -> tuple[float, float]:
    """(seconds of copy and write, seconds of the copy)."""
    whole, copies = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        copied = copy()
        copies.append(time.perf_counter() - started)
        write(copied)
        whole.append(time.perf_counter() - started)
    return statistics.median(whole), statistics.median(copies)


def main() -> int:
    from training.checkpoint import copy_of, write_copy
    from training.publish import delta_of, learned_rows
    from training.recipe import design_of
    from training.state import State

    with tempfile.TemporaryDirectory() as root:
        settings = settings_for(root)
        design, store = design_of(settings, settings.schema()), open_store(root)
        state, published = State(design), PublishedTable(design.tables)
        for table in state.learner.tables.values():
            table.rows_of(np.arange(1, ROWS + 1, dtype=np.int64))
        rows = learned_rows(design.tables, state.learner.tables)
        published.apply(delta_of(1, 0, rows, published, eps=0.0, tower=None, numbers=Numbers()))
        checkpoint = measured(
            lambda: copy_of(state, 1), lambda copied: write_copy(store, "checkpoints", copied, 1, "a")
        )
        snapshot = measured(lambda: published.copied(1), lambda copied: store.write("snapshot", write_delta(copied())))
    holds = []
    for name, (whole, copy) in (("checkpoint", checkpoint), ("snapshot", snapshot)):
        report(f"{name}.inline_1m_rows", whole, "s")
        report(f"{name}.copy_1m_rows", copy, "s")
        holds.append(report(f"{name}.copy_share", copy / whole, "of inline", "<= 0.5", holds=copy <= 0.5 * whole))
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
