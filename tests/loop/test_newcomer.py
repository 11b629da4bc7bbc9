"""The first hour with events that headrace has never seen: every command as it is typed, nobody reads the source.

A Parquet file and a CSV of which one line in a hundred is broken, in an empty folder: init, inspect, backtest, up,
predict, rollback, everything killed, up again. Each step is what the output of the one before, or the README, says.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS = 12_000
ROOT = Path(__file__).parents[2]


def events(rng: random.Random) -> list[dict[str, Any]]:
    """Five days of ads that end an hour ago; a click comes two minutes later on average."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=5, hours=1)
    liking = [rng.gauss(-1.5, 1.5) for _ in range(60)]
    rows = []
    for k in range(ROWS):
        at = start + timedelta(seconds=k * 5 * 86_400 / ROWS)
        campaign = rng.randrange(60)
        clicked = rng.random() < 1 / (1 + math.exp(-liking[campaign]))
        after = at + timedelta(seconds=round(rng.expovariate(1 / 120)) + 1)
        rows.append(
            {
                "request_id": f"q{k}",
                "shown_at": at,
                "clicked_at": after if clicked else None,
                "user_id": rng.randrange(400),
                "campaign": f"c{campaign}",
                "bid": round(rng.random() * 3, 2),
            }
        )
    return rows


def write_csv(path: Path, rng: random.Random) -> None:
    rows = events(rng)
    lines = [",".join(rows[0])]
    for row in rows:
        values = (v.isoformat() if isinstance(v, datetime) else "" if v is None else str(v) for v in row.values())
        lines.append(",".join(values))
        if rng.random() < 0.01:
            lines.append(rng.choice(["garbage", "q1,2026", "q,,,,,", "q7,yesterday,,1,c1,1", "<html>"]))
    path.write_text("\n".join(lines) + "\n")


def write_parquet(path: Path, rng: random.Random) -> None:
    pq.write_table(pa.Table.from_pylist(events(rng)), path)


class Newcomer:
    """Types commands in a folder, and counts them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.typed = folder, 0
        self.up: Any = None
        self.killed: set[int] = set()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._environment = {**os.environ, "HEADRACE__SERVE__PORT": str(port)}

    def type(self, *words: str) -> str:
        self.typed += 1
        command = [sys.executable, "-m", "headrace.cli", *words]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False, env=self._environment
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def start_up(self) -> None:
        self.typed += 1
        with (self.folder / "up.out").open("a") as out:
            self.up = subprocess.Popen(
                [sys.executable, "-m", "headrace.cli", "up"],
                cwd=self.folder,
                stdout=out,
                stderr=out,
                env=self._environment,
                start_new_session=True,
            )

    def look(self) -> dict[str, Any]:
        """What a table on the screen shows."""
        command = [sys.executable, "-m", "headrace.cli", "status", "--json"]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, env=self._environment
        )
        state = json.loads(done.stdout)
        state["processes"] = [one for one in state["processes"] if one["pid"] not in self.killed]
        return state

    def wait(self, until: Any) -> dict[str, Any]:
        end = time.monotonic() + 150
        while time.monotonic() < end:
            assert self.up.poll() is None, (self.folder / "up.out").read_text()
            state = self.look()
            if until(state):
                return state
            time.sleep(0.5)
        raise AssertionError((state, (self.folder / "up.out").read_text()))

    def kill(self) -> None:
        """kill -9 of `up` and of all that it started."""
        pids = [process["pid"] for process in self.look()["processes"] if process["living"]]
        self.killed = {*pids, self.up.pid}
        for pid in self.killed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.up.wait()


def served(state: dict[str, Any]) -> int:
    servers = [p["info"] for p in state["processes"] if p["role"] == "server" and p["living"]]
    return max((one["version"] or 0 for one in servers if one["watermark_us"]), default=0)


@pytest.mark.parametrize(("name", "write"), [("ads.parquet", write_parquet), ("ads.csv", write_csv)])
def test_the_first_hour(tmp_path: Path, name: str, write: Any) -> None:
    write(tmp_path / name, random.Random(7))
    user = Newcomer(tmp_path)
    try:
        assert "headrace config check && headrace backtest" in user.type("init", "--from", name)
        looked = user.type("inspect")
        assert f"of {ROWS:,} impressions have feedback" in looked
        assert ("refused" in looked) == (name == "ads.csv")
        curve = user.type("backtest", "--every", "frozen,1d")
        assert "lower log-loss" in curve or "higher log-loss" in curve
        user.start_up()
        first = served(user.wait(lambda state: served(state) > 0 and not state["waiting_rows"]))
        answer = user.type("predict", "user_id=7", "campaign=c3", "bid=1.5")
        assert "version" in answer
        back = json.loads(user.type("versions", "list", "--json"))
        assert back
        user.type("rollback", "0")
        back_up_and_restore(user)
        after = served_any(user.wait(lambda state: served_any(state) > first))
        user.kill()
        user.start_up()
        again = user.wait(lambda state: served_any(state) >= after)
        assert again["versions"]["head"] >= after
        assert "version" in user.type("predict", "user_id=7", "campaign=c3", "bid=1.5")
        assert user.typed <= 9  # and `make demo`
    finally:
        if user.up is not None and user.up.poll() is None:
            user.up.send_signal(signal.SIGINT)
            user.up.wait(60)


def test_make_demo_in_a_fresh_copy_shows_a_model_getting_fresher(tmp_path: Path) -> None:
    """The very first command: it installs, runs the loop, and says what to do next when it is stopped."""
    copy, said = tmp_path / "headrace", tmp_path / "said"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", ".*_cache", "__pycache__", ".hypothesis")
    )
    with said.open("w") as out:
        make = subprocess.Popen(
            ["make", f"PYTHON={sys.executable}", "demo"], cwd=copy, stdout=out, stderr=out, start_new_session=True
        )
    try:
        until_s = time.monotonic() + 400
        while not re.search(r"^ +\d+ +\d+ +[\d.]+ +0\.\d+ +0\.\d+ +0\.\d+$", said.read_text(), re.MULTILINE):
            assert make.poll() is None, said.read_text()
            assert time.monotonic() < until_s, said.read_text()
            time.sleep(0.5)
    finally:
        os.killpg(make.pid, signal.SIGINT)
        make.wait(60)
    assert "headrace init --from YOUR_EVENTS" in said.read_text()


def back_up_and_restore(user: Newcomer) -> None:
    """As docs/recovery.md says: logs first, then everything else, while the loop runs. The copy goes on by itself."""
    root, copy = user.folder / "loop", user.folder / "copy"
    for log in sorted(root.rglob("log")):
        shutil.copytree(log, copy / log.relative_to(root))
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.parent.name != "log"):
        (copy / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy / path.relative_to(root))
    shutil.rmtree(copy / "status")  # of processes that do not run there
    head = max(path.name for path in (copy / "models" / "default" / "log").iterdir())
    for words in (["log", "verify", "--deep"], ["pipeline", "run", "--once"], ["versions", "show", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "headrace.cli", *words],
            cwd=user.folder,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HEADRACE__LOOP__ROOT": str(copy)},
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert json.loads(done.stdout)["version"] == int(head.partition(".")[0])


def served_any(state: dict[str, Any]) -> int:
    servers = [p["info"] for p in state["processes"] if p["role"] == "server" and p["living"]]
    return max((one["version"] if one["version"] is not None else -1 for one in servers), default=-1)
