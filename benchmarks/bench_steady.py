"""Does anything grow? `headrace up` for half an hour at 2,000 lines a second, looked at every few seconds.

    python benchmarks/bench_steady.py [--minutes 30] [--rate 2000]

Settings of examples/demo, but retention, checkpoints and snapshots so short that all of them come round many times in
the run; 50 calls a second are asked meanwhile. Of each process are noted memory (PSS: what would be free without it),
open files and threads; of the root, bytes and files.

The rule: the first third warms up. A value grows if its median in the last third is above its median in the middle
third by more than a tenth, and by more than FLOORS, which is what one look differs from the next. What began with
nothing and grows for ever at a constant pace gains two thirds. Ids live a twelfth of the run. Retention comes round
once a minute, so that what the root holds goes up and down: a third should have several passes, and runs of less than a
quarter of an hour say little of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from bench_freshness import EXAMPLE  # noqa: E402
from bench_server import MISSED, figure  # noqa: E402

from headrace import status  # noqa: E402
from headrace.errors import HeadraceError  # noqa: E402
from headrace.store import open_store  # noqa: E402
from paramserver.client import Client  # noqa: E402

LOOK_S = 2.0
CALLS_PER_S = 50
ROLES = ("up", "server", "pipeline", "trainer", "tracker")
FLOORS = {"memory": 16.0, "open files": 4, "threads": 3, "bytes": 8.0, "files": 50}
UNITS = {"memory": "MB", "bytes": "MB"}


class Watch:
    """What is seen of a running loop, by name and kind of value."""

    def __init__(self, root: Path) -> None:
        self.seen: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.versions: list[int] = []
        self.ages_s: list[float] = []
        self.restarts = 0
        self._store, self._root = open_store(str(root)), root

    def look(self) -> None:
        pids = {}
        for beat in status.heartbeats(self._store):
            if beat.role in ROLES:
                pids[beat.role] = beat.pid
            if beat.role == "up":
                children = beat.info.get("children", {})
                self.restarts = max(self.restarts, sum(child["restarts"] for child in children.values()))
            if beat.role == "server" and beat.info.get("age_s") is not None:
                self.versions.append(beat.info["version"])
                self.ages_s.append(beat.info["age_s"])
        for role, pid in pids.items():
            try:
                self._process(role, Path(f"/proc/{pid}"))
            except (FileNotFoundError, ProcessLookupError):
                continue
        files = [path for path in self._root.rglob("*") if path.is_file()]
        self.seen["root", "files"].append(len(files))
        self.seen["root", "bytes"].append(sum(_size(path) for path in files) / 1e6)

    def _process(self, role: str, proc: Path) -> None:
        kept = dict(line.split(":", 1) for line in (proc / "smaps_rollup").read_text().splitlines()[1:])
        self.seen[role, "memory"].append(int(kept["Pss"].split()[0]) / 1e3)
        self.seen[role, "open files"].append(len(list((proc / "fd").iterdir())))
        self.seen[role, "threads"].append(len(list((proc / "task").iterdir())))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # collected meanwhile
        return 0


def growth(values: list[float]) -> tuple[float, float]:
    """Medians of the middle and of the last third.

    >>> growth([9, 1, 1, 2, 2, 2, 3, 3, 3])
    (2, 3)
    """
    third = len(values) // 3
    return statistics.median(values[third : 2 * third]), statistics.median(values[-third:])


def settings_of(minutes: float) -> dict[str, str]:
    """Retention, checkpoints and lives of ids that come round a dozen times."""
    kept_s = str(round(60 * minutes / 12, 1))
    names = ["RETENTION__VERSIONS_S", "RETENTION__ROLLBACK_S", "RETENTION__HELD_S", "TRAIN__CHECKPOINT_EVERY_S"]
    names += [f"FEATURES__{feature}__TTL" for feature in ("USER", "ITEM", "AUTHOR", "USER_X_TOPIC", "USER_X_AUTHOR")]
    return {f"HEADRACE__{name}": kept_s for name in names} | {"HEADRACE__TRAIN__SNAPSHOT_EVERY": "20"}


def call(root: Path, ended: threading.Event, counts: dict[str, int]) -> None:
    """Asks the server of `root` until `ended`."""
    client: Client | None = None
    n = 0
    while not ended.wait(1 / CALLS_PER_S):
        try:
            if client is None:
                client = _client(root)
                continue
            n += 1
            items = [f"i{(n + k) % 500}" for k in range(20)]
            client.predict({"user": f"u{n % 1_000}", "item": items, "topic": "t1", "author": "a1", "slot": "0"})
            counts["calls"] += 1
        except HeadraceError as error:
            counts["errors"] += 1
            print(f"a call failed: {error}", file=sys.stderr)
    if client is not None:
        client.close()


def _client(root: Path) -> Client | None:
    for beat in status.heartbeats(open_store(str(root))):
        if beat.role == "server" and beat.info.get("version") is not None:
            return Client(beat.info["address"])
    return None


def measured(folder: Path, minutes: float, rate: int) -> tuple[Watch, dict[str, int], dict[str, Any]]:
    events, root = folder / "events", folder / "loop"
    events.mkdir()
    for name in ("impressions", "clicks"):
        (events / f"{name}.jsonl").touch()
    shutil.copyfile(EXAMPLE, folder / "headrace.toml")
    config = str(folder / "headrace.toml")
    feed = [sys.executable, "-m", "headrace.feed.grow", str(events), "--rate", str(rate), "--sample", "0"]
    up = [sys.executable, "-m", "headrace.cli", "up", "-c", config, "--port", "0", "--logs", str(folder / "logs")]
    watch, ended, counts = Watch(root), threading.Event(), {"calls": 0, "errors": 0}
    with (folder / "up.log").open("wb") as log:
        processes = [
            subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ | settings_of(minutes))
            for command in (feed, up)
        ]
        caller = threading.Thread(target=call, args=(root, ended, counts))
        caller.start()
        try:
            until_s = time.monotonic() + 60 * minutes
            while time.monotonic() < until_s:
                time.sleep(LOOK_S)
                watch.look()
            state = subprocess.run(
                [sys.executable, "-m", "headrace.cli", "status", "-c", config, "--json"],
                stdout=subprocess.PIPE, text=True, check=False, cwd=folder,
            )  # fmt: skip
        finally:
            ended.set()
            caller.join()
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
                process.wait()
    return watch, counts, json.loads(state.stdout)


def report(watch: Watch, counts: dict[str, int], minutes: float, rate: int) -> None:
    at = f"{minutes:g} min at {rate:,}/s"
    for (name, kind), values in sorted(watch.seen.items()):
        if len(values) < 9:
            continue
        middle, last = growth(values)
        allowed = max(FLOORS[kind], middle / 10)
        unit = UNITS.get(kind, "")
        figure(f"{name}, {kind}, {at}: last third beyond the middle third's {middle:.0f}", last - middle, unit,
               f"<= {allowed:.1f} {unit}".strip(), holds=last - middle <= allowed)  # fmt: skip
    figure(f"processes that were started again, {at}", watch.restarts, "", "0", holds=watch.restarts == 0)
    figure(f"calls that failed, {at}", counts["errors"], f"of {counts['calls']}", "0", holds=counts["errors"] == 0)
    figure(f"versions, {at}", watch.versions[-1] if watch.versions else 0, "", "", holds=True)
    if watch.ages_s:
        _, last = growth(watch.ages_s)
        figure(f"age of what is served, {at}, last third", last, "s", "", holds=True)


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--minutes", type=float, default=30.0)
    options.add_argument("--rate", type=int, default=2_000)
    options.add_argument("--keep", type=Path, help="a file for all that was seen")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        watch, counts, state = measured(Path(folder), given.minutes, given.rate)
    report(watch, counts, given.minutes, given.rate)
    if given.keep is not None:
        seen = {f"{name}, {kind}": values for (name, kind), values in watch.seen.items()}
        given.keep.write_text(json.dumps({"seen": seen, "status": state}))
    return 1 if MISSED else 0


if __name__ == "__main__":
    sys.exit(main())
