"""`headrace status`: what it says of a loop whose rows wait, and that `--watch` ends cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from settings import settings_text

from headrace import clock, config
from headrace import status as beats
from headrace.cli.app import run
from headrace.cli.status import state_of
from headrace.loop import open_loop
from headrace.store import open_store
from pipelines.pipeline import Pipeline
from training.recipe import design_of
from training.start import start_record

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.version import VersionRecord

SETTINGS = settings_text(
    streams={"time": "at", "time_unit": "s"}, impression={"source": "i.jsonl"}, click={"source": "c.jsonl"}
)
T0 = 1_700_000_000

numbers = count()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    shown = [{"id": n, "at": T0 + n, "user": "u"} for n in range(100)]
    (tmp_path / "i.jsonl").write_text("".join(json.dumps(one) + "\n" for one in shown))
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": 1, "at": T0 + 3}) + "\n")
    return tmp_path


def watch(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "headrace.cli", "status", "--watch", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_rows_that_wait_are_counted_and_the_reason_is_said(folder: Path) -> None:
    settings = config.load(folder / "headrace.toml").replace("pipeline", idle_s=3_600)  # however slow the machine is
    loop = open_loop(open_store(settings.loop.root), "feed")
    Pipeline(loop, settings).run(once=True)
    committed = loop.shard_log().head()
    assert committed is not None
    state = state_of(loop, settings, now_us=committed.body["committed_at_us"])
    assert state["waiting_rows"] == sum(shard["rows"] for shard in committed.body["shards"])
    assert {one["partition"].split("/")[0] for one in state["shards"]["clocks"]} == {"impression", "click"}
    assert state["reason"].startswith("no pipeline runs")
    Pipeline(loop, settings).run(drain=True)
    state = state_of(loop, settings, now_us=committed.body["committed_at_us"])
    assert state["waiting_rows"] == 100
    assert state["reason"].startswith("100 rows wait, and no trainer runs")


def version(seq: int, kind: str, **changes: object) -> VersionRecord:
    settings = config.parse(SETTINGS)
    start = start_record(design_of(settings, settings.schema()), settings.schema(), version=0, prior=0.1, now_us=0)
    return replace(start, version=seq, kind=kind, base=seq - 1 if seq else None, created_at_us=seq, **changes)


def written(*records: VersionRecord) -> dict[str, Any]:
    loop = open_loop(open_store(f"memory://status-{next(numbers)}"), "feed")
    head = None
    for record in records:
        head = loop.version_log().append(record.kind, record.to_body(), head)
    found: dict[str, Any] = state_of(loop, config.parse(SETTINGS), now_us=9)["versions"]
    return found


def test_what_was_decided_last_outlives_a_version_that_decided_nothing() -> None:
    trained = version(1, "delta", trained=((0, 1),))
    assert written(version(0, "start"))["decided_us"] is None
    assert written(version(0, "start"), trained, version(2, "delta"), version(3, "pin"))["decided_us"] == 1


def test_freshness_is_that_of_the_version_that_answers_also_where_one_is_pinned() -> None:
    learned = [version(seq, "delta", watermark_us=seq * 1_000_000) for seq in (1, 2, 3)]
    pin = version(4, "pin", pinned=1, watermark_us=3_000_000)
    for records, expected in ((learned, 7.0), ([*learned, pin], 9.0)):
        loop = open_loop(open_store(f"memory://status-{next(numbers)}"), "feed")
        head = None
        for record in (version(0, "start"), *records):
            head = loop.version_log().append(record.kind, record.to_body(), head)
        state = state_of(loop, config.parse(SETTINGS), now_us=10_000_000)
        assert state["freshness_s"] == expected


def test_a_rollback_by_the_trainer_is_told_until_a_verdict_is_good() -> None:
    trial = {"trial": {"rollbacks": 1}}
    back = version(2, "rollback", to=0, held=((0, 1),), gate={"by": "trainer", "reason": "log-loss 2.0", **trial})
    after = version(3, "delta", trained=((1, 2),), gate=trial)
    first = version(0, "start"), version(1, "delta", trained=((0, 1),))
    told = {"version": 2, "to": 0, "reason": "log-loss 2.0"}
    assert written(*first)["rolled_back"] is None
    assert written(*first, back)["rolled_back"] == told
    assert written(*first, back, after)["rolled_back"] == told
    pin = version(4, "pin", gate=trial)
    assert written(*first, back, after, pin)["rolled_back"] == told
    many = [version(seq, "delta", trained=((seq, seq + 1),), gate=trial) for seq in range(3, 70)]
    assert written(*first, back, *many)["rolled_back"] == told
    good = version(4, "delta", trained=((2, 3),), gate={"trial": {"rollbacks": 0}})
    assert written(*first, back, after, good)["rolled_back"] is None


def test_watch_prints_a_line_a_second_and_ends_at_ctrl_c(folder: Path) -> None:
    watching = watch(folder)
    assert watching.stdout is not None
    lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
    watching.send_signal(signal.SIGINT)
    _, talk = watching.communicate(timeout=30)
    assert [line["reason"] for line in lines] == ["no pipeline runs: `headrace up`, or `headrace pipeline run`"] * 2
    assert watching.returncode == 0
    assert "Traceback" not in talk
    assert not (folder / "loop").exists(), "looking must not make a loop"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says when a process began")
def test_down_ends_an_up_that_cannot_say_that_it_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As on a full disk: its last sign is out of date, and its process is there."""
    loop = open_loop(open_store(config.load(folder / "headrace.toml").loop.root), "feed")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        last = replace(beats.beat(loop.store, "up", {}, clock.now_us() + 60 * clock.SECOND_US), pid=process.pid)
        loop.store.overwrite(loop.store.list("status")[0], json.dumps(asdict(last)).encode())
        threading.Thread(target=process.wait, daemon=True).start()  # as its parent, or it stays a zombie
        assert run(["down"]) == 0
        assert "stopped" in capsys.readouterr().err
        assert process.wait() == -signal.SIGTERM
        assert run(["down"]) == 0
        assert "no `headrace up` runs" in capsys.readouterr().err
