"""Copies a version log to replicas badly, takes them away, restores it: each must notice, and end as published.

    python tests/loop/replicas.py --faults 200

A publisher commits versions to one root; a replica follows a copy of it, to which files come with a fault:

drop        a record, or the file that it names, does not come; the records after it do
reorder     a record comes before its file, or records before those that they continue
duplicate   a record, or a file, comes once more under the name of the next
damage      a bit of a record, or of a file, is flipped, or it is cut

Then either the right files come, or the file stays as it is and a later snapshot comes. The replica's clock is moved,
not waited for. Afterwards it is left alone for `--offline` versions, once with all records still there and once with
those before the newest snapshot collected; and the root is restored to an older state, whose log goes on differently.

noticed     faults that the replica told: Status's problem, or the last problem where a snapshot led past it at once
healed      faults after which it served the newest version with the digest of the published table
wrong       looks at a replica that served what no version is: its digest, from its rows, is another
restored    how often the rewritten log was reported, and the replica came to the new one

`--without-hashes` does not check files and digests: the twin. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from handmade import Publisher, linear_tower

import paramserver.generation
from headrace.delta import decode_rows
from headrace.log import Log
from headrace.store import open_store
from paramserver.replica import RETRY_AT_MOST_S, Replica

LOG = "models/default/log"
KINDS = ("drop", "reorder", "duplicate", "damage")
LATER_S = RETRY_AT_MOST_S + 1.0
SNAPSHOT_EVERY = 25


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--faults", type=int, default=40)
    options.add_argument("--offline", type=int, default=200)
    options.add_argument("--restores", type=int, default=5)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--without-hashes", action="store_true")
    given = options.parse_args()
    if given.without_hashes:
        import headrace.delta

        headrace.delta.check_sha256 = lambda *_: None
        paramserver.generation.Generation.check = lambda _: None  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        rng = random.Random(given.seed)
        result = faulty(Path(folder) / "faults", given.faults, rng)
        result["offline"] = [
            offline(Path(folder) / f"offline-{collected}", given.offline, rng, collected=collected)
            for collected in (False, True)
        ]
        result["restored"] = restored(Path(folder) / "restored", given.restores, rng)
    print(json.dumps({"seed": given.seed, **result}))
    return 0 if holds(result) else 1


def holds(result: dict[str, Any]) -> bool:
    """Whether nothing was wrong, and everything was noticed and healed."""
    return (
        result["noticed"] == result["healed"] == result["faults"]
        and result["wrong"] == 0
        and all(one["equal"] for one in result["offline"])
        and result["restored"]["reported"] == result["restored"]["equal"] == result["restored"]["times"]
    )


class Copy:
    """A publisher's root, a copy of it, and the replica that follows the copy."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.whole, self.copy = folder / "whole", folder / "copy"
        self.publisher = Publisher(open_store(str(self.whole)))
        self.rng, self.now_s = rng, 0.0
        self.values: dict[int, Any] = {}  # version -> what its table holds, worked out from the published rows
        self.publisher.start()
        self._note()
        self.commit()
        self.publisher.snapshot()
        self.commit()
        self.deliver(self.new())
        self.replica = self.started()
        self.replica.poll()

    def started(self) -> Replica:
        store = open_store(str(self.copy))
        return Replica(store, Log(store, LOG), monotonic=lambda: self.now_s)

    def commit(self) -> int:
        """One more version; its number."""
        rng, version = self.rng, self.publisher.next
        if version % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1:
            self.publisher.snapshot()
        rows = {id_: None if rng.random() < 0.2 else [rng.uniform(-1, 1)] for id_ in rng.sample(range(40), 8)}
        wide = {id_: [rng.uniform(-1, 1) for _ in range(4)] for id_ in rng.sample(range(40), 8)}
        tower = linear_tower(4, 4, 2, bias=rng.uniform(-1, 1)) if version == 1 or rng.random() < 0.3 else None
        self.publisher.delta({"linear": rows, "embedding": wide}, tower=tower)
        self._note()
        return version

    def new(self) -> list[str]:
        """Files of the root that the copy does not have, in the order in which they were committed."""
        files = {str(path.relative_to(self.whole)) for path in self.whole.rglob("*") if path.is_file()}
        have = {str(path.relative_to(self.copy)) for path in self.copy.rglob("*") if path.is_file()}
        return sorted(files - have, key=lambda name: (Path(name).name.split(".")[0].split("-")[0], "/log/" in name))

    def deliver(self, names: list[str]) -> None:
        for name in names:
            self.put(name, (self.whole / name).read_bytes())

    def put(self, name: str, data: bytes) -> None:
        path = self.copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def look(self) -> bool:
        """Some time later: whether what the replica serves after a look is right."""
        self.now_s += LATER_S
        self.replica.poll()
        served = self.replica.generation()
        return content(served) == self.values[served.version]

    def healthy(self) -> bool:
        """Whether it serves the newest version, with the published digest, and nothing is wrong."""
        served = self.replica.generation()
        digest = self.publisher._published.digest()
        return (
            served.version == self.publisher.next - 1
            and served.tables.digest() == digest
            and self.replica.problem is None
        )

    def _note(self) -> None:
        snapshot = self.publisher._published.snapshot(0)
        self.values[self.publisher.next - 1] = {
            change.spec.name: dict(
                zip(change.ids.tolist(), _rounded(decode_rows(change.scale, change.rows, change.spec)), strict=True)
            )
            for change in snapshot.changes
        } | {"tower": snapshot.tower}


def content(generation: Any) -> dict[str, Any]:
    """What a generation's tables hold, read as a call would."""
    found: dict[str, Any] = {"linear": {}, "embedding": {}}
    for table in generation.tables.tables:
        ids, lines = table.index.items()
        found[table.spec.name] = dict(zip(ids.tolist(), _rounded(table.slab.values[lines]), strict=True))
    tower = generation.tables.tower
    return found | {"tower": tower.content if tower else None}


def _rounded(rows: Any) -> list[tuple[float, ...]]:
    return [tuple(row) for row in np.asarray(rows, np.float64).round(6).tolist()]


def faulty(folder: Path, faults: int, rng: random.Random) -> dict[str, Any]:
    at = Copy(folder, rng)
    kinds: Counter[str] = Counter()
    noticed = healed = wrong = 0
    for n in range(faults):
        kind = KINDS[n % len(KINDS)]
        before = at.replica.last_problem
        hurt = _hurt(at, kind)
        wrong += not at.look()
        wrong += not at.look()
        noticed += at.replica.last_problem is not before
        by = rng.choice(["file", "snapshot"])
        if by == "snapshot":
            at.publisher.snapshot()
            at.commit()
            at.deliver([name for name in at.new() if name not in hurt])
        else:
            at.deliver(hurt)
            at.deliver(at.new())
        wrong += not at.look()
        wrong += not at.look()
        healed += at.healthy()
        at.deliver(hurt)
        kinds[f"{kind}, healed by {by}"] += 1
    return {
        "faults": faults,
        "noticed": noticed,
        "healed": healed,
        "wrong": wrong,
        "kinds": dict(sorted(kinds.items())),
    }


def _hurt(at: Copy, kind: str) -> list[str]:
    """Commits a few versions and brings them to the copy with one fault; the names of the files that are not right."""
    rng = at.rng
    for _ in range(rng.randint(2, 4)):
        at.commit()
    names = [name for name in at.new() if "snapshot" not in name]
    at.deliver([name for name in at.new() if "snapshot" in name])
    place = rng.randrange(len(names) - 2) if kind != "damage" else rng.randrange(len(names))
    name = names[place]
    whole = (at.whole / name).read_bytes()
    if kind == "reorder":  # all but those before `place`, and but its file and its records, come later
        late = names[place : place + rng.randint(1, 2)]
        at.deliver([other for other in names if other not in late])
        return late
    at.deliver([other for other in names if other != name])
    if kind == "duplicate":
        same = [other for other in names if ("/log/" in other) == ("/log/" in name) and other != name]
        at.put(name, (at.whole / rng.choice(same)).read_bytes())
    elif kind == "damage":
        byte = rng.randrange(len(whole))
        flipped = whole[:byte] + bytes([whole[byte] ^ 1 << rng.randrange(8)]) + whole[byte + 1 :]
        at.put(name, whole[:byte] if rng.random() < 0.3 else flipped)
    return [name]


def offline(folder: Path, versions: int, rng: random.Random, *, collected: bool) -> dict[str, Any]:
    """The replica does not look while so many versions come."""
    at = Copy(folder, rng)
    before = at.replica.generation().version
    for _ in range(versions):
        at.commit()
    at.deliver(at.new())
    if collected:
        assert at.publisher.record is not None
        assert at.publisher.record.snapshot is not None
        oldest = at.publisher.record.snapshot.of
        for path in at.copy.rglob("0*"):
            if int(path.name[:12]) < oldest:
                path.unlink()
    right = at.look()
    told = at.replica.last_problem is not None
    right = at.look() and right
    return {
        "versions": at.replica.generation().version - before,
        "collected": collected,
        "reported": told,
        "equal": right and at.healthy(),
    }


def restored(folder: Path, times: int, rng: random.Random) -> dict[str, Any]:
    """The root goes back to what it was some versions ago and goes on from there, less or more far than it was."""
    at = Copy(folder, rng)
    reported = equal = 0
    for _ in range(times):
        kept = copy.copy(at.publisher.__dict__) | {"_published": copy.deepcopy(at.publisher._published)}
        files = {path for path in at.whole.rglob("*") if path.is_file()}
        for _ in range(5):
            at.commit()
        at.deliver(at.new())
        right = at.look() and at.healthy()
        for root, keep in ((at.whole, files), (at.copy, {at.copy / path.relative_to(at.whole) for path in files})):
            for path in root.rglob("*"):
                if path.is_file() and path not in keep:
                    path.unlink()
        at.publisher.__dict__.update(kept)
        at.publisher.log = Log(at.publisher.store, LOG)
        served = at.replica.generation().version
        for _ in range(rng.choice([0, 2, 8])):
            at.commit()
        at.deliver(at.new())
        at.now_s += LATER_S
        at.replica.poll()  # may still serve what was: its values are not the new log's
        reported += at.replica.problem is not None and "rewritten" in at.replica.problem.message
        right = at.look() and right
        equal += right and at.healthy()
        assert served
    return {"times": times, "reported": reported, "equal": equal}


if __name__ == "__main__":
    sys.exit(main())
