"""`headrace status`: what it says of a loop whose rows wait, and that `--watch` ends cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from headrace import config
from headrace.cli.status import state_of
from headrace.loop import open_loop
from headrace.store import open_store
from pipelines.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = """[loop]
name = "feed"
[streams.impression]
source = "i.jsonl"
id = "id"
time = "at"
time_unit = "s"
[streams.click]
source = "c.jsonl"
id = "id"
time = "at"
time_unit = "s"
[label]
mode = "implicit"
wait_s = 5
attribution_s = 60
[features]
user = { kind = "id" }
"""
T0 = 1_700_000_000


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
    settings = config.load(folder / "headrace.toml")
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
