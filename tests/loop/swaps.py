"""Swaps versions under calls, each answer of which says by its value what made it. One JSON line.

    python tests/loop/swaps.py --swaps 1000 --predictions 1000000

A publisher commits deltas (a random part of the rows, a new tower), rollbacks, and snapshots (the delta is lost, so
that the version is built from the snapshot that the next record names). The server that `headrace serve` runs follows
in a process of its own. Four clients in processes of their own ask again and again and note each different answer of a
version, and the order of versions. Rows and tower of every version are drawn anew, and what they score is worked out
here with numpy: an answer that has a row or the tower of another version than it names has another value.

errors     calls that failed
mixed      answers, each different one counted once for a client, that are not those of the version they name
back       answers from an older version than the one before, of the same client. A rollback is a new version
unserved   versions that the server did not come to

`--in-place` has the server write rows where they are: the twin.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from handmade import Loses, Publisher, linear_tower

from headrace.delta import TableSpec
from headrace.features import Feature
from headrace.ids import id_of
from headrace.loop import open_loop
from headrace.schema import Schema
from headrace.store import open_store
from paramserver.client import Ids, values_of
from protos import headrace_pb2 as wire

CLIENTS, ITEMS, OTHERS = 4, 20, 2_000
FEATURES = ("user", "item")
SCHEMA = Schema(tuple(Feature(name, "id", (name,)) for name in FEATURES))
SPECS = (TableSpec("linear", 1, "f32", FEATURES), TableSpec("embedding", 4, "f32", FEATURES))
ASKED = [id_of("user", "u"), *(id_of("item", f"i{i}") for i in range(ITEMS))]
PREDICT = "/headrace.v1.HeadraceService/Predict"
KINDS = ("delta", "rollback", "snapshot")
TOLERANCE = 1e-5
LONGEST_S = 60.0


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--swaps", type=int, default=100)
    options.add_argument("--predictions", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--in-place", action="store_true")
    options.add_argument("--serve", type=Path)
    options.add_argument("--call", nargs=3, metavar=("ADDRESS", "COUNTS", "NUMBER"))
    given = options.parse_args()
    if given.serve is not None:
        return serve(given.serve, in_place=given.in_place)
    if given.call is not None:
        return call(given.call[0], Path(given.call[1]), int(given.call[2]))
    with tempfile.TemporaryDirectory() as folder:
        result = swapped(Path(folder), given.swaps, given.predictions, given.seed, in_place=given.in_place)
    print(json.dumps({"seed": given.seed, **result}))
    return 1 if any(result[name] for name in ("errors", "mixed", "back", "unserved")) else 0


def serve(root: Path, *, in_place: bool) -> int:
    """Until stdin ends."""
    from paramserver.server import Server

    if in_place:
        _write_in_place()
    settings: Any = SimpleNamespace(serve=SimpleNamespace(host="127.0.0.1", port=0, max_candidates=1000, lane=True))
    with Server(open_loop(open_store(str(root)), "swaps"), settings) as server:
        print(server.address, flush=True)
        sys.stdin.read()
    return 0


def _write_in_place() -> None:
    from paramserver.generation import Generation, ServingTable

    changed = ServingTable.changed

    def in_place(table: ServingTable, change: Any) -> ServingTable:
        at = table.index.find(change.ids)
        table.slab.values[at[at >= 0]] = change.decoded()[at >= 0]
        return changed(table, change)

    ServingTable.changed = in_place  # type: ignore[method-assign]
    Generation.check = lambda _: None  # type: ignore[method-assign]


def call(address: str, counts: Path, number: int) -> int:
    """Asks until stdin ends, the first client with text and the others with ids; prints what came."""
    import threading

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    features: dict[str, Any] = {"user": "u", "item": [f"i{i}" for i in range(ITEMS)]}
    if number:
        features = {"user": Ids(ASKED[:1]), "item": Ids(ASKED[1:])}
    values = {name: values_of(name, value) for name, value in features.items()}
    request = wire.PredictRequest(features=values, schema_fingerprint=SCHEMA.fingerprint if number else "")
    body, done = request.SerializeToString(), np.memmap(counts, np.int64, "r+", shape=(CLIENTS,))
    answers: dict[int, Counter[bytes]] = {}
    errors: Counter[str] = Counter()
    back, last = [], -1
    with grpc.insecure_channel(address) as channel:
        predict = channel.unary_unary(PREDICT)
        while not ended.is_set():
            try:
                answer = wire.PredictResponse.FromString(predict(body, timeout=30, wait_for_ready=True))
            except grpc.RpcError as error:
                errors[error.code().name] += 1
                continue
            version = answer.served.version
            answers.setdefault(version, Counter())[np.array(answer.scores, "<f4").tobytes()] += 1
            if version < last:
                back.append([last, version])
            last = version
            done[number] += 1
    found = {version: [scores.hex() for scores in different] for version, different in answers.items()}
    print(json.dumps({"calls": int(done[number]), "errors": errors, "back": back, "answers": found}))
    return 0


class Echo:
    """Commits versions whose rows and towers are drawn anew, and knows what each scores."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        store = open_store(str(root))
        open_loop(store, "swaps")
        self.publisher = _Recent(store, schema=SCHEMA, specs=SPECS)
        self.scores: dict[int, np.ndarray] = {}
        self._rng = rng
        self._ids = [*ASKED, *range(OTHERS)]
        self._rows: dict[str, dict[int, Any]] = {"linear": {}, "embedding": {}}
        self._weights = (0.0, 0.0)
        self._kept: dict[int, Any] = {}
        self._lost: set[int] = set()  # what only a snapshot leads to; no record before it names one
        self.publisher.start()
        self._note()
        self.delta(1.0)

    def delta(self, share: float | None = None, *, lost: bool = False) -> None:
        """About `share` of the rows, the user's always, and some of them removed."""
        rng, share = self._rng, self._rng.choice([0.05, 0.5, 1.0]) if share is None else share
        changed: dict[str, dict[int, Any]] = {}
        for name, width in (("linear", 1), ("embedding", 4)):
            ids = [id_ for id_ in self._ids if id_ == ASKED[0] or rng.random() < share]
            changed[name] = {
                id_: None if rng.random() < 0.02 else [rng.uniform(-1, 1) for _ in range(width)] for id_ in ids
            }
            both = self._rows[name] | changed[name]
            self._rows[name] = {id_: row for id_, row in both.items() if row is not None}
        self._weights = (rng.uniform(0.2, 1), rng.uniform(-1, 1))
        tower = linear_tower(len(FEATURES), 4, 0, weight=self._weights[0], bias=self._weights[1])
        store = self.publisher.store
        if lost:
            self.publisher.store = Loses(store)
        self.publisher.delta(changed, tower=tower)
        self.publisher.store = store
        self._note()

    def snapshot(self) -> None:
        """Two versions: one whose delta is lost, and one that names its snapshot."""
        self._lost.add(self.publisher.next)
        self.delta(lost=True)
        self.publisher.snapshot()
        self.publisher.hold()
        self._note()

    def rollback(self) -> None:
        to = self._rng.choice([version for version in sorted(self._kept)[:-1] if version not in self._lost])
        self.publisher.rollback(to)
        self._rows, self._weights = copy.deepcopy(self._kept[to])
        self._note()

    def _note(self) -> None:
        """What the newest version scores."""
        version = self.publisher.next - 1
        self._kept[version] = copy.deepcopy((self._rows, self._weights))
        self.publisher.keep(version)
        for old in sorted(self._kept)[:-12]:
            del self._kept[old]
        self.scores[version] = self._scores() if any(self._rows.values()) else np.full(ITEMS, 0.2)

    def _scores(self) -> np.ndarray:
        linear = np.array([sum(self._rows["linear"].get(id_, [0.0])) for id_ in ASKED])
        embedding = np.array([sum(self._rows["embedding"].get(id_, [0.0])) for id_ in ASKED])
        each = linear + self._weights[0] * embedding
        return 1 / (1 + np.exp(-(each[0] + each[1:] + self._weights[1])))


class _Recent(Publisher):
    """Keeps the newest published tables, so that a rollback does not fold the log from its start."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._recent: dict[int, Any] = {}

    def keep(self, version: int) -> None:
        self._recent[version] = copy.deepcopy(self._published)
        self.deltas.clear()
        for old in sorted(self._recent)[:-13]:
            del self._recent[old]

    def table(self, version: int) -> Any:
        return copy.deepcopy(self._recent[version])


def swapped(folder: Path, swaps: int, predictions: int, seed: int, *, in_place: bool) -> dict[str, Any]:
    rng = random.Random(seed)
    echo = Echo(folder / "root", rng)
    counts = folder / "counts"
    counts.write_bytes(bytes(8 * CLIENTS))
    server = _python("--serve", str(folder / "root"), *(["--in-place"] if in_place else []))
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    clients: list[subprocess.Popen[str]] = []
    kinds: Counter[str] = Counter()
    unserved, began = 0, time.monotonic()
    try:
        with grpc.insecure_channel(address) as channel:
            if not _served(channel, echo.publisher.next - 1):
                raise SystemExit("the server does not come to serve the first version")
            clients += [_python("--call", address, str(counts), str(number)) for number in range(CLIENTS)]
            _called(counts, CLIENTS)
            began = time.monotonic()
            for swap in range(swaps):
                kind = KINDS[swap] if swap < len(KINDS) else rng.choices(KINDS, [7, 2, 1])[0]
                getattr(echo, kind)()
                kinds[kind] += 1
                unserved += not _served(channel, echo.publisher.next - 1)
                if unserved or any(client.poll() is not None for client in clients):
                    break
                _called(counts, predictions * (swap + 1) // swaps)
        found = [json.loads(client.communicate()[0]) for client in clients]
    finally:
        for client in clients:
            client.kill()
        server.communicate()
    answers = [(int(v), scores) for one in found for v, each in one["answers"].items() for scores in each]
    calls, took_s = sum(one["calls"] for one in found), time.monotonic() - began
    return {
        "swaps": sum(kinds.values()) - unserved,
        "kinds": dict(kinds),
        "clients": CLIENTS,
        "predictions": calls,
        "per_s": round(calls / took_s),
        "versions_seen": len({version for version, _ in answers}),
        "errors": sum(sum(one["errors"].values()) for one in found),
        "codes": dict(sum((Counter(one["errors"]) for one in found), Counter())),
        "mixed": sum(not _agrees(scores, echo.scores[version]) for version, scores in answers),
        "back": sum(len(one["back"]) for one in found),
        "unserved": unserved,
    }


def _agrees(scores: str, expected: np.ndarray) -> bool:
    found = np.frombuffer(bytes.fromhex(scores), "<f4")
    return found.shape == expected.shape and float(np.abs(found - expected).max()) <= TOLERANCE


def _served(channel: grpc.Channel, version: int) -> bool:
    """Whether the server comes to serve `version`."""
    status = channel.unary_unary("/headrace.v1.HeadraceService/Status")
    until_s = time.monotonic() + LONGEST_S
    while time.monotonic() < until_s:
        if wire.StatusResponse.FromString(status(b"", timeout=30, wait_for_ready=True)).served.version >= version:
            return True
        time.sleep(0.005)
    return False


def _called(counts: Path, calls: int) -> None:
    """Returns once the clients together have made so many calls."""
    done = np.memmap(counts, np.int64, "r", shape=(CLIENTS,))
    while done.sum() < calls:
        time.sleep(0.002)


def _python(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    sys.exit(main())
