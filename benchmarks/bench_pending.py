"""What a tick of the joiner costs with 0.1 M and with 5 M impressions pending.

    python benchmarks/bench_pending.py [ticks]

Every tick brings 10,000 impressions (14 feature columns, 124 bytes) and 1,000 feedback events spread over the whole
horizon, the worst case; 5 % of them come before their impression, 2 % twice. Files are written and mapped; CPU is that
of the process, merges included. The horizon is what makes the number pending: 10 s or 500 s at 10,000 per second.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.clock import SECOND_US
from headrace.store import open_store
from pipelines.join import join_part
from pipelines.label import LabelPolicy
from pipelines.runs import RunFiles, RunMeta

RATE = 10_000
DISORDER_US = 5 * SECOND_US
BAR = 2.0


def offsets(rows: int) -> dict[str, Any]:
    return {"_partition": np.zeros(rows, np.int32), "_offset": np.arange(rows)}


def names(number: np.ndarray) -> pa.Array:
    return pa.array([f"request-{n:012x}" for n in number.tolist()])


class Events:
    """Impression n is shown at second n / RATE."""

    def __init__(self, horizon_s: int) -> None:
        self.random = np.random.default_rng(1)
        self.horizon_s = horizon_s

    def impressions(self, second: int, seconds: int) -> pa.Table:
        number = np.arange(second * RATE, (second + seconds) * RATE)
        ids = {f"id{n}": self.random.integers(0, 1 << 62, len(number)) for n in range(8)}
        numbers = {f"number{n}": self.random.random(len(number), np.float32) for n in range(6)}
        ts = number * SECOND_US // RATE
        return pa.table({"_id": names(number), "_ts": ts, **offsets(len(number)), **ids, **numbers})

    def feedback(self, second: int, seconds: int) -> pa.Table:
        rows = RATE * seconds // 10
        f = second * SECOND_US + self.random.integers(0, seconds * SECOND_US, rows)
        delay = self.random.integers(0, self.horizon_s * SECOND_US, rows)
        number = np.abs(f - delay) * RATE // SECOND_US
        early, again = rows // 20, rows // 50
        number[:early] = f[:early] * RATE // SECOND_US + np.arange(early) % (2 * RATE)
        number[-again:], f[-again:] = number[:again], f[:again]
        label = np.ones(rows, np.float32)
        return pa.table({"_id": names(number), "_ts": f, **offsets(rows), "_label": label})


class Loop:
    """Ticks of one part, as the pipeline does them."""

    def __init__(self, folder: str, policy: LabelPolicy, events: Events) -> None:
        self.store = open_store(folder)
        self.files = RunFiles(self.store)
        self.policy, self.events = policy, events
        self.metas: list[RunMeta] = []
        self.second, self.written = 0, 0

    def tick(self, seconds: int) -> float:
        """CPU seconds."""
        impressions = self.events.impressions(self.second, seconds)
        feedback = self.events.feedback(self.second, seconds)
        before = self.second * SECOND_US - DISORDER_US
        after = before + seconds * SECOND_US
        start = time.process_time()
        result = join_part(
            self.metas, self.files, impressions, feedback, before_us=before, watermark_us=after, policy=self.policy
        )
        self.metas = list(result.runs)
        for new in result.new_runs:
            data = new.data("")
            meta = new.named(0, f"shards/state/{self.written:012d}.arrow", data)
            Path(str(self.store.path_of(meta.path))).write_bytes(data)
            self.metas.append(meta)
            self.written += 1
        live = {meta.path for meta in self.metas}
        self.files.keep(live)
        for meta in self.metas:
            self.files(meta)
        cpu = time.process_time() - start
        self.second += seconds
        for path in Path(str(self.store.path_of("shards/state"))).iterdir():
            if f"shards/state/{path.name}" not in live:
                path.unlink()
        return cpu


def measure(mode: Any, horizon_s: int, ticks: int) -> dict[str, float]:
    policy = LabelPolicy(mode, horizon_s * SECOND_US, wait_us=min(30, horizon_s // 3) * SECOND_US)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "shards/state").mkdir(parents=True)
        loop = Loop(folder, policy, Events(horizon_s))
        for _ in range(horizon_s // 10):  # fill quickly: closed buckets are one run anyway
            loop.tick(10)
        for _ in range(max(8, horizon_s // 16)):  # then a whole open bucket in ticks of a second
            loop.tick(1)
        gc.collect()
        cpu = np.array([loop.tick(1) for _ in range(ticks)])
        pending = sum(meta.rows for meta in loop.metas if meta.kind == "impression")
        record = len(json.dumps([meta.to_json() for meta in loop.metas]))
        cost = {"mean": cpu.mean(), "median": np.median(cpu)}
        return {**cost, "pending": pending, "runs": len(loop.metas), "json": record}


def report(name: str, value: float, unit: str, bar: str = "", holds: bool = True) -> None:
    line = {"name": name, "value": round(float(value), 3), "unit": unit, "bar": bar, "holds": holds}
    print(json.dumps(line), flush=True)


def main() -> int:
    ticks = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    fine = True
    for mode in ("implicit", "explicit"):
        few, many = measure(mode, 10, ticks), measure(mode, 500, ticks)
        for name, cost in (("0.1M", few), ("5M", many)):
            report(f"pending.{mode}.{name}.rows", cost["pending"], "impressions")
            report(f"pending.{mode}.{name}.tick_cpu", 1e3 * cost["mean"], "ms")
            report(f"pending.{mode}.{name}.tick_cpu_median", 1e3 * cost["median"], "ms")
            report(f"pending.{mode}.{name}.runs", cost["runs"], "runs")
            report(f"pending.{mode}.{name}.record", cost["json"], "bytes")
        ratio = many["mean"] / few["mean"]
        report(f"pending.{mode}.ratio", ratio, "x", f"<= {BAR}", holds=bool(ratio <= BAR))
        fine &= bool(ratio <= BAR)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
