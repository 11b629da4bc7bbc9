"""Events from JSON lines to windowed shards: Beam beside the same kernels in plain threads, and Beam per element.

    python benchmarks/bench_pipeline.py

1 M impressions (165 bytes, 1 % of them twice, out of order by 2 s) and 40,000 clicks. Every measurement is a process of
its own; imports and translation are not counted. Plain and Beam take turns, the best of three rounds counts. Beam per
element does the same work (parse, validation, ids, join, shards) on the first 100,000 events and is scaled per event.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
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
    """The same orders, read and joined on two plain threads."""
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
            keyed = {
                "shown": lines["shown"] | "shown" >> beam.FlatMap(shown_event),
                "clicks": lines["clicks"] | "clicked" >> beam.FlatMap(click_event),
            }
            rows = keyed | "by id" >> beam.CoGroupByKey() | "label" >> beam.FlatMap(labelled)
            parts = rows | "by part" >> beam.GroupByKey()
            _ = parts | "write" >> beam.Map(write_part, str(root))

    return run, lambda: _rows_of_files(root)


def shown_event(line: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """One impression, validated and encoded."""
    from headrace.ids import id_of

    event = _event(line)
    if event is None or not isinstance(event.get("ts"), int):
        return
    row: dict[str, Any] = {"ts": event["ts"] * 1_000}
    for name, feature in FEATURES.items():
        value = event.get(name)
        if feature["kind"] == "number":
            if isinstance(value, bool) or not isinstance(value, int | float):
                return
            row[name] = value
        else:
            row[name] = id_of(name, str(value))
    yield event["id"], row


def click_event(line: str) -> Iterator[tuple[str, int]]:
    event = _event(line)
    if event is not None and isinstance(event.get("at"), int):
        yield event["id"], event["at"] * 1_000


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("id"), str) else None


def labelled(group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Observed and correction rows of one id."""
    import farmhash

    id_, both = group
    shown = sorted(both["shown"], key=lambda row: int(row["ts"]))
    if not shown:
        return
    row = shown[0]
    delays = sorted(at - row["ts"] for at in both["clicks"] if 0 <= at - row["ts"] <= 300_000_000)
    part = farmhash.fingerprint64(id_) % PARTS
    label = float(bool(delays) and delays[0] <= 30_000_000)
    yield part, {**row, "id": id_, "label": label, "emit": row["ts"] + 30_000_000, "kind": "observed", "delay": None}
    if delays and not label:
        yield (
            part,
            {**row, "id": id_, "label": 1.0, "emit": row["ts"] + delays[0], "kind": "correction", "delay": delays[0]},
        )


def write_part(group: tuple[int, Iterable[dict[str, Any]]], root: str) -> None:
    import numpy as np
    import pyarrow as pa

    from headrace.shard import arrange, write_shard
    from headrace.store import open_store

    part, rows = group[0], list(group[1])
    columns = {
        "impression_id": pa.array([row["id"] for row in rows]),
        "event_time_us": pa.array([row["ts"] for row in rows], pa.int64()),
        "emit_time_us": pa.array([row["emit"] for row in rows], pa.int64()),
        "label": pa.array([row["label"] for row in rows], pa.float32()),
        "row_kind": pa.array([row["kind"] for row in rows]),
        "delay_us": pa.array([row["delay"] for row in rows], pa.int64()),
        "sample_rate": pa.array(np.ones(len(rows), np.float32)),
    }
    kinds = {name: pa.float32() if one["kind"] == "number" else pa.int64() for name, one in FEATURES.items()}
    features = {name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
    table = arrange(pa.table({**columns, **features}), 60_000_000)
    write_shard(open_store(root), table, path=f"shards/data/{part}.parquet", part=part, fingerprint="bench")


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
    per_cpu = best(rounds["plain"], "cpu_s") / best(rounds["ticks"], "cpu_s")
    holds = [
        figure("bounded Beam run, 1 M events from JSON", EVENTS / beam_s / 1_000, "k events/s", "", True),
        figure("the same kernels in plain threads", EVENTS / plain_s / 1_000, "k events/s", "", True),
        figure("Beam / plain threads, wall speed", plain_s / beam_s, "ratio", ">= 0.6", plain_s / beam_s >= 0.6),
        figure("Beam / Beam per element, speed", naive_s / beam_s, "ratio", ">= 20", naive_s / beam_s >= 20),
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
