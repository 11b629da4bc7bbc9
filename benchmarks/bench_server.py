"""How fast a server starts, applies a delta, answers.

    python benchmarks/bench_server.py

One root with 1 M rows x 16 (and their linear rows, int8), a tower made by hand, 20 features; the server is the one that
`headrace serve` runs, in a process of its own, and its start is timed from before the interpreter starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from handmade import Publisher, linear_tower  # noqa: E402

from headrace.delta import Change, Delta, Numbers, TableSpec  # noqa: E402
from headrace.errors import ServingError  # noqa: E402
from headrace.features import Feature  # noqa: E402
from headrace.log import Log  # noqa: E402
from headrace.loop import open_loop  # noqa: E402
from headrace.schema import Schema  # noqa: E402
from headrace.store import open_store  # noqa: E402
from paramserver.client import Client  # noqa: E402
from paramserver.replica import Replica  # noqa: E402

ROWS = 1_000_000
NAMES = tuple(f"f{i}" for i in range(20))
SERVE = """
import sys
from types import SimpleNamespace
from headrace.arrow import without_pandas
from headrace.loop import open_loop
from headrace.store import open_store
from paramserver.server import Server
without_pandas()
serve = SimpleNamespace(host="127.0.0.1", port=0, max_candidates=1000, lane=True)
server = Server(open_loop(open_store(sys.argv[1]), "bench"), SimpleNamespace(serve=serve)).start()
assert server.wait_until_serving(60)
print(server.address, flush=True)
sys.stdin.read()
heavy = [name for name in ("tensorflow", "keras", "apache_beam", "mlflow") if name in sys.modules]
print(" ".join(heavy) or "none", flush=True)
server.stop()
"""


def specs(width: int) -> tuple[TableSpec, ...]:
    return (TableSpec("linear", 1, "f32", NAMES), TableSpec("embedding", width, "int8", NAMES))


def publisher_of(root: Path, rows: int, width: int) -> tuple[Publisher, np.ndarray]:
    """A root whose version 1 has `rows` ids."""
    store = open_store(str(root))
    open_loop(store, "bench")
    schema = Schema(tuple(Feature(name, "id", (name,)) for name in NAMES))
    publisher = Publisher(store, schema=schema, specs=specs(width))
    publisher.start()
    random = np.random.default_rng(0)
    ids = np.unique(random.integers(0, 2**62, rows))
    publish(publisher, ids, linear_tower(len(NAMES), width, 0, weight=0.1))
    publisher.snapshot()
    publisher.hold()
    return publisher, ids


def publish(publisher: Publisher, ids: np.ndarray, tower: bytes) -> None:
    random = np.random.default_rng(publisher.next)
    changes = tuple(
        Change.of_rows(spec, ids, random.normal(0, 0.1, (len(ids), spec.width)).astype(np.float32))
        for spec in publisher.specs
    )
    publisher.publish(Delta(publisher.next, publisher.record.version, changes, tower, Numbers()))


MISSED: list[str] = []
"""Names of the figures whose bars do not hold: the exit code says whether there are any."""


def figure(name: str, value: float, unit: str, bar: str, *, holds: bool) -> None:
    MISSED.extend([] if holds else [name])
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": holds}), flush=True)


def started(root: Path) -> tuple[float, float, str]:
    """Seconds until ready, until the first answer; heavy modules loaded."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", SERVE, str(root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    address = process.stdout.readline().strip()
    ready = time.perf_counter() - begin
    with Client(address) as client:
        client.predict(dict.fromkeys(NAMES, "a"))
        answered = time.perf_counter() - begin
    heavy, _ = process.communicate()
    return ready, answered, heavy.strip()


def measure_start(root: Path) -> None:
    publisher_of(root, ROWS, 16)
    runs = [started(root) for _ in range(3)]
    ready, answered = min(run[0] for run in runs), min(run[1] for run in runs)
    heavy = {run[2] for run in runs} - {"none"}
    figure("server start, 1 M rows x 16: ready (best of 3)", ready, "s", "<= 2", holds=ready <= 2)
    figure("server start, 1 M rows x 16: first answer (best of 3)", answered, "s", "<= 3", holds=answered <= 3)
    figure("tensorflow, keras, beam, mlflow modules in the server", len(heavy), "", "0", holds=not heavy)


def measure_deltas(root: Path) -> None:
    """An hourly backtest applies thousands of deltas to tables of about 50,000 rows."""
    publisher, ids = publisher_of(root, 50_000, 8)
    replica = Replica(publisher.store, Log(publisher.store, "models/default/log"))
    replica.poll()
    random = np.random.default_rng(1)
    times = []
    for i in range(60):
        touched = np.sort(random.choice(ids, 2_000, replace=False))
        publish(publisher, touched, linear_tower(len(NAMES), 8, 0, weight=0.1 + i / 1000))
        begin = time.perf_counter()
        assert replica.poll()
        times.append(1e3 * (time.perf_counter() - begin))
    median = float(np.median(times))
    figure("delta of 2,000 rows into 50,000 applied and swapped, p50", median, "ms", "<= 15", holds=median <= 15)


def measure_swaps(root: Path) -> None:
    """Committed -> served, and latency, through gRPC while deltas arrive."""
    publisher, ids = publisher_of(root, 50_000, 8)
    command = [sys.executable, "-c", SERVE, str(root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    address = process.stdout.readline().strip()
    request = dict.fromkeys(NAMES[:10], "shared") | {name: [f"v{i}" for i in range(50)] for name in NAMES[10:]}
    served: dict[int, float] = {}
    calls, errors, stop = [], [], threading.Event()

    def call() -> None:
        with Client(address) as client:
            while not stop.is_set():
                begin = time.perf_counter()
                try:
                    version = client.predict(request).version
                except ServingError as error:
                    errors.append(error)
                    continue
                calls.append(1e3 * (time.perf_counter() - begin))
                served.setdefault(version, time.perf_counter())

    caller = threading.Thread(target=call)
    caller.start()
    committed = {}
    for _ in range(50):
        publish(publisher, ids[:2_000], linear_tower(len(NAMES), 8, 0, weight=0.1))
        committed[publisher.record.version] = time.perf_counter()
        time.sleep(0.15)
    time.sleep(0.5)
    stop.set()
    caller.join()
    process.communicate()
    waits = [served[version] - at for version, at in committed.items() if version in served]
    late = float(np.percentile(waits, 99)) if len(waits) == len(committed) else float("inf")
    figure("version committed -> served, p99 of 50", late, "s", "<= 1", holds=late <= 1)
    p50 = float(np.percentile(calls, 50))
    figure("Predict, 50 candidates x 20 features as text, while swapping, p50", p50, "ms", "<= 10", holds=p50 <= 10)
    figure("errors while swapping", len(errors), "", "0", holds=not errors)


def main() -> int:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for measure in (measure_start, measure_deltas, measure_swaps):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder))
    return 1 if MISSED else 0


if __name__ == "__main__":
    sys.exit(main())
