"""Events from JSON lines to windowed shards: Beam beside the same kernels in plain threads, and Beam per element.

    python benchmarks/bench_pipeline.py

1 M impressions (165 bytes, 1 % of them twice, out of order by 2 s) and 40,000 clicks. Every measurement is a process of
its own; imports and translation are not counted. Plain and Beam take turns, the best of three rounds counts. Beam per
element does the same work on the first 100,000 events and is scaled per event: parse, validation with reasons,
encoding, counts per class, dedup, join, equal rows in the same shard files. It hashes each value of a feature once,
keeps rows as tuples and counts without Beam's metrics (those cost more); it has no pending state, clocks or record.
"""

from __future__ import annotations

import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

EVENTS = 1_000_000
ROUNDS = 3
PER_ELEMENT = 100_000
T0 = 1_700_000_000_000
PARTS = 4
TICK_BYTES = 16 << 20
FEATURES = {
    "user": {"kind": "id"},
    "item": {"kind": "id"},
    "surface": {"kind": "category"},
    "price": {"kind": "number", "transform": "log1p"},
    "f1": {"kind": "number"},
    "f2": {"kind": "number"},
}
MOST = 3.4028234663852886e38  # of a float32
COUNTS: Counter[str] = Counter()  # of the pipeline per element


def generate(folder: Path, n: int) -> None:
    """n impressions over ten minutes of event time, clicks for 4 % of them."""
    rng = random.Random(5)
    clicks = []
    with (folder / "shown.jsonl").open("w") as stream:
        for k in range(n):
            ts = T0 + 600_000 * k // n + rng.randint(-1_000, 1_000)
            line = (
                f'{{"id": "{k:016x}", "ts": {ts}, "user": {rng.randrange(10_000)}, "item": {rng.randrange(2_000)}, '
                f'"surface": "{rng.choice("abcd")}", "price": {rng.random() * 100:.3f}, "f1": {rng.random():.6f}, '
                f'"f2": {rng.random():.6f}, "unused": {rng.randrange(10)}}}\n'
            )
            stream.write(line * (1 + (rng.random() < 0.01)))
            if rng.random() < 0.04:
                clicks.append((ts + int(rng.expovariate(1 / 60_000)), k))
    clicks.sort()
    with (folder / "clicks.jsonl").open("w") as stream:
        stream.writelines(f'{{"id": "{k:016x}", "at": {at}}}\n' for at, k in clicks)


def settings_of(folder: Path, root: Path, **pipeline: Any) -> Any:
    from headrace.config import Settings

    return Settings(
        loop={"name": "bench", "root": str(root)},
        streams={
            "impression": {"source": f"{folder}/shown.jsonl", "id": "id", "time": "ts", "time_unit": "ms"},
            "click": {"source": f"{folder}/clicks.jsonl", "id": "id", "time": "at", "time_unit": "ms"},
        },
        label={"mode": "implicit", "wait_s": 30, "attribution_s": 300},
        features=FEATURES,  # type: ignore[arg-type]  # pydantic makes models of plain dictionaries
        pipeline={"parts": PARTS, **pipeline},  # type: ignore[arg-type]
    )


def pipeline_of(folder: Path, root: Path, **pipeline: Any) -> Any:
    from headrace.loop import open_loop
    from headrace.store import open_store
    from pipelines.pipeline import Pipeline

    settings = settings_of(folder, root, **pipeline)
    return Pipeline(open_loop(open_store(str(root)), "bench"), settings)


def plain(folder: Path, root: Path) -> tuple[Callable[[], None], Callable[[], int]]:
    """The same orders, read and joined on two plain threads, with the same memory."""
    from headrace.arrow import memory_of_libc
    from headrace.loop import open_loop
    from headrace.store import open_store
    from pipelines.orders import PartOrder, Tick
    from pipelines.plan import orders_of, plan_tick
    from pipelines.setup import setup_of
    from pipelines.work import join, order_table, read, run_files

    store = open_store(str(root))
    open_loop(store, "bench")
    setup = setup_of(store, settings_of(folder, root))
    threads = ThreadPoolExecutor(2)
    memory_of_libc()

    def work() -> None:
        now_us = time.time_ns() // 1_000
        plan = plan_tick(
            setup, None, now_us=now_us, max_bytes=1 << 40, idle={}, open_run=run_files(str(root)), drain=True
        )
        parts: dict[int, list[Any]] = {part: [] for part in range(PARTS)}
        for order in orders_of(setup, plan, Tick(0, now_us, "plain")):
            made = [order_table(order)] if isinstance(order, PartOrder) else read(setup, order, threads)
            for part, table in made:
                parts[part].append(table)
        list(threads.map(lambda part: join(setup, parts.pop(part)), range(PARTS)))

    return work, lambda: _rows_of_files(root)


def batch(folder: Path, root: Path) -> tuple[Callable[[], None], Callable[[], int]]:
    """One bounded Beam run over everything."""
    return _ticking(folder, root, max_bytes_per_tick=1 << 40)


def ticks(folder: Path, root: Path) -> tuple[Callable[[], None], Callable[[], int]]:
    """The tick loop on the same backlog."""
    return _ticking(folder, root, max_bytes_per_tick=TICK_BYTES)


def _ticking(folder: Path, root: Path, **settings: Any) -> tuple[Callable[[], None], Callable[[], int]]:
    from pipelines import job  # noqa: F401  (imports are not counted)

    pipeline = pipeline_of(folder, root, **settings)
    return lambda: pipeline.run(drain=True), lambda: _rows_of_files(root)


def _rows_of_files(root: Path) -> int:
    import pyarrow.parquet as pq

    files = (root / "shards" / "data").glob("*.parquet")
    return sum(pq.read_metadata(path).num_rows for path in files)


def per_element(folder: Path, root: Path) -> tuple[Callable[[], None], Callable[[], int]]:
    """Beam as its tutorials have it: an element is an event, a key is an id."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    def run() -> None:
        with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
            lines = {
                name: pipeline | f"read {name}" >> beam.io.ReadFromText(str(folder / f"{name}.jsonl"))
                for name in ("shown", "clicks")
            }
            latest_us = time.time_ns() // 1_000 + 300_000_000
            shown = lines["shown"] | "shown" >> beam.FlatMap(shown_event, latest_us).with_outputs("bad", main="good")
            clicks = lines["clicks"] | "clicked" >> beam.FlatMap(click_event, latest_us).with_outputs(
                "bad", main="good"
            )
            keyed = {"shown": shown.good, "clicks": clicks.good}
            rows = keyed | "by id" >> beam.CoGroupByKey() | "label" >> beam.FlatMap(labelled)
            parts = rows | "by part" >> beam.GroupByKey()
            _ = parts | "write" >> beam.Map(write_part, str(root))
            bad = (shown.bad, clicks.bad) | beam.Flatten()
            _ = (
                bad
                | "one key" >> beam.WithKeys(0)
                | "bad" >> beam.GroupByKey()
                | "keep" >> beam.Map(write_bad, str(root))
            )

    return run, lambda: _rows_of_files(root)


def shown_event(line: str, latest_us: int) -> Iterator[Any]:
    """(id, (time, *encoded features)) of one impression, or its line and reason on the output "bad"."""
    from apache_beam.pvalue import TaggedOutput

    event, reason = _event(line, "ts", latest_us)
    row: list[Any] = [] if event is None else [event["ts"] * 1_000]
    for name, feature in FEATURES.items() if event is not None else ():
        value = event.get(name)
        if feature["kind"] != "number":
            row.append(_id_of(name, value))
            continue
        if type(value) not in (int, float):
            reason = "wrong_type"
        elif not -MOST <= value <= MOST or (feature.get("transform") and value <= -1):
            reason = "out_of_range"
        else:
            row.append(math.log1p(value) if feature.get("transform") else value)
    yield TaggedOutput("bad", (line, reason)) if reason else (event["id"], tuple(row))


@lru_cache(maxsize=1 << 20)
def _id_of(name: str, value: Any) -> int:
    from headrace.ids import id_of

    return id_of(name, str(value))


def click_event(line: str, latest_us: int) -> Iterator[Any]:
    from apache_beam.pvalue import TaggedOutput

    event, reason = _event(line, "at", latest_us)
    yield TaggedOutput("bad", (line, reason)) if reason else (event["id"], event["at"] * 1_000)


def _event(line: str, when: str, latest_us: int) -> tuple[Any, str]:
    """The object of a line, or None and why not."""
    try:
        event = json.loads(line)
    except ValueError:
        return None, "malformed"
    if type(event) is not dict:
        return None, "malformed"
    if type(event.get("id")) is not str or not event["id"]:
        return None, "missing_id"
    if type(event.get(when)) is not int:
        return None, "bad_time"
    if not 0 <= event[when] * 1_000 <= latest_us:
        return None, "future"
    return event, ""


def labelled(group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Observed and correction rows of one id: (id, emit time, label, kind, delay, time, *features)."""
    import farmhash

    id_, both = group
    shown, clicks = sorted(both["shown"]), sorted(set(both["clicks"]))
    part = farmhash.fingerprint64(id_) % PARTS
    winners: list[tuple[Any, ...]] = []
    last_us = -(1 << 62)
    for row in shown:  # one that comes within the attribution time of the one before is a duplicate
        if row[0] - last_us > 300_000_000:
            winners.append(row)
        last_us = row[0]
    joined = 0
    for row in winners:
        delays = [at - row[0] for at in clicks if 0 <= at - row[0] <= 300_000_000] if clicks else ()
        joined += bool(delays)
        if not delays:
            yield part, (id_, row[0] + 30_000_000, 0.0, "observed", None, *row)
        elif delays[0] <= 30_000_000:
            yield part, (id_, row[0] + 30_000_000, 1.0, "observed", delays[0], *row)
        else:
            yield part, (id_, row[0] + 30_000_000, 0.0, "observed", None, *row)
            yield part, (id_, row[0] + delays[0], 1.0, "correction", delays[0], *row)
    COUNTS["emitted"] += len(winners)
    COUNTS["joined"] += joined
    if len(shown) > len(winners):
        COUNTS["duplicate"] += len(shown) - len(winners)


def write_part(group: tuple[int, Iterable[tuple[Any, ...]]], root: str) -> None:
    import numpy as np
    import pyarrow as pa

    from headrace.shard import arrange, write_shard
    from headrace.store import open_store

    part, rows = group[0], list(group[1])
    ids, emit, label, kind, delay, ts, *features = zip(*rows, strict=True)
    columns = {
        "impression_id": pa.array(ids),
        "event_time_us": pa.array(ts, pa.int64()),
        "emit_time_us": pa.array(emit, pa.int64()),
        "label": pa.array(label, pa.float32()),
        "row_kind": pa.array(kind),
        "delay_us": pa.array(delay, pa.int64()),
        "sample_rate": pa.array(np.ones(len(rows), np.float32)),
    }
    kinds = {name: pa.float32() if one["kind"] == "number" else pa.int64() for name, one in FEATURES.items()}
    encoded = {name: pa.array(values, kinds[name]) for name, values in zip(kinds, features, strict=True)}
    table = arrange(pa.table({**columns, **encoded}), 60_000_000)
    write_shard(open_store(root), table, path=f"shards/data/{part}.parquet", part=part, fingerprint="bench")


def write_bad(group: tuple[int, Iterable[tuple[str, str]]], root: str) -> None:
    """Refused events; there are none in this benchmark."""
    from headrace.store import open_store

    open_store(root).write("shards/quarantine/bad.json", json.dumps(list(group[1])).encode())


def waiting(folder: Path, root: Path) -> dict[str, float]:
    """CPU share of a resident pipeline with nothing to do, after it has read everything."""
    pipeline = pipeline_of(folder, root)
    pipeline.run(once=True)
    began = time.monotonic()
    cpu = time.process_time()
    pipeline.run(stop=lambda: time.monotonic() - began > 10)
    return {"share": (time.process_time() - cpu) / (time.monotonic() - began)}


def small_tick(folder: Path, root: Path) -> dict[str, float]:
    """Median wall and CPU of a tick of about 300 events, Beam included."""
    pipeline = pipeline_of(folder, root, max_bytes_per_tick=50_000, parts=2)
    walls, cpus = [], []
    for _ in range(40):
        wall, cpu = time.perf_counter(), time.process_time()
        pipeline.tick()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"wall_ms": 1_000 * sorted(walls[10:])[15], "cpu_ms": 1_000 * sorted(cpus[10:])[15]}


def child(kind: str, folder: Path) -> None:
    """One measurement, in this process; prints it."""
    with tempfile.TemporaryDirectory() as root:
        if kind in ("waiting", "small_tick"):
            print(json.dumps(globals()[kind](folder, Path(root))))
            return
        work, rows = globals()[kind](folder, Path(root))
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_gb": peak, "rows": rows()}))


def measured(kind: str, folder: Path) -> dict[str, Any]:
    out = subprocess.run(
        [sys.executable, __file__, kind, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    found: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    return found


def figure(name: str, value: float, unit: str, bar: str, holds: bool) -> bool:
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": holds}), flush=True)
    return holds


def best(rounds: list[dict[str, Any]], what: str) -> float:
    return min(float(one[what]) for one in rounds)


def main() -> int:
    with tempfile.TemporaryDirectory() as made:
        folder, few = Path(made) / "all", Path(made) / "few"
        for place, n in ((folder, EVENTS), (few, PER_ELEMENT)):
            place.mkdir()
            generate(place, n)
        rounds: dict[str, list[dict[str, Any]]] = {"plain": [], "batch": [], "ticks": []}
        for _ in range(ROUNDS):
            for kind, found in rounds.items():
                found.append(measured(kind, folder))
        naive = measured("per_element", few)
        wait, small = measured("waiting", few), measured("small_tick", few)
        same = measured("batch", few)["rows"] == naive["rows"]
    return report(rounds, naive, wait, small, same=same)


def report(
    rounds: dict[str, list[dict[str, Any]]],
    naive: dict[str, Any],
    wait: dict[str, Any],
    small: dict[str, Any],
    *,
    same: bool,
) -> int:
    plain_s, beam_s = best(rounds["plain"], "wall_s"), best(rounds["batch"], "wall_s")
    peak = max(one["peak_gb"] for one in rounds["batch"])
    rows = {one["rows"] for found in rounds.values() for one in found}
    naive_s = naive["wall_s"] * EVENTS / PER_ELEMENT
    cpus = {
        "plain": best(rounds["plain"], "cpu_s"),
        "Beam": best(rounds["batch"], "cpu_s"),
        "Beam per element": naive["cpu_s"] * EVENTS / PER_ELEMENT,
    }
    per_cpu = best(rounds["plain"], "cpu_s") / best(rounds["ticks"], "cpu_s")
    holds = [
        figure("bounded Beam run, 1 M events from JSON", EVENTS / beam_s / 1_000, "k events/s", "", True),
        figure("the same kernels in plain threads", EVENTS / plain_s / 1_000, "k events/s", "", True),
        figure("Beam / plain threads, wall speed", plain_s / beam_s, "ratio", ">= 0.6", plain_s / beam_s >= 0.6),
        figure("Beam / Beam per element, speed", naive_s / beam_s, "ratio", ">= 20", naive_s / beam_s >= 20),
        *(figure(f"CPU seconds per 1 M events, {name}", cpu, "s", "", True) for name, cpu in cpus.items()),
        figure("peak memory of the bounded run", peak, "GB", "<= 1.2", peak <= 1.2),
        figure("tick loop / plain threads, events per CPU-second", per_cpu, "ratio", ">= 0.5", per_cpu >= 0.5),
        figure("waiting with nothing to do", 100 * wait["share"], "% of a core", "< 3", wait["share"] < 0.03),
        figure("tick of 300 events, wall", small["wall_ms"], "ms", "<= 100", small["wall_ms"] <= 100),
        figure("tick of 300 events, CPU", small["cpu_ms"], "ms", "", True),
        figure("all of them gave the same number of rows", float(len(rows)), "counts", "= 1", len(rows) == 1 and same),
    ]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(sys.argv[1], Path(sys.argv[2]))
        sys.exit(0)
    sys.exit(main())
