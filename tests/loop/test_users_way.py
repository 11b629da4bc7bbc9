"""The way users come: the commands themselves, as processes, over one growing file of events.

`serve` answers version 0 at once; `pipeline run -- --runner=DirectRunner` and a resident `train --watch` make versions;
a client made from freshly generated stubs sees them arrive without a restart; `retrain` is answered by the resident
trainer; `track` shows all versions in MLflow.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(280)

ROOT = Path(__file__).parents[2]
START_MS = 1_700_000_000_000

SETTINGS = """
[loop]
name = "feed"
prior = 0.3
[streams.impression]
source = "events.jsonl"
where = {{ type = "impression" }}
id = "request"
time = "at"
time_unit = "ms"
[streams.click]
source = "events.jsonl"
where = {{ type = "click" }}
id = "request"
time = "at"
time_unit = "ms"
[label]
mode = "implicit"
wait_s = 2
attribution_s = 20
[features]
user = {{ kind = "id" }}
item = {{ kind = "id" }}
price = {{ kind = "number", transform = "log1p" }}
[pipeline]
tick_s = 0.2
disorder_s = 1
idle_s = 0.5
[model]
kind = "lr"
[train]
snapshot_every = 1
[serve]
port = {port}
"""

CLIENT = """
import json, sys, time
import grpc
from fresh import headrace_pb2 as wire, headrace_pb2_grpc as stubs

channel = grpc.insecure_channel(sys.argv[1])
stub = stubs.HeadraceServiceStub(channel)
features = {
    "user": wire.Values(strings=wire.Strings(values=["u1"])),
    "item": wire.Values(strings=wire.Strings(values=["good", "bad"])),
    "price": wire.Values(floats=wire.Floats(values=[2.0])),
}
while True:
    try:
        answer = stub.Predict(wire.PredictRequest(features=features), timeout=5)
        print(json.dumps({"version": answer.served.version, "scores": list(answer.scores)}), flush=True)
    except grpc.RpcError as error:
        print(json.dumps({"error": error.code().name, "text": error.details()}), flush=True)
    time.sleep(0.1)
"""


class Commands:
    """Starts commands in a folder and ends exactly those."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._files: list[IO[str]] = []
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._environment.pop("HEADRACE_DEBUG", None)

    def start(self, name: str, *command: str) -> None:
        out = (self.folder / f"{name}.out").open("w")
        err = (self.folder / f"{name}.err").open("w")
        self._files += [out, err]
        self._running[name] = subprocess.Popen(
            command, cwd=self.folder, stdout=out, stderr=err, text=True, env=self._environment
        )

    def headrace(self, name: str, *arguments: str) -> None:
        self.start(name, sys.executable, "-m", "headrace.cli", *arguments)

    def run(self, *arguments: str, code: int = 0) -> Any:
        """One command to its end; its JSON."""
        command = [sys.executable, "-m", "headrace.cli", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=200, check=False, env=self._environment
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def said(self, name: str, kind: str = "err") -> str:
        return (self.folder / f"{name}.{kind}").read_text()

    def alive(self) -> None:
        for name, process in self._running.items():
            assert process.poll() is None, f"{name} ended with {process.returncode}: {self.said(name)}"

    def stop(self, name: str, number: int = signal.SIGINT) -> int:
        process = self._running.pop(name)
        process.send_signal(number)
        return process.wait(30)

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
        for file in self._files:
            file.close()


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    made = Commands(tmp_path)
    yield made
    made.close()


class Feed:
    """Appends impressions, and clicks on three of four `good` items and few others, a second of clock each 20."""

    def __init__(self, path: Path) -> None:
        self._path, self._random, self._count = path, random.Random(7), 0

    def append(self, impressions: int) -> None:
        lines = []
        for _ in range(impressions):
            at, request = START_MS + 50 * self._count, f"r{self._count}"
            item = self._random.choice(["good", "bad"])
            lines.append(
                {
                    "type": "impression",
                    "request": request,
                    "at": at,
                    "user": f"u{self._random.randrange(20)}",
                    "item": item,
                    "price": self._random.uniform(1, 9),
                }
            )
            if self._random.random() < (0.75 if item == "good" else 0.05):
                lines.append({"type": "click", "request": request, "at": at + 700})
            self._count += 1
        with self._path.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, check: Callable[[], Any], commands: Commands, seconds: float = 120) -> Any:
    """The first true value of `check`; fails when a command ends or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := check():
            return found
        commands.alive()
        time.sleep(0.1)
    said = {file.name: file.read_text()[-2000:] for file in commands.folder.glob("*.err")}
    raise AssertionError(f"no {what} after {seconds} s; {said}")


def fresh_stubs(folder: Path) -> None:
    (folder / "fresh").mkdir()
    shutil.copy(ROOT / "protos" / "headrace.proto", folder / "fresh" / "headrace.proto")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--grpc_python_out=."]
    subprocess.run([*command, "fresh/headrace.proto"], cwd=folder, check=True, timeout=60)
    (folder / "client.py").write_text(CLIENT)


def test_events_become_predictions_without_a_restart(commands: Commands) -> None:
    pytest.importorskip("grpc_tools")
    folder, port = commands.folder, free_port()
    (folder / "headrace.toml").write_text(SETTINGS.format(port=port))
    feed = Feed(folder / "events.jsonl")
    feed.append(400)
    fresh_stubs(folder)

    def answers() -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in commands.said("client", "out").splitlines(keepends=True) if line[-1] == "\n"
        ]

    def answered(version: int) -> dict[str, Any] | None:
        last = answers()[-1:]
        return last[0] if last and last[0].get("version", -1) >= version else None

    commands.headrace("train", "train", "--watch")
    commands.headrace("serve", "serve")
    commands.start("client", sys.executable, "client.py", f"127.0.0.1:{port}")
    first = until("answer", lambda: answered(0), commands, 30)
    assert first["scores"] == pytest.approx([0.3, 0.3], abs=1e-6)

    commands.headrace("pipeline", "pipeline", "run", "--", "--runner=DirectRunner")
    learned = until("version 1", lambda: answered(1), commands)
    feed.append(600)
    newer = until("newer version", lambda: answered(learned["version"] + 1), commands)
    until("better scores", lambda: (a := answers()[-1])["scores"][0] > a["scores"][1] + 0.2, commands)
    assert "FnApiRunner" in commands.said("pipeline")

    made = commands.run("retrain", "--json", "--timeout", "60")
    assert made["version"] > newer["version"]
    until("the version asked for", lambda: answered(made["version"]), commands)
    cli = commands.run("predict", "user=u1", "item=good", "price=2", "--json")
    assert cli["version"] >= made["version"]
    same = until("the same version", lambda: [a for a in answers() if a.get("version") == cli["version"]], commands)
    assert cli["scores"][0] == pytest.approx(same[0]["scores"][0], abs=1e-6)

    status = commands.run("status", "--json")
    assert {one["role"] for one in status["processes"] if one["living"]} >= {"pipeline", "trainer", "server"}
    assert commands.run("log", "verify", "--deep", "--json")["ok"]
    versions = [one.get("version") for one in answers() if "version" in one]
    assert versions == sorted(versions)

    for name in ("pipeline", "train", "serve"):
        assert commands.stop(name) == 0, commands.said(name)
        said = commands.said(name)
        assert "to go on: headrace" in said
        assert not [word for word in ("Traceback", "absl", "cudart", "apitools", "XNNPACK", "I0000") if word in said], (
            said
        )
    commands.stop("client", signal.SIGTERM)

    head = commands.run("versions", "list", "--json")["versions"][0]["version"]
    assert commands.run("track", "--once", "--json")["logged"] == head + 1
    assert commands.run("track", "--once", "--json")["logged"] == 0
    assert tracked(folder) == list(range(head + 1))


def tracked(folder: Path) -> list[int]:
    """The steps that MLflow's own database has."""
    import sqlite3

    with sqlite3.connect(folder / "mlflow.db") as database:
        rows = database.execute("select distinct step from metrics where key = 'published_rows' order by step")
        steps = [int(row[0]) for row in rows]
        champions = database.execute(
            "select count(*) from registered_model_aliases where alias = 'champion'"
        ).fetchone()
    database.close()
    assert champions[0] == 1
    return steps
