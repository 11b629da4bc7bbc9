"""The backtest as a whole, on event files of two shapes; and its twins.

Small files, short periods: what is tested is that the run is honest, exact and resumable, not how good a model is (that
is `benchmarks/`).
"""

from __future__ import annotations

import contextlib
import json
import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import config
from headrace.cli.app import run
from headrace.cli.freshness.arm import Arm
from headrace.cli.freshness.armstore import ArmStore
from headrace.cli.freshness.history import History, read_history
from headrace.cli.freshness.periods import parse_every
from headrace.cli.freshness.replay import Replay
from headrace.cli.report.records import read_records
from headrace.cli.report.reliability import scored
from headrace.errors import LineageError
from headrace.loop import Loop
from headrace.shard import ShardRecord, read_shard
from headrace.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.cli.freshness.report import Result

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.xdist_group("tensorflow"),
    pytest.mark.filterwarnings("ignore"),  # of Beam, TensorFlow and their libraries
]

S = 1_000_000
HOUR = 3_600 * S
DAY = 24 * HOUR
START = 1_704_067_200 * S  # 2024-01-01, a midnight UTC

CLICKS = """
[loop]
name = "clicks"
prior = 0.3
[streams.impression]
source = "events.jsonl"
where = { type = "shown" }
id = "request"
time = "at"
time_unit = "ms"
[streams.click]
source = "events.jsonl"
where = { type = "click" }
id = "request"
time = "at"
time_unit = "ms"
[label]
mode = "implicit"
wait_s = 600
attribution_s = 7200
[features]
user = { kind = "id", path = "who.id" }
place = { kind = "category" }
price = { kind = "number", transform = "log1p" }
age = { kind = "bucket", of = "age_h", edges = [1, 6, 24] }
hour = { kind = "time", of = "at", part = "hour" }
tags = { kind = "ids", max = 3 }
user_x_place = { kind = "cross", of = ["user", "place"] }
[model]
kind = "lr"
"""

LATE = """
[loop]
name = "late"
[streams.impression]
source = "events.parquet"
id = "order"
time = "ordered_at"
[streams.return]
source = "events.parquet"
id = "order"
time = "closed_at"
label = "returned"
[label]
mode = "explicit"
attribution_s = 864000
[features]
customer = { kind = "id" }
shop = { kind = "category" }
amount = { kind = "number" }
[model]
kind = "lr"
"""


def write_clicks(folder: Path, hours: int = 60, per_hour: int = 12) -> list[dict[str, Any]]:
    """JSON lines: nested ids, missing values, lists, clicks within the wait, after it, after the attribution, twice."""
    draw = random.Random(3)
    events = []
    for number in range(hours * per_hour):
        at = START + number * HOUR // per_hour + draw.randrange(HOUR // per_hour)
        user = f"u{min(int(draw.paretovariate(1)), 400)}"
        event = {
            "type": "shown",
            "request": f"r{number}",
            "at": at // 1_000,
            "who": {"id": user},
            "place": draw.choice(["top", "side", None]),
            "price": draw.choice([None, draw.uniform(1, 50)]),
            "age_h": draw.choice([0, 3, 30]),
            "tags": draw.sample(["a", "b", "c", "d", "e"], draw.randrange(4)),
        }
        events.append(event)
        chance = 0.2 + 0.5 * (event["place"] == "top")
        if draw.random() < chance:
            delay_s = draw.choice([30, 599, 1_200, 7_000, 9_000])
            clicks = [{"type": "click", "request": f"r{number}", "at": event["at"] + delay_s * 1_000}]
            events += clicks * draw.choice([1, 1, 2])
    events.sort(key=lambda event: event["at"])
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "headrace.toml").write_text(CLICKS)
    return events


def write_late(folder: Path, days: int = 44, per_day: int = 20) -> pa.Table:
    """Parquet: labels come 7 days after their order, give or take an hour, some never; on day 22 all turns."""
    rng = np.random.default_rng(4)
    rows = days * per_day
    times = START + np.arange(rows) * (DAY // per_day)
    shop = rng.integers(0, 6, rows)
    drifting = (shop + 3 * (np.arange(rows) >= 22 * per_day)) % 6
    closed = pa.array(times + 7 * DAY + rng.integers(-HOUR, HOUR, rows), mask=rng.random(rows) < 0.1)
    table = pa.table(
        {
            "order": pa.array(np.arange(rows)),
            "ordered_at": pa.array(times, pa.timestamp("us", "UTC")),
            "closed_at": closed.cast(pa.timestamp("us", "UTC")),
            "returned": pa.array((rng.random(rows) < 0.1 + 0.8 * (drifting < 2)).astype(np.int8)),
            "customer": pa.array([f"c{number}" for number in rng.integers(0, 90, rows)]),
            "shop": pa.array([f"s{number}" for number in shop]),
            "amount": pa.array(rng.lognormal(3, 1, rows), mask=rng.random(rows) < 0.05),
        }
    )
    pq.write_table(table, folder / "events.parquet")
    (folder / "headrace.toml").write_text(LATE)
    return table


def rows_of(scratch: Path) -> list[tuple[str, int, int, float, str]]:
    """(event id, event time, emit time, label, kind) of every row in the shard log of a run."""
    (loop,) = scratch.glob("*/loop")
    store = open_store(str(loop))
    from headrace.log import Log

    log = Log(store, "shards/log")
    rows = []
    for seq in log.seqs():
        for shard in ShardRecord.from_entry(log.read(seq)).shards:
            table = read_shard(store, shard)
            names = ("impression_id", "event_time_us", "emit_time_us", "label", "row_kind")
            rows += list(zip(*(table[name].to_pylist() for name in names), strict=True))
    return sorted(rows)


def backtest(folder: Path, capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """The command, and its JSON."""
    capfd.readouterr()
    command = ["backtest", "-c", str(folder / "headrace.toml"), "--scratch", str(folder / "scratch"), "--json"]
    assert run([*command, *arguments]) == code, capfd.readouterr()
    return json.loads(capfd.readouterr().out)


def test_implicit_clicks_with_many_kinds_of_features(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events = write_clicks(tmp_path)
    plot = tmp_path / "curve.png"
    found = backtest(tmp_path, capfd, "--every", "frozen,6h,3h", "--plot", str(plot))
    assert list(found) == ["frozen", "6h", "3h", "stages"]
    shown = [event for event in events if event["type"] == "shown"]
    for arm in ("frozen", "6h", "3h"):
        assert set(found[arm]) == {"auc", "log_loss", "calibration", "n"}
        assert found[arm]["n"] == len(shown) - int(0.6 * len(shown))
        assert 0.5 < found[arm]["auc"] < 0.9
    assert {"pipeline", "train", "predict"} <= set(found["stages"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert rows_of(tmp_path / "scratch") == brute_force_clicks(events)
    compare_clicks(tmp_path, capfd, events)
    report_agrees(tmp_path)


def report_agrees(folder: Path) -> None:
    """Rows that `headrace report` scores again, and what the trainer wrote of the same rows when it learned them."""
    (root,) = (folder / "scratch").glob("*/loop")
    loop = Loop(ArmStore(open_store(str(root)), "3h"), "clicks", 0)
    versions = read_records(loop, span_us=None, now_us=1 << 60).versions
    found = scored(loop, versions, 1_000_000)
    learned = [one for one in versions if one.seq > found.reference_version and "frozen" in one.evaluation]
    assert found.frozen
    assert found.versions == (learned[0].seq, learned[-1].seq)
    assert len(found.labels) == found.rows_there == sum(one.evaluation["frozen"]["n"] for one in learned)
    late = loop.version_log().read(found.reference_version).body["gate"]["correction"]
    logits = np.log(found.reference / (1 - found.reference))
    by_trainer = sum(one.evaluation["frozen"]["n"] * one.evaluation["frozen"]["log_loss"] for one in learned)
    assert np.mean(np.logaddexp(0, logits) - found.labels * logits) == pytest.approx(by_trainer / len(logits), rel=1e-5)
    assert late > 0.05, "clicks come after wait_s"


def compare_clicks(folder: Path, capfd: pytest.CaptureFixture[str], events: list[dict[str, Any]]) -> None:
    """The same run beside a model that scored a third of the impressions, and some before the cut."""
    shown = [event["request"] for event in events if event["type"] == "shown"]
    clicks = {(one["request"], one["at"]) for one in events if one["type"] == "click"}
    times = {event["request"]: event["at"] for event in events if event["type"] == "shown"}
    clicked = {request for request, at in clicks if at - times[request] <= 7_200_000}
    scored = shown[int(0.6 * len(shown)) :]
    theirs = {request: (int(request[1:]) % 17 + 1) / 18 for request in shown[::3]}
    lines = [json.dumps({"request": request, "mine": score}) for request, score in theirs.items()]
    (folder / "mine.jsonl").write_text("\n".join(lines))
    mine = str(folder / "mine.jsonl")
    found = backtest(folder, capfd, "--every", "frozen,6h,3h", "--compare", mine, "--score", "mine")
    matched = [place for place, request in enumerate(scored) if request in theirs]
    labels = np.array([scored[place] in clicked for place in matched])
    (run_folder,) = (folder / "scratch").glob("*/scores")
    curves = {arm: np.fromfile(run_folder / f"{arm}.f32", np.float32)[matched] for arm in ("frozen", "6h", "3h")}
    curves["yours"] = np.array([theirs[scored[place]] for place in matched])
    assert list(found) == ["frozen", "6h", "3h", "yours", "stages", "compare"]
    for arm, scores in curves.items():
        p = scores.astype(np.float64)
        assert found[arm]["n"] == len(matched)
        assert found[arm]["log_loss"] == pytest.approx(-np.log(np.where(labels, p, 1 - p)).mean())
        assert found[arm]["calibration"] == pytest.approx(p.sum() / labels.sum())
    assert found["compare"]["matched"] == len(matched)
    assert (found["compare"]["scored"], found["compare"]["rows"]) == (len(scored), len(theirs))
    refused = backtest(folder, capfd, "--compare", mine, "--score", "mime", code=2)
    assert "--score mine" in refused["hint"]
    assert "add --compare FILE" in backtest(folder, capfd, "--score", "mine", code=2)["hint"]


def brute_force_clicks(events: list[dict[str, Any]]) -> list[tuple[str, int, int, float, str]]:
    """Rows of the joiner by its definition, for all that is decided by the last edge."""
    shown = {event["request"]: event["at"] * 1_000 for event in events if event["type"] == "shown"}
    edge = (max(shown.values()) // (3 * HOUR) + 1) * 3 * HOUR
    clicks: dict[str, list[int]] = {}
    for event in events:
        if event["type"] == "click" and event["at"] * 1_000 < edge:
            clicks.setdefault(event["request"], []).append(event["at"] * 1_000)
    rows = []
    for request, at in shown.items():
        delays = sorted(click - at for click in clicks.get(request, ()))
        early = bool(delays) and delays[0] <= 600 * S
        if at + 600 * S < edge:
            rows.append((request, at, at + 600 * S, float(early), "observed"))
        if delays and not early and delays[0] <= 7_200 * S:
            rows.append((request, at, at + delays[0], 1.0, "correction"))
    return sorted(rows)


def test_explicit_labels_that_come_a_week_later(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = write_late(tmp_path)
    found = backtest(tmp_path, capfd, "--every", "frozen,2d,1d", "--warmup", "0.5")
    times = table["ordered_at"].cast(pa.int64()).to_pylist()
    closed = table["closed_at"].cast(pa.int64()).to_pylist()
    labels = table["returned"].to_pylist()
    scored = [i for i in range(len(times)) if i >= len(times) // 2 and closed[i] is not None]
    assert {found[arm]["n"] for arm in ("frozen", "2d", "1d")} == {len(scored)}
    assert found["1d"]["auc"] > found["frozen"]["auc"] + 0.02
    edge = (max(times) // DAY + 1) * DAY
    expected = [
        (str(i), times[i], closed[i], float(labels[i]), "observed")
        for i in range(len(times))
        if closed[i] is not None and closed[i] < edge
    ]
    assert rows_of(tmp_path / "scratch") == sorted(expected)


# the twins


def history_of(folder: Path) -> tuple[config.Settings, History]:
    settings = config.load(folder / "headrace.toml")
    return settings, read_history(settings)


def replayed(folder: Path, settings: config.Settings, history: History, every: str, scratch: str) -> Result:
    replay = Replay(settings, history, parse_every(every), warmup=0.6, scratch=folder / scratch)
    return replay.run()


def delayed(table: pa.Table, after_us: int, by_us: int) -> pa.Table:
    """Feedback with labels after the cut so much later."""
    times = table["_ts"].to_numpy()
    late = np.where(times >= after_us, times + by_us, times)
    moved = table.set_column(table.column_names.index("_ts"), "_ts", pa.array(late))
    return moved.take(pa.array(np.argsort(late, kind="stable"))).combine_chunks()


def test_labels_a_year_late_make_the_live_arm_equal_the_frozen_one(tmp_path: Path) -> None:
    write_late(tmp_path)
    settings, history = history_of(tmp_path)
    cut = int(history.times_us[int(0.6 * len(history.times_us))])
    late = History(
        history.impressions,
        delayed(history.feedback, cut, 365 * DAY),
        {},
        explicit=True,
        wait_us=0,
        attribution_us=10**15,
    )
    result = replayed(tmp_path, settings, late, "frozen,1d", "late")
    assert np.array_equal(result.scores["frozen"], result.scores["1d"])
    assert result.measures()["frozen"].n > 100

    on_time = replayed(tmp_path, settings, history, "frozen,1d", "on-time")
    assert np.array_equal(result.scores["frozen"], on_time.scores["frozen"])
    assert not np.array_equal(on_time.scores["frozen"], on_time.scores["1d"])


def test_labels_let_out_at_event_time_trip_the_assertion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline that takes labels at the time of their impression; the source knows better."""
    write_late(tmp_path)
    settings, history = history_of(tmp_path)
    event_time = dict(zip(history.impressions["_id"].to_pylist(), history.times_us.tolist(), strict=True))
    leaked = np.array([event_time[one] for one in history.feedback["_id"].to_pylist()])
    place = history.feedback.column_names.index("_ts")
    feedback = history.feedback.set_column(place, "_ts", pa.array(leaked))
    feedback = feedback.take(pa.array(np.argsort(leaked, kind="stable"))).combine_chunks()
    leaking = History(
        history.impressions, feedback, {}, explicit=True, wait_us=0, attribution_us=history.attribution_us
    )
    truth = history.truth()
    monkeypatch.setattr(History, "truth", lambda _: truth)
    with pytest.raises(LineageError, match="had learned a label") as leak:
        replayed(tmp_path, settings, leaking, "frozen,1d", "leak")
    assert leak.value.context["events"]

    monkeypatch.undo()  # the twin: believing the pipeline, the leak passes
    result = replayed(tmp_path, settings, leaking, "frozen,1d", "believed")
    assert not math.isnan(result.measures()["1d"].auc)


def test_a_file_whose_labels_have_the_time_of_their_event_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_late(tmp_path)
    text = (tmp_path / "headrace.toml").read_text().replace('time = "closed_at"', 'time = "ordered_at"')
    (tmp_path / "headrace.toml").write_text(text)
    found = backtest(tmp_path, capfd, "--every", "frozen,1d", code=1)
    assert found["error"] == "lineage.leak"
    assert "when the label became known" in found["hint"]


class Killed(BaseException):
    """Stands for Ctrl-C and for kill -9 alike."""


def test_an_interrupted_run_goes_on_and_gives_the_same_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt lives a little longer than the one before."""
    write_clicks(tmp_path, hours=40)
    settings, history = history_of(tmp_path)
    whole = replayed(tmp_path, settings, history, "frozen,4h,2h", "whole")
    lives, left, died = iter(range(5, 100, 4)), [4], []

    def mortal(name: str) -> Any:
        original = getattr(Arm, name)

        def dying(self: Arm, *arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                left[0] = next(lives)
                died.append(name)
                raise Killed
            return original(self, *arguments)

        return dying

    for name in ("score", "learn", "swap"):
        monkeypatch.setattr(Arm, name, mortal(name))
    result = None
    while result is None:
        with contextlib.suppress(Killed):
            result = replayed(tmp_path, settings, history, "frozen,4h,2h", "interrupted")
    assert set(died) == {"score", "learn", "swap"}
    for arm, scores in whole.scores.items():
        assert np.array_equal(scores, result.scores[arm]), arm


def test_limit_takes_the_first_impressions_and_their_feedback(tmp_path: Path) -> None:
    write_clicks(tmp_path)
    settings = config.load(tmp_path / "headrace.toml")
    part, whole = read_history(settings, limit=50), read_history(settings)
    assert part.impressions["_id"].to_pylist() == whole.impressions["_id"].to_pylist()[:50]
    assert set(part.feedback["_id"].to_pylist()) <= set(part.impressions["_id"].to_pylist())
    assert part.fingerprint() != whole.fingerprint()
