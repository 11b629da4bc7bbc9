"""How long a checkpoint of 2^20 rows stops training: all of it in line, against the copy alone (the rest is aside).

    python benchmarks/bench_checkpoint.py

The state is that of `mlp` with width 16 and its linear table, each with Adagrad slots: 160 MB. Medians of five, on a
local store, with fsync.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time

import numpy as np
from bench_trainer import settings_for

from headrace.store import open_store

ROWS, ROUNDS = 1 << 20, 5


def report(name: str, value: float, unit: str, bar: str = "", *, holds: bool = True) -> bool:
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": holds}), flush=True)
    return holds


def main() -> int:
    from training.checkpoint import copy_of, write_checkpoint, write_copy
    from training.recipe import design_of
    from training.state import State

    with tempfile.TemporaryDirectory() as root:
        settings = settings_for(root)
        state, store = State(design_of(settings, settings.schema())), open_store(root)
        for table in state.learner.tables.values():
            table.rows_of(np.arange(1, ROWS + 1, dtype=np.int64))
        whole, copies = [], []
        for at in range(ROUNDS):
            started = time.perf_counter()
            write_checkpoint(store, "inline", state, at, "a")
            whole.append(time.perf_counter() - started)
            started = time.perf_counter()
            entries = copy_of(state, at)
            copies.append(time.perf_counter() - started)
            write_copy(store, "aside", entries, at, "a")
        before, after = statistics.median(whole), statistics.median(copies)
        report("checkpoint.inline_1m_rows", before, "s")
        report("checkpoint.copy_1m_rows", after, "s")
        share = after / before
        return 0 if report("checkpoint.copy_share", share, "of inline", "<= 0.5", holds=share <= 0.5) else 1


if __name__ == "__main__":
    sys.exit(main())
