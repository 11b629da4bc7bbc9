"""Swapping large tables while calls come: a snapshot of 1.0 GB, and deltas of 1 % of its rows.

    python benchmarks/bench_swap.py [--gb 1.0] [--snapshots 2] [--deltas 40]

20 features; each id has a linear row and one of width 16, both f32; the server is the one that `headrace serve` runs.
400 calls a second, 50 candidates each, are due at fixed times whatever becomes of those before (a late answer counts
from when its call was due), made by four threads of a process of their own with ids drawn from all rows. Idle is the
time before, with nothing committed; a swap lasts from the commit of the record until a second after its first answer.
The delta of the version is lost, so that the server builds it from the snapshot, beside the tables that it serves. What
makes the versions rests for a moment before each commit: it is not what is measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "support")]

from bench_server import MISSED, NAMES, SERVE, figure  # noqa: E402
from handmade import Loses, Publisher, linear_tower  # noqa: E402

from headrace.delta import Change, Delta, Numbers, TableSpec  # noqa: E402
from headrace.features import Feature  # noqa: E402
from headrace.loop import open_loop  # noqa: E402
from headrace.schema import Schema  # noqa: E402
from headrace.store import open_store  # noqa: E402
from protos import headrace_pb2 as wire  # noqa: E402

WIDTH, CANDIDATES, BODIES = 16, 50, 200
ROW_BYTES = 100  # of both tables in a file: id, scale, offset, row
RATE, THREADS = 400, 4
IDLE_S, AFTER_S, REST_S = 15.0, 1.0, 0.5
PREDICT = "/headrace.v1.HeadraceService/Predict"
SPECS = (TableSpec("linear", 1, "f32", NAMES), TableSpec("embedding", WIDTH, "f32", NAMES))


class Resting(Publisher):
    """Rests before each commit."""

    def commit(self, record: Any) -> Any:
        time.sleep(REST_S)
        return super().commit(record)


class Large:
    """A root whose versions have very many rows."""

    def __init__(self, root: Path, rows: int) -> None:
        store = open_store(str(root))
        open_loop(store, "bench")
        self.schema = Schema(tuple(Feature(name, "id", (name,)) for name in NAMES))
        self.publisher = Resting(store, schema=self.schema, specs=SPECS)
        self.publisher.start()
        self.ids = np.unique(np.random.default_rng(0).integers(0, 2**62, rows))
        self.lost(self.ids)
        self.snapshot()

    def lost(self, ids: np.ndarray) -> None:
        """A version whose delta is not there."""
        store = self.publisher.store
        self.publisher.store = Loses(store)
        self.delta(ids)
        self.publisher.store = store

    def delta(self, ids: np.ndarray) -> float:
        """When a version with new rows for `ids` was committed."""
        random = np.random.default_rng(self.publisher.next)
        rows = [random.standard_normal((len(ids), spec.width), np.float32) * np.float32(0.1) for spec in SPECS]
        changes = tuple(Change.of_rows(spec, ids, part) for spec, part in zip(SPECS, rows, strict=True))
        tower = linear_tower(len(NAMES), WIDTH, 0, weight=float(random.uniform(0.1, 0.2)))
        assert self.publisher.record is not None
        self.publisher.publish(Delta(self.publisher.next, self.publisher.record.version, changes, tower, Numbers()))
        self.publisher.deltas.clear()
        return time.perf_counter()

    def snapshot(self) -> float:
        """When the record that names the snapshot was committed."""
        self.publisher.snapshot()
        self.publisher.hold()
        return time.perf_counter()

    def bodies(self, folder: Path) -> None:
        random = np.random.default_rng(1)
        for i in range(BODIES):
            counts = (1 if place < 10 else CANDIDATES for place in range(len(NAMES)))
            values = {name: random.choice(self.ids, n) for name, n in zip(NAMES, counts, strict=True)}
            features = {name: wire.Values(ids=wire.Ids(values=ids.tolist())) for name, ids in values.items()}
            request = wire.PredictRequest(features=features, schema_fingerprint=self.schema.fingerprint)
            (folder / f"body-{i}").write_bytes(request.SerializeToString())


def call(address: str, folder: Path) -> int:
    """Calls until stdin ends, then leaves what it saw in `folder`: due, answered, version (-1: an error)."""
    bodies = [path.read_bytes() for path in sorted(folder.glob("body-*"))]
    ended, began = threading.Event(), time.perf_counter() + 0.5
    seen: list[list[tuple[float, float, int]]] = [[] for _ in range(THREADS)]
    with grpc.insecure_channel(address) as channel:

        def one(thread: int) -> None:
            predict, turn = channel.unary_unary(PREDICT), thread
            while not ended.is_set():
                due = began + turn / RATE
                time.sleep(max(0.0, due - time.perf_counter()))
                try:
                    answer = wire.PredictResponse.FromString(predict(bodies[turn % BODIES], timeout=10))
                    version = answer.served.version
                except grpc.RpcError:
                    version = -1
                seen[thread].append((due, time.perf_counter(), version))
                turn += THREADS

        threads = [threading.Thread(target=one, args=(thread,)) for thread in range(THREADS)]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        ended.set()
        for thread in threads:
            thread.join()
    np.save(folder / "seen.npy", np.array(sorted(line for lines in seen for line in lines)))
    return 0


def measure(folder: Path, gb: float, snapshots: int, deltas: int) -> None:
    large = Large(folder / "root", int(gb * 1e9 / ROW_BYTES))
    assert large.publisher.record is not None
    assert large.publisher.record.snapshot is not None
    size = large.publisher.record.snapshot.bytes / 1e9
    large.bodies(folder)
    server = _python("-c", SERVE, str(folder / "root"))
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    client = _python(str(HERE / "bench_swap.py"), "--call", address, str(folder))
    time.sleep(3.0)  # both have warmed up
    idle_from = time.perf_counter()
    time.sleep(IDLE_S)
    idle_to = time.perf_counter()
    commits: dict[str, list[tuple[int, float]]] = {"snapshot": [], "delta": []}
    with grpc.insecure_channel(address) as channel:
        for _ in range(snapshots):
            large.lost(large.ids[::1000])
            at = large.snapshot()
            commits["snapshot"].append((large.publisher.next - 1, at))
            _served(channel, large.publisher.next - 1)
            time.sleep(AFTER_S)
        random = np.random.default_rng(2)
        for _ in range(deltas):
            at = large.delta(np.sort(random.choice(large.ids, len(large.ids) // 100, replace=False)))
            commits["delta"].append((large.publisher.next - 1, at))
            _served(channel, large.publisher.next - 1)
            time.sleep(random.uniform(0.1, 0.3))
    client.communicate()
    server.communicate()
    report(np.load(folder / "seen.npy"), (idle_from, idle_to), commits, size)


def report(
    seen: np.ndarray, idle: tuple[float, float], commits: dict[str, list[tuple[int, float]]], size: float
) -> None:
    due, answered, version = seen.T
    times_ms = 1e3 * (answered - due)

    def first(of: int) -> float:
        return float(answered[version >= of].min(initial=np.inf))

    def within(spans: list[tuple[float, float]]) -> np.ndarray:
        found = np.zeros(len(due), bool)
        for start, end in spans:
            found |= (due >= start) & (due < end)
        return times_ms[found]

    at_rest = within([idle])
    idle_p99 = float(np.percentile(at_rest, 99))
    figure(f"Predict at {RATE}/s, idle, p50", float(np.percentile(at_rest, 50)), "ms", "", holds=True)
    figure(f"Predict at {RATE}/s, idle, p99", idle_p99, "ms", "", holds=True)
    waits = {kind: np.array([first(of) - at for of, at in these]) for kind, these in commits.items()}
    for kind, name in (("snapshot", f"snapshot of {size:.1f} GB"), ("delta", "delta of 1 % of the rows")):
        spans = [(at, first(of) + AFTER_S * (kind == "snapshot")) for of, at in commits[kind]]
        p99 = float(np.percentile(within(spans), 99))
        ratio = p99 / idle_p99
        figure(f"{name} committed -> first answer, p50", float(np.median(waits[kind])), "s", "", holds=True)
        figure(f"Predict at {RATE}/s while a {name} is swapped in, p99", p99, "ms", "", holds=True)
        figure(f"p99 while a {name} is swapped in beside idle", ratio, "x", "<= 3", holds=ratio <= 3)
    visible = float(np.median(waits["delta"]))
    figure("delta of 1 % committed -> visible, p50", 1e3 * visible, "ms", "<= 50", holds=visible <= 0.05)
    late = float(np.percentile(waits["delta"], 99))
    figure("version committed -> served, large tables, p99", late, "s", "<= 1", holds=late <= 1)
    errors = int((version < 0).sum())
    figure(f"errors of {len(seen)} calls while swapping large tables", errors, "", "0", holds=errors == 0)


def _served(channel: grpc.Channel, version: int) -> None:
    status = channel.unary_unary("/headrace.v1.HeadraceService/Status")
    while wire.StatusResponse.FromString(status(b"", timeout=60)).served.version < version:
        time.sleep(0.02)


def _python(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--gb", type=float, default=1.0)
    options.add_argument("--snapshots", type=int, default=2)
    options.add_argument("--deltas", type=int, default=40)
    options.add_argument("--call", nargs=2, metavar=("ADDRESS", "FOLDER"))
    given = options.parse_args()
    if given.call is not None:
        return call(given.call[0], Path(given.call[1]))
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), given.gb, given.snapshots, given.deltas)
    return 1 if MISSED else 0


if __name__ == "__main__":
    sys.exit(main())
