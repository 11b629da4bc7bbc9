"""Kills a pipeline again and again while its files grow and time goes on, then compares all rows with plain Python.

One JSON line. The streams fall idle in between, so that events come later than the watermark allows for; the reference
goes record by record, by what each says that it read and by its watermark, and by nothing else of it.

    python tests/loop/kill_pipeline.py --kills 200

Beam is imported once; each incarnation is a fork that dies by `os._exit` at a failpoint or by SIGKILL at a random time.
`--trust-listing` counts the rows of every file in shards/data instead of those that records name: the twin.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from forks import killed

from headrace import failpoints
from headrace.config import Settings
from headrace.loop import open_loop
from headrace.shard import BLANK, ShardRecord, read_shard
from headrace.store import open_store
from pipelines import job  # noqa: F401  (imports Beam before the forks)
from pipelines.pipeline import Pipeline

if TYPE_CHECKING:
    from headrace.log import Log

T0 = 1_700_000_000_000
NOW_US = (T0 + 3_600_000) * 1_000
WAIT, ATTRIBUTION = 30_000, 300_000
QUIET = 10  # looks without anything new, about 20 s: idle_s is 2
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
    files = _events(max(400, 60 * kills), rng)
    settings = _settings(folder)
    places: Counter[str] = Counter()
    revealed, now_us = 0.0, NOW_US
    while sum(places.values()) < kills:
        revealed = min(1.0, revealed + rng.random() / (2 * kills))
        _reveal(folder, files, revealed, revealed * rng.uniform(0.3, 0.8))
        place = rng.choice([*PLACES, "random"]) if sum(places.values()) >= len(PLACES) else PLACES[sum(places.values())]
        now_us += 600_000_000
        if _incarnation(settings, place, now_us, rng):
            places[place] += 1
        if revealed == 1.0:  # nothing is left to be killed over
            break
    _reveal(folder, files, 1.0, 1.0)
    Pipeline(_loop(settings), settings, now_us=Clock(now_us + 600_000_000, rng)).run(drain=True)
    records = [ShardRecord.from_entry(entry) for entry in _entries(_loop(settings).shard_log())]
    expected = _expected(records, files)
    rows = _listed(folder / "loop") if trust_listing else _named(settings, records)
    return {
        "kills": sum(places.values()),
        "places": dict(sorted(places.items())),
        "records": len(records),
        "rows": sum(rows.values()),
        "by_idleness": sum(all(one.start == one.end for one in record.ranges) for record in records),
        "behind": _behind(expected, files),
        "lost": sum((expected - rows).values()),
        "twice": sum((rows - expected).values()),
        "equal": rows == expected,
        "sums": _sums_hold(records, files),
    }


class Clock:
    """Goes on by up to four seconds whenever someone looks."""

    def __init__(self, start_us: int, rng: random.Random) -> None:
        self.now_us = start_us
        self._rng = random.Random(rng.random())

    def __call__(self) -> int:
        self.now_us += self._rng.randint(0, 4_000_000)
        return self.now_us


def _incarnation(settings: Settings, place: str, now_us: int, rng: random.Random) -> bool:
    """Run until there has been nothing new for a while, or until the kill; whether it was killed."""
    clock = Clock(now_us, rng)
    return killed(lambda: _work(settings, place, rng.randint(1, 4), clock), place, 0.6, rng)


def _work(settings: Settings, place: str, hit: int, clock: Clock) -> None:
    if place != "random":
        os.environ[failpoints.VARIABLE] = f"{place}:{hit}"
    pipeline, quiet = Pipeline(_loop(settings), settings, now_us=clock), 0
    while quiet < QUIET:
        quiet = 0 if pipeline.tick() is not None else quiet + 1
    pipeline.close()


def _events(n: int, rng: random.Random) -> dict[str, bytes]:
    shown, clicks = [], []
    for k in range(n):
        ts = T0 + 1_200_000 * k // n + rng.randint(-1_000, 1_000)
        shown += [{"id": f"i{k}", "ts": ts, "user": rng.randrange(50)}] * (1 + (rng.random() < 0.05))
        if rng.random() < 0.4:
            delay = rng.choice([0, 1_000, WAIT // 2, WAIT - 1, WAIT, WAIT + 1, 100_000, ATTRIBUTION])
            clicks.append({"id": f"i{k}", "at": ts + delay})
    clicks.sort(key=lambda one: one["at"])
    texts = {name: "".join(json.dumps(one) + "\n" for one in rows) for name, rows in (("i", shown), ("c", clicks))}
    return {name: text.encode() for name, text in texts.items()}


def _reveal(folder: Path, files: dict[str, bytes], shown: float, clicks: float) -> None:
    """Let the files grow to these shares; a smaller one than before changes nothing."""
    for (name, data), share in zip(files.items(), (shown, clicks), strict=True):
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
        pipeline={"max_bytes_per_tick": 1_500, "tick_s": 0.001, "idle_s": 2},
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


def _expected(records: list[ShardRecord], files: dict[str, bytes]) -> Counter[Any]:
    """The rows by the rules of `pipelines.label`, given what each record read and its watermark."""
    rows: Counter[Any] = Counter()
    shown: dict[str, int] = {}
    said: dict[str, int] = {}
    labels: dict[str, float] = {}
    before = 0.0
    for record in records:
        after = record.watermark_us / 1_000
        for one in _read(record, "impression", files["i"]):
            if one["ts"] + ATTRIBUTION >= before:
                shown.setdefault(one["id"], one["ts"])
        for one in _read(record, "click", files["c"]):
            if one["at"] + ATTRIBUTION >= before:
                said[one["id"]] = one["at"]
        for id_, ts in shown.items():
            delay = said.get(id_, 1 << 60) - ts
            if ts + ATTRIBUTION < before:
                continue
            if id_ not in labels and ts + WAIT < after:
                labels[id_] = float(delay <= WAIT)
                rows[id_, ts, labels[id_], "observed", ts + WAIT] += 1
            if labels.get(id_) == 0.0 and delay <= ATTRIBUTION and ts + delay < after:
                labels[id_] = 1.0
                rows[id_, ts, 1.0, "correction", ts + delay] += 1
        before = after
    return rows


def _read(record: ShardRecord, stream: str, data: bytes) -> list[dict[str, Any]]:
    low, high = next((one.start["offset"], one.end["offset"]) for one in record.ranges if one.stream == stream)
    return [json.loads(line) for line in data[low:high].splitlines()]


def _behind(expected: Counter[Any], files: dict[str, bytes]) -> int:
    """Rows that would be others if every event had come in time."""
    shown = {one["id"]: one["ts"] for one in map(json.loads, files["i"].splitlines())}
    said = {one["id"]: one["at"] for one in map(json.loads, files["c"].splitlines())}
    rows: Counter[Any] = Counter()
    for id_, ts in shown.items():
        delay = said.get(id_, 1 << 60) - ts
        rows[id_, ts, float(delay <= WAIT), "observed", ts + WAIT] += 1
        if WAIT < delay <= ATTRIBUTION:
            rows[id_, ts, 1.0, "correction", ts + delay] += 1
    return sum((expected - rows).values()) + sum((rows - expected).values())


def _sums_hold(records: list[ShardRecord], files: dict[str, bytes]) -> bool:
    for previous, record in zip([BLANK, *records], records, strict=False):
        record.check(previous, ROLES)
    return [one.end["offset"] for one in records[-1].ranges] == [len(files["c"]), len(files["i"])]


if __name__ == "__main__":
    sys.exit(main())
