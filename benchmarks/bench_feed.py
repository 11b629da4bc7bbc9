"""What five-minute freshness is worth on the synthetic feed, beside a reference: a hashed logistic regression, one
AdaGrad step per example, through the same periods.

Two days of 150,000 impressions; the second is scored, each impression before it is learned (`headrace backtest`, in
event time, through the real stages). Of the gap from the reference's own frozen log-loss to the best possible, headrace
has to close at least what the reference closes: median over SEEDS, which nothing was tuned on. Without drift,
refreshing may cost 0.5 % of the frozen log-loss, and no gate may fire (the backtest ends if one does).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.feed import Impressions, WorldPolicy, generate

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS = (11, 12, 13, 14, 15)
DAYS, PER_DAY, WARM_UP = 2.0, 150_000, 0.5
WAIT_S, PERIOD_S = 1_800, 300
BITS = 20
START_US = 1_700_000_000_000_000
CROSSES = (("user", "topic"), ("user", "author"), ("topic", "slot"), ("item", "slot"))
SINGLE = ("user", "item", "topic", "author", "slot")

SETTINGS = """
[loop]
name = "feed"
prior = 0.07
[streams.impression]
source = "impressions.parquet"
id = "id"
time = "time"
[streams.click]
source = "clicks.parquet"
id = "id"
time = "time"
[label]
mode = "implicit"
wait_s = {wait}
attribution_s = {wait}
[features]
{features}
[pipeline]
window_s = 300
"""


def world(seed: int, *, drift: bool) -> WorldPolicy:
    """The feed of the benchmark; without drift its items stay as they are, too."""
    policy = WorldPolicy(seed=seed, longest_delay_s=WAIT_S - 60)
    return policy if drift else replace(policy, drift=0.0, births=False)


def seconds_of(shown: Impressions) -> np.ndarray:
    return shown.at_h * 3_600


def write(folder: Path, shown: Impressions) -> None:
    """Events and settings of a loop."""
    times = START_US + (seconds_of(shown) * 1e6).astype(np.int64)
    stamps = pa.timestamp("us", "UTC")
    columns = {name: pa.array(getattr(shown, name)) for name in SINGLE}
    impressions = {"id": pa.array(np.arange(len(shown))), "time": pa.array(times, stamps), **columns}
    pq.write_table(pa.table(impressions), folder / "impressions.parquet")
    at = np.flatnonzero(shown.clicked)
    clicks = times[at] + (shown.delay_s[at] * 1e6).astype(np.int64)
    order = np.argsort(clicks, kind="stable")
    table = pa.table({"id": pa.array(at[order]), "time": pa.array(clicks[order], stamps)})
    pq.write_table(table, folder / "clicks.parquet")
    kinds = {"topic": "category", "slot": "category"}
    lines = [f'{name} = {{ kind = "{kinds.get(name, "id")}" }}' for name in SINGLE]
    lines += [f'{a}_x_{b} = {{ kind = "cross", of = ["{a}", "{b}"] }}' for a, b in CROSSES]
    (folder / "headrace.toml").write_text(SETTINGS.format(wait=WAIT_S, features="\n".join(lines)))


class Reference:
    """Hashed logistic regression: w_k <- w_k - lr e / sqrt(1 + sum e^2), e = p - y, one step per example."""

    def __init__(self, lr: float = 0.1) -> None:
        self.weight = np.zeros(1 << BITS)
        self.sum = np.ones(1 << BITS)
        self.bias, self.bias_sum, self.lr = 0.0, 1e-2, lr

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(self.bias + self.weight[rows].sum(axis=1))))

    def learn(self, rows: np.ndarray, labels: np.ndarray) -> None:
        weight, total = self.weight, self.sum
        for row, label in zip(rows, labels.tolist(), strict=True):
            error = 1 / (1 + np.exp(-(self.bias + weight[row].sum()))) - label
            self.bias_sum += error * error
            self.bias -= self.lr * error / self.bias_sum**0.5
            total[row] += error * error
            weight[row] -= self.lr * error / np.sqrt(total[row])


def hashed(shown: Impressions) -> np.ndarray:
    """Rows of the hashed features: int64 [n, 9]."""
    values = {name: np.asarray(getattr(shown, name), np.uint64) for name in SINGLE}
    keys = [values[name] for name in SINGLE] + [values[a] * np.uint64(1_000_003) + values[b] for a, b in CROSSES]
    salted = np.stack([key * np.uint64(2_654_435_761) + np.uint64(97 * at + 1) for at, key in enumerate(keys)], axis=1)
    mixed = (salted ^ (salted >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(64 - BITS)).astype(np.int64)


def reference(shown: Impressions, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the impressions from `first` on: frozen at `first`, and refreshed after every period."""
    rows, seconds = hashed(shown), seconds_of(shown)
    known_at = seconds + WAIT_S  # implicit: a row is learned when its wait is over
    model, learned = Reference(), int(np.searchsorted(known_at, seconds[first]))
    model.learn(rows[:learned], shown.clicked[:learned])
    frozen = model.predict(rows[first:])
    live = np.empty(len(frozen))
    for low, high in periods(seconds, first):
        live[low - first : high - first] = model.predict(rows[low:high])
        until = int(np.searchsorted(known_at, seconds[low] + PERIOD_S)) if high < len(rows) else learned
        model.learn(rows[learned:until], shown.clicked[learned:until])
        learned = max(learned, until)
    return frozen, live


def periods(seconds: np.ndarray, first: int) -> Iterator[tuple[int, int]]:
    """[low, high) of each period from impression `first` on."""
    low = first
    while low < len(seconds):
        high = max(low + 1, int(np.searchsorted(seconds, seconds[low] + PERIOD_S)))
        yield low, high
        low = high


def log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    kept = np.clip(scores, 1e-7, 1 - 1e-7)
    return float(-np.where(labels, np.log(kept), np.log1p(-kept)).mean())


def backtest(folder: Path) -> dict[str, Any]:
    """The command's JSON."""
    command = [sys.executable, "-m", "headrace.cli", "backtest", "-c", str(folder / "headrace.toml"), "--json"]
    command += ["--every", f"frozen,{PERIOD_S}s", "--warmup", str(WARM_UP), "--scratch", str(folder / "scratch")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"backtest ended with {done.returncode}: {done.stdout}")
    return dict(json.loads(done.stdout))


def run(seed: int, *, drift: bool) -> dict[str, float]:
    """Log-losses over the scored half."""
    began_s = time.monotonic()
    shown = generate(world(seed, drift=drift), days=DAYS, per_day=PER_DAY)
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch), shown)
        found = backtest(Path(scratch))
        fired = gates_fired(Path(scratch))
    live = next(value for name, value in found.items() if name not in ("frozen", "stages") and "log_loss" in value)
    first = len(shown) - live["n"]
    frozen_reference, live_reference = reference(shown, first)
    labels = shown.clicked[first:]
    losses = {
        "best": log_loss(labels, shown.p[first:]),
        "reference frozen": log_loss(labels, frozen_reference),
        "reference live": log_loss(labels, live_reference),
        "frozen": found["frozen"]["log_loss"],
        "live": live["log_loss"],
        "gates fired": fired,
        "minutes": (time.monotonic() - began_s) / 60,
    }
    print(f"seed {seed}, drift {drift}: " + ", ".join(f"{k} {v:.5f}" for k, v in losses.items()), file=sys.stderr)
    return losses


def gates_fired(folder: Path) -> int:
    """Versions of all arms that are not what a gate lets through: holds and rollbacks."""
    records = (json.loads(path.read_text()) for path in folder.glob("scratch/**/models/default/log/*.json"))
    kinds = [record["kind"] for record in records]
    if "delta" not in kinds:
        raise SystemExit("the backtest left no versions to look at")
    return sum(kind in ("hold", "rollback") for kind in kinds)


def closed(losses: dict[str, float], name: str) -> float:
    """Share of the gap from the reference's frozen log-loss to the best possible."""
    return (losses["reference frozen"] - losses[name]) / (losses["reference frozen"] - losses["best"])


def figure(name: str, value: float, unit: str, bar: str, *, holds: bool) -> bool:
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, "bar": bar, "holds": holds}), flush=True)
    return holds


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    seeds = options.parse_args().seeds
    runs = [run(seed, drift=True) for seed in seeds]
    ours, theirs = (median(closed(losses, name) for losses in runs) for name in ("live", "reference live"))
    still = run(seeds[0], drift=False)
    cost = still["live"] / still["frozen"] - 1
    holds = [
        figure(f"feed, gap closed, median of {len(seeds)} seeds", ours, "", f">= {theirs:.4f} (reference)",
               holds=ours >= theirs),
        figure("feed, no drift: refreshed over frozen log-loss", 100 * cost, "%", "<= 0.5", holds=cost <= 0.005),
        figure("feed, no drift: gates that fired", still["gates fired"], "", "0", holds=not still["gates fired"]),
    ]  # fmt: skip
    for name in ("best", "reference frozen", "reference live", "frozen", "live"):
        figure(f"feed, log-loss, {name}, median", median(losses[name] for losses in runs), "nats", "", holds=True)
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
