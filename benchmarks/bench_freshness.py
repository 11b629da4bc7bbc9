"""How fresh the loop is under load: `headrace probe` on a running `headrace up`, with 2,000 and 10,000 lines a second.

Settings of examples/demo: label wait 2 s, disorder bound 1 s, admission 1, all gates and the batch of a step at their
defaults. Adagrad moves a row by about its rate in a step, however many events of it the step has: k is as many events
as give a fresh value several steps. Three minutes each, after the loop has served its first trained version for 20 s.
The figures leave out label wait and disorder bound, and are shown by stages: where the seconds go.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[1] / "examples/demo/headrace.toml"
SETTLE_S = 20.0


def measured(rate: int, seconds: float, k: int) -> dict[str, Any]:
    """The probe's JSON at so many lines a second."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "events").mkdir()
        for name in ("impressions", "clicks"):
            (folder / f"events/{name}.jsonl").touch()
        shutil.copyfile(EXAMPLE, folder / "headrace.toml")
        config = str(folder / "headrace.toml")
        feed = [sys.executable, "-m", "headrace.feed.grow", str(folder / "events"), "--rate", str(rate)]
        up = [sys.executable, "-m", "headrace.cli", "up", "-c", config, "--port", "0", "--logs", str(folder / "logs")]
        with (folder / "up.log").open("wb") as log:
            processes = [
                subprocess.Popen([*feed, "--sample", "0"], stdout=log, stderr=log),
                subprocess.Popen(up, stdout=log, stderr=log),
            ]
            try:
                _wait_until_learned(config)
                time.sleep(SETTLE_S)
                return json.loads(_headrace("probe", "-c", config, "--seconds", str(seconds), "--k", str(k), "--json"))
            finally:
                for process in reversed(processes):
                    process.send_signal(signal.SIGTERM)
                    process.wait()


def _wait_until_learned(config: str) -> None:
    until_s = time.monotonic() + 120
    while time.monotonic() < until_s:
        state = json.loads(_headrace("status", "-c", config, "--json"))
        if any(one["role"] == "server" and one["info"].get("watermark_us") for one in state["processes"]):
            return
        time.sleep(1)
    raise SystemExit("no trained version was served within two minutes")


def _headrace(*arguments: str) -> str:
    command = [sys.executable, "-m", "headrace.cli", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout


def figure(name: str, value: float | str, bar: float | None, unit: str = "s") -> bool:
    """Prints one figure. The text "inf" holds no bar."""
    holds = bar is None or (not isinstance(value, str) and value <= bar)
    shown = "shown" if bar is None else f"<= {bar:g} {unit}"
    print(json.dumps({"name": name, "value": value, "unit": unit, "bar": shown, "holds": holds}), flush=True)
    return holds


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--rates", type=int, nargs="*", default=[2_000, 10_000])
    options.add_argument("--seconds", type=float, default=180.0)
    options.add_argument("--k", type=int, default=1_000)
    given = options.parse_args()
    holds = []
    for rate in given.rates:
        found = measured(rate, given.seconds, given.k)
        at = f"{rate:,} events/s"
        fresh, served = found["freshness_s"], found["stages_s"]["served"]
        holds += [
            figure(f"freshness p50, {at}, k = {given.k}", fresh["p50"], 3.0),
            figure(f"freshness p99, {at}, k = {given.k}", fresh["p99"], 10.0),
            figure(f"version committed -> served p99, {at}", served["p99"], 1.0),
        ]
        for stage, value in found["stages_s"].items():
            figure(f"stage {stage} p50, {at}", value["p50"], None)
            figure(f"stage {stage} p99, {at}", value["p99"], None)
        figure(f"probes counted, {at}", found["counted"], None, f"of {found['probes']}")
        if found["uncounted"]:
            print(f"not counted, for example: {found['uncounted'][:3]}", file=sys.stderr)
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
