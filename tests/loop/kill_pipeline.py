"""Kills a pipeline again and again while its files grow, then compares all rows with plain Python. One JSON line.

    python tests/loop/kill_pipeline.py --kills 200

Beam is imported once; each incarnation is a fork that dies by `os._exit` at a failpoint or by SIGKILL at a random time.
`--trust-listing` counts the rows of every file in shards/data instead of those that records name: the twin.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace import failpoints
from headrace.config import Settings
from headrace.loop import open_loop
from headrace.shard import ShardRecord, read_shard
from headrace.store import open_store
from pipelines import job  # noqa: F401  (imports Beam before the forks)
from pipelines.pipeline import Pipeline

if TYPE_CHECKING:
    from headrace.log import Log

T0 = 1_700_000_000_000
NOW_US = (T0 + 3_600_000) * 1_000
WAIT, ATTRIBUTION = 30_000, 300_000
ROLES = {"impression": "impression", "click": "feedback"}
PLACES = [name for name in failpoints.NAMES if name.startswith(("pipeline.", "log."))]
NAMES = ["impression_id", "event_time_us", "label", "row_kind", "emit_time_us"]


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--trust-listing", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = torture(Path(folder), given.kills, random.Random(given.seed), trust_listing=given.trust_listing)
    print(json.dumps({"seed": given.seed, **result}))
    return 0 if result["equal"] and result["sums"] else 1


def torture(folder: Path, kills: int, rng: random.Random, *, trust_listing: bool) -> dict[str, Any]:
    shown, clicks, files = _events(max(400, 60 * kills), rng)
    settings = _settings(folder)
    places: Counter[str] = Counter()
    revealed = 0.0
    while sum(places.values()) < kills:
        revealed = min(1.0, revealed + rng.random() / (2 * kills))
        _reveal(folder, files, revealed)
        place = rng.choice([*PLACES, "random"]) if sum(places.values()) >= len(PLACES) else PLACES[sum(places.values())]
        if _incarnation(settings, place, rng):
            places[place] += 1
        if revealed == 1.0:  # nothing is left to be killed over
            break
    _reveal(folder, files, 1.0)
    Pipeline(_loop(settings), settings, now_us=lambda: NOW_US).run(drain=True)
    records = [ShardRecord.from_entry(entry) for entry in _entries(_loop(settings).shard_log())]
    rows = _listed(folder / "loop") if trust_listing else _named(settings, records)
    return {
        "kills": sum(places.values()),
        "places": dict(sorted(places.items())),
        "records": len(records),
        "rows": sum(rows.values()),
        "lost": sum((_expected(shown, clicks) - rows).values()),
        "twice": sum((rows - _expected(shown, clicks)).values()),
        "equal": rows == _expected(shown, clicks),
        "sums": _sums_hold(records),
    }


def _incarnation(settings: Settings, place: str, rng: random.Random) -> bool:
    """Run until there is nothing new, or until the kill; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        _child(settings, place, rng.randint(1, 4))
    if place == "random":
        time.sleep(rng.random() * 0.6)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, failpoints.EXIT_CODE, -signal.SIGKILL):
        raise SystemExit(f"an incarnation failed with {code} at {place}")
    return code != 0


def _child(settings: Settings, place: str, hit: int) -> None:
    try:
        if place != "random":
            os.environ[failpoints.VARIABLE] = f"{place}:{hit}"
        Pipeline(_loop(settings), settings, now_us=lambda: NOW_US).run(once=True)
    except BaseException as error:  # noqa: BLE001  (a fork must never return into the parent's code)
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _events(n: int, rng: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, bytes]]:
    shown, clicks = [], []
    for k in range(n):
        ts = T0 + 1_200_000 * k // n + rng.randint(-1_000, 1_000)
        shown += [{"id": f"i{k}", "ts": ts, "user": rng.randrange(50)}] * (1 + (rng.random() < 0.05))
        if rng.random() < 0.2:
            clicks.append({"id": f"i{k}", "at": ts + rng.choice([0, 1_000, WAIT, WAIT + 1, 100_000, ATTRIBUTION])})
    clicks.sort(key=lambda one: one["at"])
    texts = {name: "".join(json.dumps(one) + "\n" for one in rows) for name, rows in (("i", shown), ("c", clicks))}
    return shown, clicks, {name: text.encode() for name, text in texts.items()}


def _reveal(folder: Path, files: dict[str, bytes], share: float) -> None:
    for name, data in files.items():
        with (folder / f"{name}.jsonl").open("ab") as stream:
            stream.write(data[stream.tell() : int(share * len(data))])


def _settings(folder: Path) -> Settings:
    return Settings(
        loop={"name": "torture", "root": str(folder / "loop")},
        streams={
            "impression": {"source": str(folder / "i.jsonl"), "id": "id", "time": "ts", "time_unit": "ms"},
            "click": {"source": str(folder / "c.jsonl"), "id": "id", "time": "at", "time_unit": "ms"},
        },
        label={"mode": "implicit", "wait_s": WAIT / 1_000, "attribution_s": ATTRIBUTION / 1_000},
        features={"user": {"kind": "id"}},
        pipeline={"max_bytes_per_tick": 1_500, "tick_s": 0.001},
    )


def _loop(settings: Settings) -> Any:
    return open_loop(open_store(settings.loop.root), settings.loop.name)


def _entries(log: Log) -> list[Any]:
    return [log.read(seq) for seq in log.seqs()]


def _named(settings: Settings, records: list[ShardRecord]) -> Counter[Any]:
    store = open_store(settings.loop.root)
    return _rows(read_shard(store, shard, NAMES) for record in records for shard in record.shards)


def _listed(root: Path) -> Counter[Any]:
    return _rows(pq.read_table(path, columns=NAMES) for path in (root / "shards" / "data").glob("*.parquet"))


def _rows(tables: Any) -> Counter[Any]:
    rows: Counter[Any] = Counter()
    for table in tables:
        assert isinstance(table, pa.Table)
        for one in table.to_pylist():
            id_, ts, label, kind, emit = (one[name] for name in NAMES)
            rows[id_, ts // 1_000, label, kind, emit // 1_000] += 1
    return rows


def _expected(shown: list[dict[str, Any]], clicks: list[dict[str, Any]]) -> Counter[Any]:
    said = {one["id"]: one["at"] for one in clicks}
    rows: Counter[Any] = Counter()
    for id_, ts in {(one["id"], one["ts"]) for one in shown}:
        delay = said.get(id_, 1 << 60) - ts
        rows[id_, ts, float(delay <= WAIT), "observed", ts + WAIT] += 1
        if WAIT < delay <= ATTRIBUTION:
            rows[id_, ts, 1.0, "correction", ts + delay] += 1
    return rows


def _sums_hold(records: list[ShardRecord]) -> bool:
    previous = None
    for record in records:
        record.check(previous, ROLES)
        previous = record
    return True


if __name__ == "__main__":
    sys.exit(main())
