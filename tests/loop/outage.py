"""MLflow is away while versions are made: nothing waits for it, and afterwards each version is logged once.

    python tests/loop/outage.py --versions 20

refused    nothing listens at `track.uri`
hung       something accepts connections there and never answers
full       an sqlite file that cannot grow or change (the tracker's limit of file sizes: what a full disk does to it)

A trainer makes half of the versions alone, while the address is watched, and the other half beside `headrace track`,
which is a process of its own and by then in trouble. Then MLflow comes back: a real server at that address, or room.

connections   to the address by the trainer; `tracker` shows that they would have been seen
imported      whether the trainer's process has loaded MLflow
alone_s, beside_s   seconds a version took, median
once          every version is a step of its metric once, every snapshot one model version

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from kill_trainer import _append, _loop, _settings
from settings import ITEM, PRICE, UNREAD, USER, settings_text

from headrace import status
from headrace.store import open_store
from headrace.version import VersionRecord
from training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAYS = ("refused", "hung", "full")
LONGEST_S = 240.0


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--versions", type=int, default=20)
    options.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    options.add_argument("--seed", type=int, default=int(time.time()))
    given = options.parse_args()
    found = {}
    for way in given.ways:
        with tempfile.TemporaryDirectory() as folder:
            found[way] = away(Path(folder), way, given.versions, random.Random(given.seed))
    imported = "mlflow" in sys.modules
    print(json.dumps({"seed": given.seed, "versions": given.versions, "imported": imported, "ways": found}))
    right = all(one["once"] and one["connections"] == 0 and one["told"] for one in found.values())
    return 0 if right and not imported else 1


class Address:
    """A port of this machine; `hung`: accepts and never answers. Counts who comes."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.connections = 0
        self._held: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def hang(self) -> None:
        self._accepting.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for one in self._held:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            self._held.append(connection)


def away(folder: Path, way: str, versions: int, rng: random.Random) -> dict[str, Any]:
    address, database = Address(), f"sqlite:///{folder}/mlflow.db"
    if way == "refused":
        address.close()
    else:
        address.hang()
    uri = database if way == "full" else f"http://127.0.0.1:{address.port}"
    text = settings_text(
        USER,
        ITEM,
        PRICE,
        'both = { kind = "cross", of = ["user", "item"] }',
        loop={"name": "torture", "root": str(folder / "loop")},
        streams=UNREAD["streams"],
        label={"wait_s": 1, "attribution_s": 1},
        track={"uri": uri, "models": 1000, "models_every_s": 0},
    )
    (folder / "headrace.toml").write_text(text)
    settings = _settings(folder / "loop").replace("train", snapshot_every=5)
    loop = _loop(folder / "loop")
    trainer, head = Trainer(loop, settings), None

    def made(count: int) -> float:
        nonlocal head
        took = []
        for _ in range(count):
            head = _append(loop, head, rng)
            began = time.monotonic()
            assert trainer.step() is not None
            took.append(time.monotonic() - began)
        return statistics.median(took)

    with contextlib.ExitStack() as ending:
        made(2)  # the first ones compile
        if way == "full":  # the file is made while there is room
            tracker = ending.enter_context(_tracker(folder))
            _until(lambda: _beat(folder).get("version") == trainer.record.version)
            _limit(tracker.pid, 4_096)
        alone_s, connections = made(versions // 2), address.connections
        if way != "full":
            tracker = ending.enter_context(_tracker(folder))
        _until(lambda: bool(_beat(folder).get("problem")))
        beside_s, told = made(versions - versions // 2), _beat(folder)["problem"]
        came = address.connections
        if way == "full":
            _limit(tracker.pid, resource.RLIM_INFINITY)
        else:
            address.close()
            ending.enter_context(_mlflow(folder, address.port, database))
        newest = trainer.record.version
        _until(lambda: _beat(folder).get("version") == newest and not _beat(folder)["problem"])
    trainer.close()
    log = loop.version_log()
    records = [VersionRecord.from_entry(log.read(seq)) for seq in log.seqs()]
    return {
        "versions": len(records),
        "connections": connections,
        "tracker": came - connections,
        "told": told,
        "alone_s": round(alone_s, 3),
        "beside_s": round(beside_s, 3),
        "once": _logged(database) == _expected(records),
    }


def _expected(records: list[VersionRecord]) -> dict[str, list[int]]:
    snapshots = {record.snapshot.of for record in records if record.snapshot is not None}
    return {"steps": [record.version for record in records], "snapshots": sorted(snapshots)}


def _logged(uri: str) -> dict[str, list[int]]:
    """What MLflow has, read by a process of its own."""
    script = """
import json, sys
from training.registry import VERSION
from training.tracking import open_client
client = open_client(sys.argv[1])
experiments = [one.experiment_id for one in client.search_experiments() if one.name == "torture"]
runs = client.search_runs(experiments)
steps = sorted(m.step for run in runs for m in client.get_metric_history(run.info.run_id, "published_rows"))
snapshots = sorted(int(one.tags[VERSION]) for one in client.search_model_versions("name = 'torture'"))
print(json.dumps({"steps": steps, "snapshots": snapshots}))
"""
    done = subprocess.run([sys.executable, "-c", script, uri], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _beat(folder: Path) -> dict[str, Any]:
    """What the tracker's heartbeat says."""
    beats = status.heartbeats(open_store(str(folder / "loop")))
    return next((beat.info for beat in beats if beat.role == "tracker"), {})


def _limit(pid: int, size: float) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (int(size), hard))


@contextlib.contextmanager
def _tracker(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with _process(folder, "-m", "headrace.cli", "track", "-c", str(folder / "headrace.toml")) as tracker:
        yield tracker


@contextlib.contextmanager
def _mlflow(folder: Path, port: int, database: str) -> Iterator[subprocess.Popen[bytes]]:
    at = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    kept = ["--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts")]
    with _process(folder, "-m", "mlflow", "server", *at, *kept) as server:
        yield server


@contextlib.contextmanager
def _process(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of its own session, which ends with all its children."""
    environment = os.environ | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # of no use here, and several processes
    with (folder / "talk.log").open("ab") as talk:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, stdout=talk, stderr=talk, env=environment, start_new_session=True
        )
    try:
        yield process
    except BaseException:
        print((folder / "talk.log").read_text()[-3_000:], file=sys.stderr)
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _until(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + LONGEST_S
    while not holds():
        if time.monotonic() > until_s:
            raise SystemExit("nothing happened for too long")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
