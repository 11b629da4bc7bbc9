"""Flips bits of, and cuts, committed files of a small loop at random; each must be noticed. One JSON line.

    python tests/loop/damage.py --damages 1000

The loop has shard records, shards, pending runs, quarantine, version records, deltas, snapshots and checkpoints, all
made by the real stages. After each damage the whole loop is verified as `headrace log verify --deep` does it, and the
file is put back. `--without-hashes` verifies records only, not the files that they name: the twin.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

from headrace.cli.log import logs_of, verify_log
from headrace.config import Settings
from headrace.loop import open_loop
from headrace.store import open_store

T0 = 1_700_000_000_000


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--damages", type=int, default=100)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--without-hashes", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loop = _made(Path(folder), random.Random(1))
        result = damaged(loop, Path(folder) / "loop", given.damages, random.Random(given.seed), given.without_hashes)
    print(json.dumps({"seed": given.seed, **result}))
    return 0 if result["noticed"] == result["damages"] else 1


def damaged(loop: Any, root: Path, damages: int, rng: random.Random, without_hashes: bool) -> dict[str, Any]:
    assert _sound(loop)
    files = sorted(path for path in root.rglob("*") if path.is_file() and "status" not in path.parts)
    files = [path for path in files if path.name != "loop.json"]
    kinds: Counter[str] = Counter()
    missed = []
    for _ in range(damages):
        path = rng.choice(files)
        whole = path.read_bytes()
        path.write_bytes(_hurt(whole, rng))
        with mock.patch("headrace.cli.log._verify_file") if without_hashes else nullcontext():
            if _sound(loop):
                missed.append(str(path.relative_to(root)))
        path.write_bytes(whole)
        kinds["/".join(path.relative_to(root).parts[:-1])] += 1
    assert _sound(loop)
    return {"damages": damages, "noticed": damages - len(missed), "missed": missed[:5], "folders": dict(kinds)}


def _hurt(data: bytes, rng: random.Random) -> bytes:
    """`data` with one bit flipped, or cut short."""
    at = rng.randrange(len(data))
    if rng.random() < 0.3:
        return data[:at]
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _sound(loop: Any) -> bool:
    return not any(verify_log(loop.store, log, deep=True).problems for log in logs_of(loop))


def _made(folder: Path, rng: random.Random) -> Any:
    from pipelines.pipeline import Pipeline
    from training.trainer import Trainer

    settings = Settings(
        loop={"name": "damage", "root": str(folder / "loop")},
        streams={
            "impression": {"source": str(folder / "i.jsonl"), "id": "id", "time": "ts", "time_unit": "ms"},
            "click": {"source": str(folder / "c.jsonl"), "id": "id", "time": "at", "time_unit": "ms"},
        },
        label={"mode": "implicit", "wait_s": 30, "attribution_s": 300},
        features={"user": {"kind": "id"}, "price": {"kind": "number"}},
        train={"checkpoint_every_s": 0.001, "snapshot_every": 2},
    )
    loop = open_loop(open_store(settings.loop.root), settings.loop.name)
    pipeline, trainer = Pipeline(loop, settings, now_us=lambda: (T0 + 3_600_000) * 1_000), None
    for tick in range(6):
        with (folder / "i.jsonl").open("a") as shown, (folder / "c.jsonl").open("a") as clicks:
            for k in range(100 * tick, 100 * (tick + 1)):
                event = {"id": f"i{k}", "ts": T0 + 600 * k, "user": rng.randrange(30), "price": rng.random()}
                shown.write(json.dumps(event) + "\n")
                if k % 4 == 0:
                    clicks.write(json.dumps({"id": f"i{k}", "at": T0 + 600 * k + rng.randrange(60_000)}) + "\n")
            shown.write("{broken\n")
        pipeline.tick()
        trainer = trainer or Trainer(loop, settings)
        trainer.step()
    pipeline.close()
    trainer.close()
    return loop


if __name__ == "__main__":
    sys.exit(main())
