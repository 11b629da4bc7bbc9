"""What a week in MLflow takes: 1,440 versions a day for seven simulated days, on sqlite.

    python benchmarks/bench_tracking.py

The tracker is the one that `headrace track` runs; the version log is made by hand, with the figures that a trainer
records, a snapshot every 50 versions, and a hold every 200. The clock is in the records, so a week takes minutes. The
database's budget is what notes on MLflow say that a run for each version would take: 9.6 KiB a version, 14 MB a day.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from handmade import SPECS, Publisher, linear_tower  # noqa: E402
from settings import ITEM, PRICE, TAGS, UNREAD, USER, settings_text  # noqa: E402

from headrace.config import parse  # noqa: E402
from headrace.ids import id_of  # noqa: E402
from headrace.loop import open_loop  # noqa: E402
from headrace.store import open_store  # noqa: E402
from training.tracking import Tracker, open_client  # noqa: E402

DAYS, A_DAY = 7, 1_440
MINUTE_US = 60_000_000
FIRST_US = 20_000 * 1_440 * MINUTE_US
BUDGET = 14_000_000
SETTINGS = settings_text(
    USER, ITEM, TAGS, PRICE, 'u_x_i = { kind = "cross", of = ["user", "item"] }', loop={"name": "week"}, **UNREAD
)


def figures_of(number: int) -> dict[str, Any]:
    """The evaluation of one version: live and frozen, as training/evaluate.py measures."""
    noise = (number * 7_919 % 1_000) / 10_000
    one = {"n": 60_000, "positives": 6_000.0, "log_loss": 0.3 + noise, "auc": 0.7 + noise, "calibration": 1.0 + noise}
    one["normalised_entropy"] = 0.9 + noise
    return {"live": {**one, "excess": noise}, "frozen": {"of": 1, **one}}


def publish(publisher: Publisher, number: int) -> None:
    at_us = FIRST_US + number * MINUTE_US
    gate = {"action": "publish", "reasons": []}
    if number % 200 == 199:
        gate = {"action": "hold", "reasons": ["surprise: the labels of a record are 12.0 standard deviations worse"]}
    rows = {spec.name: {id_of("user", f"u{number % 1_000}"): [0.1] * spec.width} for spec in SPECS}
    tower = linear_tower(len(SPECS[1].features), SPECS[1].width, 2) if number == 1 else None
    publisher.delta(rows, tower=tower, gate=gate, created_at_us=at_us, evaluation=figures_of(number))
    if number % 50 == 0:
        publisher.snapshot()


def report(name: str, value: float, unit: str, bar: str, holds: bool) -> bool:
    print(json.dumps({"name": name, "value": value, "unit": unit, "bar": bar, "holds": holds}), flush=True)
    return holds


def main() -> int:
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        settings = parse(SETTINGS, folder=Path(folder))
        loop = open_loop(open_store("memory://week"), "week")
        publisher = Publisher(loop.store)
        publisher.start(created_at_us=FIRST_US)
        tracker = Tracker(loop, settings, connect=lambda: open_client(uri))
        tracked_s: list[float] = []
        for number in range(1, DAYS * A_DAY):
            publish(publisher, number)
            if number % 10 == 9:  # the trainer is faster than the tracker's second only after an absence
                began = time.perf_counter()
                tracker.step()
                tracked_s.append((time.perf_counter() - began) / 10)
                if number % A_DAY == 9:
                    print(f"day {number // A_DAY + 1} of {DAYS}", file=sys.stderr)
        client = open_client(uri)
        (experiment,) = (found for found in client.search_experiments() if found.name == "week")
        times = []
        for _ in range(20):
            began = time.perf_counter()
            runs = client.search_runs([experiment.experiment_id])
            times.append(time.perf_counter() - began)
        a_day = (Path(folder) / "mlflow.db").stat().st_size / DAYS
        files = sum(path.stat().st_size for path in (Path(folder) / "mlartifacts").rglob("*") if path.is_file())
        models = len(client.search_model_versions("name = 'week'"))
        steps = len(client.get_metric_history(runs[1].info.run_id, "live/log_loss"))
        search_s = statistics.median(times)
        held = [
            report(f"MLflow: runs for {DAYS} days of 1,440 versions", len(runs), "", f"{DAYS}", len(runs) == DAYS),
            report("MLflow: steps of a whole day", steps, "", f"{A_DAY}", steps == A_DAY),
            report("MLflow: search_runs, p50", round(search_s, 3), "s", "< 0.2", search_s < 0.2),
            report("MLflow: database for a day", round(a_day / 1e6, 1), "MB", "<= 14", a_day <= BUDGET),
            report("MLflow: model versions kept", models, "", "<= 5", models <= 5),
            report("MLflow: files", round(files / 1e6, 1), "MB", "", True),
            report("MLflow: time to log a version, p50", round(statistics.median(tracked_s) * 1e3, 1), "ms", "", True),
        ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
