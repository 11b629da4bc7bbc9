"""Predict beside the obvious build: a grpcio server that calls a TensorFlow function.

    python benchmarks/bench_predict.py            needs h2load (Debian package nghttp2-client)

1 M ids; 20 features, 10 of them shared by the 50 candidates of a call; a linear row and one of width 16 for each id; a
tower of 320-64-32-1. Both servers answer the same messages of `headrace.v1` (ids hashed by the client), with the same
scores. The other server is what one would write first: the generated messages, a thread pool, one concrete
`tf.function` from ids to scores with `tf.lookup.StaticHashTable` for id -> row; a variant leaves that look-up out,
as if ids were row numbers. Only its process imports TensorFlow.

h2load sends one body again and again, over 16 connections with 2 calls each (QPS, CPU) and over one (latency). Rounds
take turns; ratios are medians over rounds. An answer counts if its bytes came: h2load knows nothing of gRPC's status.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "support")]

from bench_server import MISSED, NAMES, SERVE, figure, specs  # noqa: E402
from handmade import Publisher, mlp_tower  # noqa: E402

from headrace.delta import Change, Delta, Numbers  # noqa: E402
from headrace.features import Feature  # noqa: E402
from headrace.loop import open_loop  # noqa: E402
from headrace.schema import Schema  # noqa: E402
from headrace.store import open_store  # noqa: E402
from protos import headrace_pb2 as wire  # noqa: E402
from protos import headrace_pb2_grpc  # noqa: E402

ROWS, WIDTH, CANDIDATES, SHARED = 1_000_000, 16, 50, 10
LAYERS = (64, 32, 1)
ROUNDS = 3
CALLS = {"headrace": 12_000, "tensorflow": 3_000, "tensorflow, no look-up": 3_000}
PATH = "/headrace.v1.HeadraceService/Predict"


def make(folder: Path) -> wire.PredictRequest:
    """A root with version 1, the same parameters for the other server, and a request."""
    store = open_store(str(folder / "root"))
    open_loop(store, "bench")
    schema = Schema(tuple(Feature(name, "id", (name,)) for name in NAMES))
    publisher = Publisher(store, schema=schema, specs=specs(WIDTH))
    publisher.start()
    random = np.random.default_rng(0)
    ids = np.unique(random.integers(0, 2**62, ROWS))
    sizes = (len(NAMES) * WIDTH, *LAYERS)
    layers = [
        (random.normal(0, 0.1, (n, m)).astype(np.float32), random.normal(0, 0.1, n).astype(np.float32))
        for m, n in zip(sizes, LAYERS, strict=False)
    ]
    changes = tuple(
        Change.of_rows(spec, ids, random.normal(0, 0.1, (len(ids), spec.width)).astype(np.float32))
        for spec in publisher.specs
    )
    tower = mlp_tower(len(NAMES), WIDTH, layers)
    publisher.publish(Delta(publisher.next, publisher.record.version, changes, tower, Numbers()))
    publisher.snapshot()
    publisher.hold()
    arrays = {f"w{i}": w for i, (w, _) in enumerate(layers)} | {f"b{i}": b for i, (_, b) in enumerate(layers)}
    linear, embedding = (change.decoded() for change in changes)
    np.savez(folder / "model.npz", ids=ids, linear=linear, embedding=embedding, **arrays)
    wanted = [random.choice(ids, 1 if i < SHARED else CANDIDATES) for i in range(len(NAMES))]
    features = {name: wire.Values(ids=wire.Ids(values=wanted[i].tolist())) for i, name in enumerate(NAMES)}
    return wire.PredictRequest(features=features, schema_fingerprint=schema.fingerprint)


class Obvious(headrace_pb2_grpc.HeadraceServiceServicer):
    """The other server."""

    def __init__(self, folder: Path, *, look_up: bool) -> None:
        import tensorflow as tf

        kept = np.load(folder / "model.npz")
        zero = np.zeros((1, 1), np.float32)
        linear = tf.constant(np.concatenate([zero, kept["linear"]]))
        embedding = tf.constant(np.concatenate([zero.repeat(WIDTH, 1), kept["embedding"]]))
        layers = [(tf.constant(kept[f"w{i}"].T.copy()), tf.constant(kept[f"b{i}"])) for i in range(len(LAYERS))]
        if look_up:
            rows = tf.range(1, len(kept["ids"]) + 1, dtype=tf.int64)
            table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(kept["ids"]), rows), 0)
        vectors = tf.TensorSpec([None, None], tf.int64)

        def score(shared: Any, own: Any) -> Any:
            n = tf.shape(own)[0]
            found = [table.lookup(part) if look_up else part for part in (shared, own)]
            gathered = [tf.reshape(tf.gather(embedding, part), [tf.shape(part)[0], -1]) for part in found]
            z = tf.concat([tf.repeat(gathered[0], n, 0), gathered[1]], 1)
            for i, (weights, bias) in enumerate(layers, 1):
                z = tf.matmul(z, weights) + bias
                z = tf.nn.relu(z) if i < len(layers) else z
            sums = [tf.reduce_sum(tf.gather(linear, part)[:, :, 0], 1) for part in found]
            return tf.sigmoid(z[:, 0] + sums[0] + sums[1])

        self._score = tf.function(score, input_signature=[vectors, vectors]).get_concrete_function()
        self._constant, self._ids = tf.constant, None if look_up else kept["ids"]

    def Predict(self, request: wire.PredictRequest, _context: Any) -> wire.PredictResponse:  # noqa: N802
        columns = [np.array(request.features[name].ids.values, np.int64) for name in NAMES]
        shared, own = np.stack(columns[:SHARED], 1), np.stack(columns[SHARED:], 1)
        if self._ids is not None:
            shared, own = shared % ROWS, own % ROWS
        scores = self._score(self._constant(shared), self._constant(own)).numpy()
        served = wire.Served(model="default", version=1, watermark_us=1, age_s=1.0)
        return wire.PredictResponse(served=served, scores=scores)


def serve_obvious(folder: Path, *, look_up: bool) -> None:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    headrace_pb2_grpc.add_HeadraceServiceServicer_to_server(Obvious(folder, look_up=look_up), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None)


@dataclass(frozen=True)
class Load:
    """What h2load saw."""

    qps: float
    cpu_us: float  # of the server, a call
    p50_us: float
    p99_us: float


@dataclass
class Running:
    """A server process."""

    address: str
    process: subprocess.Popen[str]
    answer_bytes: int = 0

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, request: wire.PredictRequest) -> np.ndarray:
        with grpc.insecure_channel(self.address) as channel:
            answer = headrace_pb2_grpc.HeadraceServiceStub(channel).Predict(request, timeout=60, wait_for_ready=True)
        self.answer_bytes = 5 + answer.ByteSize()
        return np.array(answer.scores, np.float32)

    def load(self, body: Path, calls: int, connections: int, streams: int) -> Load:
        command = ["h2load", "-n", str(calls), "-c", str(connections), "-m", str(streams), "-d", str(body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "--log-file", f"{body}.log"]
        log = Path(f"{body}.log")
        log.unlink(missing_ok=True)
        cpu_s = self.cpu_s()
        out = subprocess.run(
            [*command, f"http://{self.address}{PATH}"], capture_output=True, text=True, check=True
        ).stdout
        cpu_s = self.cpu_s() - cpu_s
        data = int(re.search(r"\((\d+)\) data", out).group(1))
        if data != calls * self.answer_bytes:
            raise SystemExit(f"{calls} calls of {self.address} were answered with {data} bytes:\n{out}")
        qps = float(re.search(r", ([\d.]+) req/s", out).group(1))
        times = np.array([int(line.split("\t")[2]) for line in log.read_text().splitlines()])
        return Load(qps, 1e6 * cpu_s / calls, *np.percentile(times, (50, 99)).tolist())


def started(command: list[str], *, threads: str) -> Running:
    environment = os.environ | {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "OPENBLAS_NUM_THREADS": threads,
    }
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    return Running(process.stdout.readline().strip(), process)


def measure(servers: dict[str, Running], request: wire.PredictRequest, folder: Path) -> None:
    scores = {name: server.ask(request) for name, server in servers.items()}
    apart = float(np.abs(scores["headrace"] - scores["tensorflow"]).max())
    figure("Predict: greatest difference between the two servers' scores", apart, "", "<= 1e-5", holds=apart <= 1e-5)
    message, body = request.SerializeToString(), folder / "body"
    body.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    full: dict[str, list[Load]] = {name: [] for name in servers}
    single: dict[str, list[Load]] = {name: [] for name in servers}
    for turn in range(ROUNDS + 1):
        for name, server in servers.items():
            busy, alone = server.load(body, CALLS[name], 16, 2), server.load(body, CALLS[name] // 4, 1, 1)
            if turn:  # the first is for warming up
                full[name].append(busy)
                single[name].append(alone)
            time.sleep(0.2)
    report(full, single)


def report(full: dict[str, list[Load]], single: dict[str, list[Load]]) -> None:
    def ratio(other: str, value: str) -> float:
        pairs = zip(full["headrace"], full[other], strict=True)
        return statistics.median(getattr(ours, value) / getattr(theirs, value) for ours, theirs in pairs)

    for name, loads in full.items():
        for value, unit in (("qps", "/s"), ("cpu_us", "us"), ("p99_us", "us")):
            found = statistics.median(getattr(load, value) for load in loads)
            figure(f"Predict, 50 candidates, 32 calls at a time, {name}: {value}", found, unit, "", holds=True)
        for value in ("p50_us", "p99_us"):
            found = statistics.median(getattr(load, value) for load in single[name])
            figure(f"Predict, 50 candidates, one call at a time, {name}: {value}", found, "us", "", holds=True)
    qps, cpu = ratio("tensorflow", "qps"), ratio("tensorflow", "cpu_us")
    figure(
        "Predict, 50 candidates, 1 M rows: QPS beside grpcio + TensorFlow function",
        qps,
        "x",
        ">= 2.5",
        holds=qps >= 2.5,
    )
    figure("Predict: server CPU per call beside it", cpu, "x", "<= 0.4", holds=cpu <= 0.4)
    bare = ratio("tensorflow, no look-up", "qps")
    figure("Predict: QPS beside one whose ids are row numbers", bare, "x", "", holds=True)


def main(arguments: list[str]) -> int:
    if arguments:
        serve_obvious(Path(arguments[0]), look_up=arguments[1] == "look-up")
        return 0
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        request = make(folder)
        other = [sys.executable, str(HERE / "bench_predict.py"), name]
        servers = {
            "headrace": started([sys.executable, "-c", SERVE, str(folder / "root")], threads="1"),
            "tensorflow": started([*other, "look-up"], threads="2"),
            "tensorflow, no look-up": started([*other, "row-numbers"], threads="2"),
        }
        try:
            measure(servers, request, folder)
        finally:
            for server in servers.values():
                server.process.communicate()
    return 1 if MISSED else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
