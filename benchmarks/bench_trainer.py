"""Training from Parquet shards, end to end, beside a naive Keras fit; and what one version costs.

    python benchmarks/bench_trainer.py

The stream is the same for every size of the table: 20 features whose vocabularies grow geometrically from 8 values to
about 110,000, 2^18 in total, drawn by Zipf's law (exponent 1); 8 numbers with missing values; one label. What a larger
table has more are rows of ids that came before and no longer do.

Ours: read_shard (hash check, Parquet), examples, ids to rows, statistics, step; `mlp` 64-32 with width 16 *and* its
linear table. Keras, in a process of its own with TensorFlow's own thread settings: the same files, ids folded by modulo
into one Embedding per feature, Dense 64-32, Adam, `fit` for one epoch. Both: batches of 2,048; rows are counted over
all features together; some batches come first and are not timed. Keras at 2^22 rows runs on 20 batches (its cost per
step does not change with time), elsewhere on 64.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.config import Settings, parse
from headrace.loop import open_loop
from headrace.shard import Shard, ShardRecord, arrange, read_shard, write_shard
from headrace.store import Store, open_store

FEATURES, NUMBERS, WIDTH, BATCH = 20, 8, 16, 2048
VOCABULARY = 1 << 18
RECORD = 64 * BATCH
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


def events(rows: int, seed: int) -> pa.Table:
    """Encoded examples, as the joiner emits them."""
    random = np.random.default_rng(seed)
    sizes = vocabularies(VOCABULARY)
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


def ours(root: str, table_rows: int, records: int) -> float:
    """Rows per second of the trainer's own path from file to weights."""
    from training.examples import COLUMNS, examples_of
    from training.recipe import design_of
    from training.state import State

    settings = settings_for(root)
    schema, store = settings.schema(), open_store(root)
    design = design_of(settings, schema)
    state = State(design)
    for table in state.learner.tables.values():
        table.rows_of(ids_of(FEATURES, np.arange(table_rows - VOCABULARY)))
        table.touched[:] = False
    shards = [write_record(store, events(RECORD, seed), seed, schema.fingerprint) for seed in range(records + 1)]
    names = [*COLUMNS, *(feature.name for feature in schema.features)]
    started = 0.0
    for number, shard in enumerate(shards):
        if number == 1:
            started = time.perf_counter()
        state.learn(examples_of([read_shard(store, shard, names)], schema))
    return records * RECORD / (time.perf_counter() - started)


def keras_naive(root: str, table_rows: int, batches: int) -> float:
    """Rows per second of what one writes first: Embedding per feature, Adam, fit."""
    import keras

    settings = settings_for(root)
    store = open_store(root)
    sizes = vocabularies(table_rows)
    shard = write_record(store, events(RECORD, 99), 99, settings.schema().fingerprint)
    inputs = [keras.Input((), dtype="int32", name=f"f{i}") for i in range(FEATURES)]
    numbers = keras.Input((NUMBERS,), name="numbers")
    embedded = [keras.layers.Embedding(size, WIDTH)(x) for size, x in zip(sizes, inputs, strict=True)]
    x = keras.layers.Concatenate()([*embedded, numbers])
    for units in (64, 32):
        x = keras.layers.Dense(units, "relu")(x)
    model = keras.Model([*inputs, numbers], keras.layers.Dense(1, "sigmoid")(x))
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")

    def fit(rows: int) -> None:
        table = read_shard(store, shard).slice(0, rows)
        columns = [(table[f"f{i}"].to_numpy() % size).astype(np.int32) for i, size in enumerate(sizes)]
        dense = np.nan_to_num(np.stack([table[f"x{i}"].to_numpy() for i in range(NUMBERS)], 1))
        model.fit([*columns, dense], table["label"].to_numpy(), batch_size=BATCH, epochs=1, verbose=0)

    fit(3 * BATCH)
    started = time.perf_counter()
    fit(batches * BATCH)
    return batches * BATCH / (time.perf_counter() - started)


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
        record = ShardRecord(
            seq=seq, ranges=(), now_us=0, watermark_us=seq, closed_us=0, open_until_us=0, shards=(shard,), pending=(),
            counts={}, schema=schema.fingerprint, code="bench", committed_at_us=0,
        )  # fmt: skip
        head = log.append("shard", record.to_body(), head)
        started = time.perf_counter()
        entry = trainer.step()
        seconds.append(time.perf_counter() - started)
        assert entry is not None
        assert entry.kind == "delta"
    return seconds[2], 1e3 * float(np.median(seconds[4:]))


def report(name: str, value: float, unit: str, bar: str = "", holds: bool = True) -> None:
    print(json.dumps({"name": name, "value": round(value, 2), "unit": unit, "bar": bar, "holds": holds}), flush=True)


def measured(kind: str, table_rows: int, amount: int) -> float:
    """Runs this file in a process of its own, so that neither side inherits the other's settings or memory."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, __file__, kind, str(table_rows), str(amount)]
    done = subprocess.run(command, env={**os.environ, **quiet}, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> int:
    if len(sys.argv) == 4:
        with tempfile.TemporaryDirectory() as root:
            print({"ours": ours, "keras": keras_naive}[sys.argv[1]](root, int(sys.argv[2]), int(sys.argv[3])))
        return 0
    fine = True
    speed = {}
    for bits, bar, batches in ((18, 0.0, 0), (20, 5.0, 64), (22, 20.0, 20)):
        speed[bits] = measured("ours", 1 << bits, 4)
        report(f"trainer.ours.2^{bits}", speed[bits], "rows/s")
        if not bar:
            continue
        naive = measured("keras", 1 << bits, batches)
        report(f"trainer.keras.2^{bits}", naive, "rows/s")
        ratio = speed[bits] / naive
        report(f"trainer.ratio.2^{bits}", ratio, "x", f">= {bar:g}", ratio >= bar)
        fine &= ratio >= bar
    flat = speed[22] / speed[18]
    report("trainer.flat", flat, "x", ">= 0.8", flat >= 0.8)
    with tempfile.TemporaryDirectory() as root:
        shard_s, small_ms = versions(str(Path(root)))
    report("trainer.shard_50k_to_delta", shard_s, "s", "<= 3", shard_s <= 3)
    report("trainer.record_100_to_version", small_ms, "ms")
    return 0 if fine and flat >= 0.8 and shard_s <= 3 else 1


if __name__ == "__main__":
    sys.exit(main())
