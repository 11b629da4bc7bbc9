"""The full counts of the kill and damage loops; `make soak`. Writes benchmarks/results/soak.json.

    python benchmarks/soak.py                     all, one after the other: hours
    python benchmarks/soak.py pipeline damage     these; the kept results of the others stay, with their own dates

pipeline  200 kills at every failpoint of its commit order and at random: rows equal one batch, sums hold
trainer   100 kills: final parameters bit-equal to a trainer that never died, versions gapless
up        100 kills of all processes of `headrace up`: rows equal one batch, versions gapless, digest verified
swaps     1,000 swaps under four clients, a million predictions: no error, none of another version than it names
replicas  1,000 files dropped, reordered, duplicated, damaged; 200 versions offline; 50 restored logs: all noticed, and
          the digest of the published table afterwards
outage    MLflow refused, hung, on a full disk for 20 versions: no call by the trainer, each logged once afterwards
damage    1,000 flips and cuts of committed files: all noticed; 300 of them met by servers, pipeline and trainer, which
          go on rightly or stop naming the file
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from run import RESULTS, machine

Part = tuple[list[dict[str, Any]], dict[str, Any]]
"""Figures, and where it was killed or damaged."""

LOOP = Path(__file__).parents[1] / "tests" / "loop"


def drive(name: str, *arguments: str) -> dict[str, Any]:
    """The last line of a driver's output."""
    done = subprocess.run(
        [sys.executable, str(LOOP / f"{name}.py"), *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps({name: result}), flush=True)
    return result


def pipeline() -> Part:
    found = drive("kill_pipeline", "--kills", "200", "--seed", "7")
    equal = found["equal"] and found["sums"] and found["kills"] >= 200
    return [
        _figure("pipeline kills, rows equal one batch, sums hold", found["kills"], "kills", ">= 200, equal", equal)
    ], found["places"]


def trainer() -> Part:
    found = drive("kill_trainer", "--kills", "100", "--seed", "7")
    equal = found["equal"] and found["gapless"] and found["once"] and found["kills"] >= 50
    return [
        _figure("trainer kills, bit-equal, gapless, each shard once", found["kills"], "kills", ">= 50, equal", equal)
    ], found["places"]


def up() -> Part:
    found = drive("kill_up", "--kills", "100", "--seed", "7")
    equal = all(found[name] for name in ("equal", "sums", "gapless", "digest")) and found["kills"] >= 100
    name = "kills of all of headrace up, rows equal, gapless, digest"
    return [_figure(name, found["kills"], "kills", ">= 100, equal", equal)], {}


def swaps() -> Part:
    found = drive("swaps", "--swaps", "1000", "--predictions", "1000000", "--seed", "7")
    enough = found["swaps"] >= 1000 and found["predictions"] >= 1_000_000
    right = not any(found[name] for name in ("errors", "mixed", "back", "unserved"))
    name = "predictions over swaps, none failed, mixed or older"
    return [_figure(name, found["predictions"], "calls", ">= 1000000, 1000 swaps", enough and right)], {}


def replicas() -> Part:
    found = drive("replicas", "--faults", "1000", "--offline", "200", "--restores", "50", "--seed", "7")
    noticed, restored, offline = found["noticed"], found["restored"], found["offline"]
    healed = noticed == found["healed"] == 1000 and not found["wrong"]
    followed = restored["reported"] == restored["equal"] == 50
    equal = all(one["equal"] and one["versions"] >= 200 for one in offline)
    name = "faults of files as a replica gets them: noticed, nothing wrong served, healed"
    away = "versions a replica was offline for, digest equal afterwards"
    return [
        _figure(name, noticed, "of 1000", "all", healed),
        _figure("restored logs reported and followed", restored["reported"], "of 50", "all", followed),
        _figure(away, offline[1]["versions"], "versions", ">= 200", equal),
    ], {}


def outage() -> Part:
    found = drive("outage", "--versions", "20", "--seed", "7")
    ways = found["ways"]
    once = all(one["once"] and one["told"] and not one["connections"] for one in ways.values())
    holds = not found["imported"] and len(ways) == 3 and once
    name = "ways MLflow was away for 20 versions, each logged once afterwards"
    return [_figure(name, len(ways), "of 3", "all, no call by the trainer", holds)], {}


def damage() -> Part:
    found = drive("damage", "--damages", "1000", "--used", "300", "--seed", "7")
    used = "damaged files met by servers, pipeline and trainer, none used"
    return [
        _figure("damaged files noticed", found["noticed"], "of 1000", "all", found["noticed"] == 1000),
        _figure(used, found["used"]["trainer"], "of 300", "all", not found["wrong"]),
    ], found["folders"]


PARTS = {part.__name__: part for part in (pipeline, trainer, up, swaps, replicas, outage, damage)}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"no part is called {unknown[0]}: there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    file = RESULTS / "soak.json"
    kept = json.loads(file.read_text())["parts"] if file.exists() else {}
    for name in names or PARTS:
        start = machine()
        figures, places = PARTS[name]()
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        kept[name] = {"date": day, "machine": start, "figures": figures, "places": places}
        parts = {name: kept[name] for name in PARTS if name in kept}
        figures = [figure for part in parts.values() for figure in part["figures"]]
        whole = {"command": "make soak", "figures": figures, "parts": parts}
        file.write_text(json.dumps(whole, indent=1) + "\n")
    return 0 if all(figure["holds"] for name in names or PARTS for figure in kept[name]["figures"]) else 1


def _figure(name: str, value: int, unit: str, bar: str, holds: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "bar": bar, "holds": bool(holds)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
