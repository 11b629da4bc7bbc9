"""What freshness is worth on the flights of 2013: `headrace backtest --example flights --every frozen,1d,1h`.

Three seeds of the default model (the worst counts) and one of `lr`, which must stay below the AUC that a leak of labels
would give it. About 10 minutes each on two quiet cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

SEEDS = (0, 1, 2)


def backtest(**settings: str) -> dict[str, Any]:
    """The command's JSON, and how long it took."""
    began = time.monotonic()
    environment = os.environ | {f"HEADRACE__{key}": value for key, value in settings.items()}
    with tempfile.TemporaryDirectory() as scratch:
        arguments = ["--example", "flights", "--every", "frozen,1d,1h", "--json", "--scratch", scratch]
        command = [sys.executable, "-m", "headrace.cli", "backtest", *arguments]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout) | {"minutes": (time.monotonic() - began) / 60}


def figure(name: str, value: float, unit: str, bar: str, *, holds: bool) -> bool:
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, "bar": bar, "holds": holds}), flush=True)
    return holds


def main() -> int:
    runs = [backtest(TRAIN__SEED=str(seed)) for seed in SEEDS]
    lr = backtest(MODEL__KIND="lr")
    hourly = min(run["1h"]["auc"] for run in runs)
    loss = max(run["1h"]["log_loss"] for run in runs)
    frozen = min(run["frozen"]["auc"] for run in runs)
    hour = min(run["1h"]["auc"] - run["1d"]["auc"] for run in runs)
    day = min(run["1d"]["auc"] - run["frozen"]["auc"] for run in runs)
    longest = max(run["minutes"] for run in (*runs, lr))
    holds = [
        figure("flights, hourly, worst of 3 seeds", hourly, "AUC", ">= 0.710", holds=hourly >= 0.710),
        figure("flights, hourly, worst of 3 seeds, log-loss", loss, "nats", "<= 0.479", holds=loss <= 0.479),
        figure("flights, hourly over daily", hour, "AUC", ">= 0.008", holds=hour >= 0.008),
        figure("flights, daily over frozen", day, "AUC", ">= 0.02", holds=day >= 0.02),
        figure("flights, frozen", frozen, "AUC", ">= 0.63", holds=frozen >= 0.63),
        figure("flights, lr, hourly: no leak", lr["1h"]["auc"], "AUC", "<= 0.73", holds=lr["1h"]["auc"] <= 0.73),
        figure("flights, longest run", longest, "minutes", "<= 25", holds=longest <= 25),
    ]
    for stage, seconds in runs[0]["stages"].items():
        figure(f"flights, stage {stage}", seconds, "s", "shown", holds=True)
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
