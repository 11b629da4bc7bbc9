"""Kills a trainer again and again while its shard log grows, then compares it bit by bit with one that never died.

    python tests/loop/kill_trainer.py --kills 200

TensorFlow is imported once; each incarnation is a fork that dies by `os._exit` at a failpoint or by SIGKILL at a random
time. One record in eight is poisoned, so holds are killed, too. `--without-replay` recovers from checkpoints alone: the
twin. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from forks import killed

from headrace import failpoints
from headrace.config import Settings
from headrace.loop import open_loop
from headrace.shard import BLANK, arrange, write_shard
from headrace.store import open_store
from headrace.version import VersionRecord, union
from training import live, recover, trainer, trial

if TYPE_CHECKING:
    from headrace.loop import Loop
    from headrace.record import Entry

PLACES = [name for name in failpoints.NAMES if name.startswith(("trainer.", "log."))]


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--without-replay", action="store_true")
    given = options.parse_args()
    if given.without_replay:
        live.plan_of = _checkpoint_only  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        result = torture(Path(folder), given.kills, random.Random(given.seed))
    print(json.dumps({"seed": given.seed, **result}))
    return 0 if result["equal"] and result["gapless"] and result["once"] else 1


_plan_of = recover.plan_of


def _checkpoint_only(version: int, read: Any) -> recover.Plan:
    return recover.Plan(_plan_of(version, read).checkpoint, ())


def torture(folder: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    root, calm = folder / "loop", folder / "calm"
    places: Counter[str] = Counter()
    head: Entry | None = None
    while sum(places.values()) < kills:
        for _ in range(rng.randint(1, 3)):
            head = _append(_loop(root), head, rng)
        done = sum(places.values())
        place = PLACES[done] if done < len(PLACES) else rng.choice([*PLACES, "random"])
        if _incarnation(root, place, rng):
            places[place] += 1
    _incarnation(root, "", rng)
    shutil.copytree(root / "shards", calm / "shards")
    _incarnation(calm, "", rng)
    records = [VersionRecord.from_entry(entry) for entry in _entries(_loop(root).version_log())]
    learned = [pair for record in records for pair in (*record.trained, *record.held)]
    return {
        "kills": sum(places.values()),
        "places": dict(sorted(places.items())),
        "shard_records": head.seq + 1 if head else 0,
        "versions": len(records),
        "held": sum(high - low for low, high in records[-1].held_now),
        "gapless": [record.version for record in records] == list(range(len(records))),
        "once": sum(high - low for low, high in learned) == head.seq + 1 and union(learned) == ((0, head.seq + 1),)
        if head
        else False,
        "equal": (root / "bits").read_text() == (calm / "bits").read_text(),
    }


def _incarnation(root: Path, place: str, rng: random.Random) -> bool:
    """Train until nothing is due, or until the kill; whether it was killed."""
    settings = _settings(root).replace("train", checkpoint_every_s=rng.choice([1e-6, 1e9]), snapshot_every=3)
    hit = rng.randint(1, 2)
    return killed(lambda: _work(root, settings, place, hit), place, 4, rng)


def _work(root: Path, settings: Settings, place: str, hit: int) -> None:
    """Trains what waits; at the end leaves the hash of all parameters, learned and published, in `bits`."""
    trial.Sums.worse = lambda _: ""  # type: ignore[method-assign]  # what is worse depends on how records were grouped
    if place not in ("", "random"):
        os.environ[failpoints.VARIABLE] = f"{place}:{hit}"
    running = trainer.Trainer(_loop(root), settings)
    running._files.resident = hit == 2  # files are written aside, or each is waited for
    while running.step() is not None:
        pass
    arrays = running._live.state.arrays()
    bits = hashlib.sha256(b"".join(name.encode() + value.tobytes() for name, value in sorted(arrays.items())))
    bits.update(json.dumps(running.record.digest, sort_keys=True).encode())
    (root / "bits").write_text(bits.hexdigest())


def _append(loop: Loop, head: Entry | None, rng: random.Random) -> Entry:
    settings = _settings(Path("x"))
    schema, log = settings.schema(), loop.shard_log()
    seq, rows = 0 if head is None else head.seq + 1, rng.choice([1, 5, 60, 300])
    random_ = np.random.default_rng(rng.randrange(2**32))
    features = schema.encode(
        pa.table(
            {
                "user": random_.integers(0, 30, rows).astype(str),
                "item": random_.integers(0, 50, rows).astype(str),
                "price": pa.array(random_.random(rows), mask=random_.random(rows) < 0.2),
            }
        )
    )
    label = (random_.random(rows) < 0.3).astype(np.float32)
    if rng.random() < 1 / 8:
        label[:] = np.nan  # refused by G0, however records are grouped
    times = seq * 1_000_000 + np.arange(rows)
    columns = {
        "impression_id": pa.array([f"{seq}-{n}" for n in range(rows)]),
        "event_time_us": times,
        "emit_time_us": times,
        "label": label,
        "row_kind": pa.array(["observed"] * rows),
        "delay_us": pa.array(np.zeros(rows, np.int64)),
        "sample_rate": np.ones(rows, np.float32),
        **{name: features[name] for name in features.column_names},
    }
    path = f"shards/data/{seq:012d}-0-{log.writer}.parquet"
    table = arrange(pa.table(columns), 60_000_000)
    shard = write_shard(loop.store, table, path=path, part=0, fingerprint=schema.fingerprint)
    record = replace(BLANK, seq=seq, watermark_us=seq, shards=(shard,), schema=schema.fingerprint)
    return log.append("shard", record.to_body(), head)


def _settings(root: Path) -> Settings:
    stream = {"source": "none.parquet", "id": "id", "time": "time"}
    return Settings(
        loop={"name": "torture", "root": str(root)},
        streams={"impression": stream, "click": stream},
        label={"mode": "implicit", "wait_s": 1, "attribution_s": 1},
        gate={"surprise": 1e9},  # surprise counts versions, and so how records were grouped
        features={
            "user": {"kind": "id", "ttl": "4s"},  # ids go, come back and are counted while it dies
            "item": {"kind": "id"},
            "price": {"kind": "number"},
            "both": {"kind": "cross", "of": ["user", "item"], "ttl": "2s", "admission": 2},
        },
    )


def _loop(root: Path) -> Loop:
    return open_loop(open_store(str(root)), "torture")


def _entries(log: Any) -> list[Any]:
    return [log.read(seq) for seq in log.seqs()]


if __name__ == "__main__":
    sys.exit(main())
