"""Training from Parquet shards, end to end, beside a naive Keras fit; and what one version costs.

    python benchmarks/bench_trainer.py

The stream for a table of N rows: 20 id features whose vocabularies grow geometrically from 8 values, N in total, drawn
by Zipf's law (exponent 1); 8 numbers with missing values; one label. All N ids have a row before the first example, in
random order, so that hot rows lie all over the table. A larger table thus has more distinct ids in a batch, too: about
10,600, 12,600 and 14,300 of 40,960 at 2^18, 2^20 and 2^22.

Ours: read_shard (hash check, Parquet), examples, statistics, ids to rows, step, progressive evaluation (log-loss, AUC
and the rest over every row); `mlp` 64-32 with width 16 *and* its linear table. Not in it, because a fit does nothing
like it: the frozen reference, golden requests, deltas; `trainer.shard_50k_to_delta` has all of them. As `headrace
train` does, it asks for huge pages (headrace/cli/hugepages.py). Keras, with TensorFlow's and the system's own settings:
files of the same rows, ids folded by modulo into one Embedding per feature, Dense 64-32, Adam, `fit` for one epoch, no
evaluation. Both: batches of 2,048; rows are counted over all features together.

Each side is a process of its own, made ready first (imports, tracing, a record or some batches that are not timed).
Then they work in turn, one at a time, ROUNDS times; a ratio is the median over the rounds. Keras rewrites the whole
table at each step, so that 48 batches a round at 2^20 rows and 24 at 2^22 say what it costs; ours has 64 a round. The
`_cpu` figures are the same ratios in CPU-seconds, which depend less on what else the machine does, and carry no bar.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.cli.hugepages import with_huge_pages
from headrace.config import Settings, parse
from headrace.loop import open_loop
from headrace.shard import BLANK, Shard, arrange, read_shard, write_shard
from headrace.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Callable

FEATURES, NUMBERS, WIDTH, BATCH = 20, 8, 16, 2048
VOCABULARY = 1 << 18
RECORD = 64 * BATCH
KERAS_BATCHES = {20: 48, 22: 24}
ROUNDS = 5
SETTINGS = """
[loop]
name = "bench"
root = "{root}"
[streams.impression]
source = "{root}/none.parquet"
id = "id"
time = "time"
[streams.click]
source = "{root}/none.parquet"
id = "id"
time = "time"
[label]
mode = "implicit"
wait_s = 1
attribution_s = 1
[features]
{features}
[model]
kind = "{kind}"
[train]
batch_warmup = {batch}
batch_live = {batch}
"""


def settings_for(root: str, kind: str = "mlp", batch: int = BATCH) -> Settings:
    lines = [f'f{i} = {{ kind = "id" }}' for i in range(FEATURES)] + [
        f'x{i} = {{ kind = "number" }}' for i in range(NUMBERS)
    ]
    settings = parse(SETTINGS.format(root=root, features="\n".join(lines), kind=kind, batch=batch))
    return settings.replace("model", dim=WIDTH)


def vocabularies(rows: int) -> list[int]:
    """Sizes of the features' vocabularies: geometric from 8, `rows` in total."""
    low, high = 1.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 8 * sum(middle**i for i in range(FEATURES)) < rows else (low, middle)
    return [max(2, int(8 * low**i)) for i in range(FEATURES)]


def ids_of(feature: int, values: np.ndarray) -> np.ndarray:
    """A hash of (feature, value): int64 >= 0, different for different values."""
    mixed = (values.astype(np.uint64) + np.uint64(feature << 40)) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed ^ (mixed >> np.uint64(31))) & np.uint64(2**63 - 1)).astype(np.int64)


def events(rows: int, seed: int, vocabulary: int = VOCABULARY) -> pa.Table:
    """Encoded examples, as the joiner emits them."""
    random = np.random.default_rng(seed)
    sizes = vocabularies(vocabulary)
    columns: dict[str, Any] = {
        "impression_id": pa.array(np.arange(rows).astype(str)),
        "event_time_us": np.arange(rows),
        "emit_time_us": np.arange(rows),
        "label": (random.random(rows) < 0.1).astype(np.float32),
        "row_kind": pa.array(["observed"] * rows),
        "delay_us": np.zeros(rows, np.int64),
        "sample_rate": np.ones(rows, np.float32),
    }
    for i, size in enumerate(sizes):
        columns[f"f{i}"] = ids_of(i, np.floor(float(size) ** random.random(rows)).astype(np.int64) - 1)
    for i in range(NUMBERS):
        columns[f"x{i}"] = pa.array(random.normal(size=rows).astype(np.float32), mask=random.random(rows) < 0.05)
    return pa.table(columns)


def write_record(store: Store, rows: pa.Table, seq: int, fingerprint: str) -> Shard:
    return write_shard(
        store, arrange(rows, 60_000_000), path=f"shards/data/{seq:012d}-0-b.parquet", part=0, fingerprint=fingerprint
    )


def ours(root: str, bits: int) -> Callable[[], int]:
    """The trainer's own path from file to weights and figures: learns the next record, gives its rows."""
    from training.candidate import learned
    from training.examples import COLUMNS, examples_of
    from training.reading import ahead
    from training.recipe import design_of
    from training.state import State

    settings = settings_for(root)
    schema, store = settings.schema(), open_store(root)
    state = State(design_of(settings, schema))
    known = [ids_of(i, np.arange(size)) for i, size in enumerate(vocabularies(1 << bits))]
    for ids in np.array_split(np.random.default_rng(0).permutation(np.concatenate(known)), 16):
        for table in state.learner.tables.values():
            table.rows_of(ids)
    state.settle()
    shards = (
        write_record(store, events(RECORD, seed, 1 << bits), seed, schema.fingerprint) for seed in range(ROUNDS + 2)
    )
    names = [*COLUMNS, *(feature.name for feature in schema.features)]
    examples = ahead(list(shards), lambda shard: examples_of([read_shard(store, shard, names)], schema))

    def work() -> int:
        """Learns a record; the next one is read meanwhile, as the trainer does it: each round reads one, learns one."""
        rows = next(examples)
        learned(state, [], [rows], None)
        return len(rows)

    work()
    return work


def keras_naive(root: str, bits: int) -> Callable[[], int]:
    """What one writes first: Embedding per feature, Adam, fit."""
    import keras

    settings = settings_for(root)
    store = open_store(root)
    sizes = vocabularies(1 << bits)
    fingerprint = settings.schema().fingerprint
    short, long = (
        write_record(store, events(batches * BATCH, batches, 1 << bits), batches, fingerprint)
        for batches in (3, KERAS_BATCHES[bits])
    )
    inputs = [keras.Input((), dtype="int32", name=f"f{i}") for i in range(FEATURES)]
    numbers = keras.Input((NUMBERS,), name="numbers")
    embedded = [keras.layers.Embedding(size, WIDTH)(x) for size, x in zip(sizes, inputs, strict=True)]
    x = keras.layers.Concatenate()([*embedded, numbers])
    for units in (64, 32):
        x = keras.layers.Dense(units, "relu")(x)
    model = keras.Model([*inputs, numbers], keras.layers.Dense(1, "sigmoid")(x))
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")

    def fit(shard: Shard) -> int:
        table = read_shard(store, shard)
        columns = [(table[f"f{i}"].to_numpy() % size).astype(np.int32) for i, size in enumerate(sizes)]
        dense = np.nan_to_num(np.stack([table[f"x{i}"].to_numpy() for i in range(NUMBERS)], 1))
        model.fit([*columns, dense], table["label"].to_numpy(), batch_size=BATCH, epochs=1, verbose=0)
        return table.num_rows

    fit(short)
    return lambda: fit(long)


def versions(root: str) -> tuple[float, float]:
    """(seconds from a committed record of 50,000 rows to its durable version, median ms of a record of 100 rows)."""
    from training.trainer import Trainer

    settings = settings_for(root, "dcn_v2", 1024)
    schema, store = settings.schema(), open_store(root)
    loop = open_loop(store, "bench")
    log = loop.shard_log()
    trainer = Trainer(loop, settings)
    head, seconds = None, []
    for seq, rows in enumerate([RECORD, 50_000, 50_000, *[100] * 30]):
        shard = write_record(store, events(rows, seq), seq, schema.fingerprint)
        record = replace(BLANK, seq=seq, watermark_us=seq, shards=(shard,), schema=schema.fingerprint)
        head = log.append("shard", record.to_body(), head)
        started = time.perf_counter()
        entry = trainer.step()
        seconds.append(time.perf_counter() - started)
        assert entry is not None
        assert entry.kind == "delta"
    return seconds[2], 1e3 * float(np.median(seconds[4:]))


def report(name: str, value: float, unit: str, bar: str = "", holds: bool = True) -> None:
    print(json.dumps({"name": name, "value": round(value, 2), "unit": unit, "bar": bar, "holds": holds}), flush=True)


SIDES = {"ours": ours, "keras": keras_naive}


class Worker:
    """One side at one size of table, in a process of its own: neither inherits the other's settings or memory."""

    def __init__(self, side: str, bits: int) -> None:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, side, str(bits)],
            env=with_huge_pages(environment) if side == "ours" else environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        self._answer()

    def round(self) -> tuple[float, float]:
        """(rows per second, rows per CPU-second) of one round."""
        assert self._process.stdin is not None
        print("go", file=self._process.stdin, flush=True)
        wall, cpu = self._answer()
        return wall, cpu

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> list[float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("figures"):
                return [float(word) for word in line.split()[1:]]
        raise SystemExit(f"{self._process.args} ended with {self._process.wait()}")


def serve(side: str, bits: int) -> None:
    """A worker's process: a round for each line it is sent."""
    with tempfile.TemporaryDirectory() as root:
        work = SIDES[side](root, bits)
        print("figures", flush=True)
        for _ in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            rows = work()
            print("figures", rows / (time.perf_counter() - wall), rows / (time.process_time() - cpu), flush=True)


def in_turn(sides: list[tuple[str, int]]) -> dict[tuple[str, int], npt.NDArray[np.float64]]:
    """Side -> [rounds, 2]: rows per second and per CPU-second."""
    workers = {}
    for side in sides:
        workers[side] = Worker(*side)
        workers[side].ready()
    rounds = [{side: worker.round() for side, worker in workers.items()} for _ in range(ROUNDS)]
    for worker in workers.values():
        worker.close()
    return {side: np.array([one[side] for one in rounds]) for side in sides}


def main() -> int:
    if len(sys.argv) == 3:
        serve(sys.argv[1], int(sys.argv[2]))
        return 0
    speed = in_turn([("ours", 18), ("keras", 20), ("ours", 20), ("keras", 22), ("ours", 22)])
    for (side, bits), rates in speed.items():
        report(f"trainer.{side}.2^{bits}", float(np.median(rates[:, 0])), "rows/s")
    fine = True
    for name, above, below, bar in (
        ("ratio.2^20", ("ours", 20), ("keras", 20), 5.0),
        ("ratio.2^22", ("ours", 22), ("keras", 22), 20.0),
        ("flat", ("ours", 22), ("ours", 18), 0.8),
    ):
        wall, cpu = np.median(speed[above] / speed[below], 0).tolist()
        report(f"trainer.{name}", wall, "x", f">= {bar:g}", wall >= bar)
        report(f"trainer.{name}_cpu", cpu, "x")
        fine &= wall >= bar
    with tempfile.TemporaryDirectory() as root:
        shard_s, small_ms = versions(str(Path(root)))
    report("trainer.shard_50k_to_delta", shard_s, "s", "<= 3", shard_s <= 3)
    report("trainer.record_100_to_version", small_ms, "ms")
    return 0 if fine and shard_s <= 3 else 1


if __name__ == "__main__":
    sys.exit(main())
