"""Flips bits of, and cuts, committed files of a small loop at random; each must be noticed. One JSON line.

    python tests/loop/damage.py --damages 1000 --used 300

The loop has shard records, shards, pending runs, quarantine, version records, deltas, snapshots and checkpoints, all
made by the real stages. After each damage the whole loop is verified as `headrace log verify --deep` does it, and the
file is put back. `--without-hashes` verifies records only, not the files that they name: the twin.

The first `--used` damages are also met by those who use the files, each in a copy of the root in which events wait for
the pipeline and a shard record for the trainer:

serving    a replica that serves already keeps its version and its scores
starting   a replica that starts serves a version with the digest of its record, or says what is wrong
pipeline   one tick gives the shards that it gives without damage, or stops
trainer    training what waits gives the digest that it gives without damage, or stops

Who stops, or tells, must name the file, or the record beside it in the log, and say what to do (`used`: how often each
was right; `stopped`: how often each stopped).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
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
from headrace.delta import Digest
from headrace.errors import HeadraceError, LogRewritten
from headrace.loop import open_loop
from headrace.shard import ShardRecord
from headrace.store import open_store
from paramserver.replica import Replica

T0 = 1_700_000_000_000


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--damages", type=int, default=100)
    options.add_argument("--used", type=int, default=0)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--without-hashes", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loop = _made(Path(folder), random.Random(1))
        users = Users(Path(folder)) if given.used else None
        result = damaged(loop, Path(folder) / "loop", given, random.Random(given.seed), users)
    print(json.dumps({"seed": given.seed, **result}))
    return 0 if result["noticed"] == result["damages"] and not result["wrong"] else 1


def damaged(loop: Any, root: Path, given: Any, rng: random.Random, users: Users | None) -> dict[str, Any]:
    damages, without_hashes = given.damages, given.without_hashes
    assert _sound(loop)
    files = sorted(path for path in root.rglob("*") if path.is_file() and "status" not in path.parts)
    files = [path for path in files if path.name != "loop.json"]
    kinds: Counter[str] = Counter()
    missed = []
    for damage in range(damages):
        path = rng.choice(files)
        whole = path.read_bytes()
        path.write_bytes(_hurt(whole, rng))
        if users is not None and damage < given.used:
            users.meet(str(path.relative_to(root)), path.read_bytes(), whole)
        with mock.patch("headrace.cli.log._verify_file") if without_hashes else nullcontext():
            if _sound(loop):
                missed.append(str(path.relative_to(root)))
        path.write_bytes(whole)
        kinds["/".join(path.relative_to(root).parts[:-1])] += 1
    assert _sound(loop)
    found = {"damages": damages, "noticed": damages - len(missed), "missed": missed[:5], "folders": dict(kinds)}
    return found | ({"wrong": []} if users is None else users.result())


def _hurt(data: bytes, rng: random.Random) -> bytes:
    """`data` with one bit flipped, or cut short."""
    at = rng.randrange(len(data))
    if rng.random() < 0.3:
        return data[:at]
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _sound(loop: Any) -> bool:
    return not any(verify_log(loop.store, log, deep=True).problems for log in logs_of(loop))


class Users:
    """Those who use the files of a root, each in a copy of it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._copies, self._copy = folder, 0, folder / "copy"
        self._stopped: Counter[str] = Counter()
        self._met: Counter[str] = Counter()
        self._wrong: list[str] = []
        self._fresh()
        self._expected = {"trainer": self._trained(), "pipeline": self._ticked()}

    def result(self) -> dict[str, Any]:
        return {"used": dict(self._met), "stopped": dict(self._stopped), "wrong": self._wrong[:5]}

    def meet(self, name: str, hurt: bytes, whole: bytes) -> None:
        """Has everybody meet `hurt` in the place of the file `name`."""
        self._fresh(name, whole)
        self._serving(name, hurt)
        for user, use in (("starting", self._started), ("pipeline", self._ticked), ("trainer", self._trained)):
            self._fresh(name, hurt)
            self._met[user] += 1
            try:
                found = use()
            except HeadraceError as problem:
                self._stopped[user] += 1
                if not _tells(problem, name):
                    self._wrong.append(f"{user}, {name}: {problem!r}, hint {problem.hint!r}")
            else:
                if found != self._expected.get(user):
                    self._wrong.append(f"{user}, {name}: {found} in place of {self._expected.get(user)}")

    def _fresh(self, name: str = "loop.json", data: bytes | None = None) -> None:
        shutil.rmtree(self._copy, ignore_errors=True)  # a stage that stopped may still be writing
        self._copies += 1
        self._copy = self._folder / f"copy-{self._copies}"
        shutil.copytree(self._folder / "loop", self._copy)
        if data is not None:
            (self._copy / name).write_bytes(data)

    def _loop(self) -> Any:
        return open_loop(open_store(str(self._copy)), "damage")

    def _replica(self, now: Any) -> Replica:
        loop = self._loop()
        return Replica(loop.store, loop.version_log(), monotonic=now)

    def _serving(self, name: str, hurt: bytes) -> None:
        now_s = [0.0]
        replica = self._replica(lambda: now_s[0])
        replica.poll()
        before = replica.generation()
        (self._copy / name).write_bytes(hurt)
        for _ in range(2):
            now_s[0] += 61.0
            replica.poll()
        self._met["serving"] += 1
        if replica.generation().version != before.version or replica.generation().tables.digest() != _digest(before):
            self._wrong.append(f"serving, {name}: {replica.generation().version} in place of {before.version}")
        if replica.problem is not None:
            self._stopped["serving"] += 1
            if not _tells(replica.problem, name) and not isinstance(replica.problem, LogRewritten):
                self._wrong.append(f"serving, {name}: {replica.problem!r}, hint {replica.problem.hint!r}")

    def _started(self) -> None:
        now_s = [0.0]
        replica = self._replica(lambda: now_s[0])
        replica.poll()
        if replica.served is not None:
            assert replica.served.tables.digest() == _digest(replica.served)
        now_s[0] += 61.0
        replica.poll()
        if replica.problem is not None:
            raise replica.problem

    def _ticked(self) -> Any:
        from pipelines.pipeline import Pipeline

        pipeline = Pipeline(
            self._loop(), _settings(self._folder, self._copy.name), now_us=lambda: (T0 + 3_600_000) * 1_000
        )
        try:
            entry = pipeline.tick()
        finally:
            pipeline.close()
        assert entry is not None
        record = ShardRecord.from_entry(entry)
        return [(shard.part, shard.sha256) for shard in record.shards], record.counts

    def _trained(self) -> Any:
        from training.trainer import Trainer

        trainer = Trainer(self._loop(), _settings(self._folder, self._copy.name))
        try:
            while trainer.step() is not None:
                pass
            return trainer.record.digest
        finally:
            trainer.close()


def _digest(generation: Any) -> Digest:
    return Digest.from_json(generation.record.digest)


def _tells(problem: HeadraceError, name: str) -> bool:
    """Whether it names the file, or the record that continues it, and says what to do."""
    folder, file = name.rsplit("/", 1)
    names = [file] if "/log/" not in name else [file, f"{int(file[:12]) + 1:012d}.json", f"{folder} was rewritten"]
    return any(one in str(problem) for one in names) and bool(problem.hint)


def _made(folder: Path, rng: random.Random) -> Any:
    from pipelines.pipeline import Pipeline
    from training.trainer import Trainer

    settings = _settings(folder, "loop")
    loop = open_loop(open_store(settings.loop.root), settings.loop.name)
    pipeline, trainer = Pipeline(loop, settings, now_us=lambda: (T0 + 3_600_000) * 1_000), None
    for tick in range(6):
        _append(folder, tick, rng)
        pipeline.tick()
        trainer = trainer or Trainer(loop, settings)
        trainer.step()
    _append(folder, 6, rng)
    pipeline.tick()  # waits for a trainer
    _append(folder, 7, rng)  # waits for a pipeline
    pipeline.close()
    trainer.close()
    return loop


def _append(folder: Path, tick: int, rng: random.Random) -> None:
    with (folder / "i.jsonl").open("a") as shown, (folder / "c.jsonl").open("a") as clicks:
        for k in range(100 * tick, 100 * (tick + 1)):
            event = {"id": f"i{k}", "ts": T0 + 600 * k, "user": rng.randrange(30), "price": rng.random()}
            shown.write(json.dumps(event) + "\n")
            if k % 4 == 0:
                clicks.write(json.dumps({"id": f"i{k}", "at": T0 + 600 * k + rng.randrange(60_000)}) + "\n")
        shown.write("{broken\n")


def _settings(folder: Path, root: str) -> Settings:
    return Settings(
        loop={"name": "damage", "root": str(folder / root)},
        streams={
            "impression": {"source": str(folder / "i.jsonl"), "id": "id", "time": "ts", "time_unit": "ms"},
            "click": {"source": str(folder / "c.jsonl"), "id": "id", "time": "at", "time_unit": "ms"},
        },
        label={"mode": "implicit", "wait_s": 30, "attribution_s": 300},
        features={"user": {"kind": "id"}, "price": {"kind": "number"}},
        train={"checkpoint_every_s": 0.001, "snapshot_every": 2},
    )


if __name__ == "__main__":
    sys.exit(main())
