"""The full counts of the kill and damage loops; `make soak`. Writes benchmarks/results/soak.json.

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

LOOP = Path(__file__).parents[1] / "tests" / "loop"


def drive(name: str, *arguments: str) -> dict[str, Any]:
    """The last line of a driver's output."""
    done = subprocess.run(
        [sys.executable, str(LOOP / f"{name}.py"), *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps({name: result}), flush=True)
    return result


def main() -> int:
    start = machine()
    pipeline = drive("kill_pipeline", "--kills", "200", "--seed", "7")
    trainer = drive("kill_trainer", "--kills", "100", "--seed", "7")
    up = drive("kill_up", "--kills", "100", "--seed", "7")
    swaps = drive("swaps", "--swaps", "1000", "--predictions", "1000000", "--seed", "7")
    replicas = drive("replicas", "--faults", "1000", "--offline", "200", "--restores", "50", "--seed", "7")
    outage = drive("outage", "--versions", "20", "--seed", "7")
    damage = drive("damage", "--damages", "1000", "--used", "300", "--seed", "7")
    figures = [
        _figure("pipeline kills, rows equal one batch, sums hold", pipeline["kills"], "kills", ">= 200, equal",
                pipeline["equal"] and pipeline["sums"] and pipeline["kills"] >= 200),
        _figure("trainer kills, bit-equal, gapless, each shard once", trainer["kills"], "kills", ">= 50, equal",
                trainer["equal"] and trainer["gapless"] and trainer["once"]),
        _figure("kills of all of headrace up, rows equal, gapless, digest", up["kills"], "kills", ">= 100, equal",
                all(up[name] for name in ("equal", "sums", "gapless", "digest")) and up["kills"] >= 100),
        _figure("predictions over swaps, none failed, mixed or older", swaps["predictions"], "calls",
                ">= 1000000, 1000 swaps", swaps["swaps"] >= 1000 and swaps["predictions"] >= 1_000_000
                and not any(swaps[name] for name in ("errors", "mixed", "back", "unserved"))),
        _figure("faults of files as a replica gets them: noticed, nothing wrong served, healed", replicas["noticed"],
                "of 1000", "all", replicas["noticed"] == replicas["healed"] == 1000 and not replicas["wrong"]),
        _figure("restored logs reported and followed", replicas["restored"]["reported"], "of 50", "all",
                replicas["restored"]["reported"] == replicas["restored"]["equal"] == 50),
        _figure("versions a replica was offline for, digest equal afterwards", replicas["offline"][1]["versions"],
                "versions", ">= 200", all(one["equal"] and one["versions"] >= 200 for one in replicas["offline"])),
        _figure("ways MLflow was away for 20 versions, each logged once afterwards", len(outage["ways"]), "of 3",
                "all, no call by the trainer", not outage["imported"] and len(outage["ways"]) == 3
                and all(one["once"] and one["told"] and not one["connections"] for one in outage["ways"].values())),
        _figure("damaged files noticed", damage["noticed"], "of 1000", "all", damage["noticed"] == 1000),
        _figure("damaged files met by servers, pipeline and trainer, none used", damage["used"]["trainer"],
                "of 300", "all", not damage["wrong"]),
    ]  # fmt: skip
    kept = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": start,
        "command": "make soak",
        "figures": figures,
        "places": {"pipeline": pipeline["places"], "trainer": trainer["places"], "damage": damage["folders"]},
    }
    (RESULTS / "soak.json").write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if all(figure["holds"] for figure in figures) else 1


def _figure(name: str, value: int, unit: str, bar: str, holds: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "bar": bar, "holds": bool(holds)}


if __name__ == "__main__":
    sys.exit(main())
