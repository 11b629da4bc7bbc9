"""`train` and `retrain` around a stand-in for the trainer: exit codes, JSON, and who answers a request."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from settings import settings_text

from headrace import clock, config, status
from headrace.cli.app import run
from headrace.version import VersionRecord
from training import records
from training.start import write_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.log import Entry
    from headrace.loop import Loop

SETTINGS = settings_text()


SAME = "the parameters are those of version 0"


def append(loop: Loop, kind: str, *, answers: int | None = None) -> Entry:
    """The next version, perhaps as the answer to a request."""
    log = loop.version_log()
    head = log.head()
    assert head is not None
    body = VersionRecord.from_entry(head).to_body() | {"base": head.seq}
    if answers is not None:
        body["requests"] = {"cursor": None, "outcomes": [{"seq": answers, "outcome": "trained"}]}
    return log.append(kind, body, head)


def trainer_of(loop: Loop, monkeypatch: pytest.MonkeyPatch, kinds: list[str]) -> None:
    """Puts a trainer in place that makes these versions, one a step."""

    class Trainer:
        def __init__(self, *_: Any) -> None: ...

        def step(self, *, request: Entry | None = None) -> Entry | None:
            if not kinds:
                return None
            entry = append(loop, kinds.pop(0), answers=request.seq if request else None)
            records.tell(VersionRecord.from_entry(entry))
            return entry

        def run(self, *, stop: Callable[[], bool]) -> None:
            while not stop() and self.step() is not None:
                pass
            stop()

        @property
        def record(self) -> VersionRecord:
            head = loop.version_log().head()
            assert head is not None
            return VersionRecord.from_entry(head)

        def collect(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setitem(sys.modules, "training.trainer", SimpleNamespace(Trainer=Trainer))


@pytest.mark.parametrize(("kinds", "code"), [([], 0), (["delta", "delta"], 0), (["delta", "hold"], 3)])
def test_train_says_what_was_made_and_ends_with_3_after_a_hold(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kinds: list[str], code: int
) -> None:
    trainer_of(loop, monkeypatch, list(kinds))
    assert run(["train", "--json"]) == code
    assert [one["kind"] for one in json.loads(capsys.readouterr().out)["versions"]] == kinds


def test_retrain_trains_here_where_no_trainer_lives(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer_of(loop, monkeypatch, ["delta"])
    assert run(["retrain", "--json"]) == 0
    said = capsys.readouterr()
    assert "training here" in said.err
    assert json.loads(said.out)["version"] == 1


def test_watching_says_every_version(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer_of(loop, monkeypatch, ["delta", "hold"])
    assert run(["train", "--watch"]) == 0
    said = [line.split(" ", 1)[1] for line in capfd.readouterr().err.splitlines()]
    assert said[0].startswith("INFO process.started role=trainer pid=")
    assert "INFO version.committed version=1 kind=delta rows=0 until=-: nothing new to learn: " + SAME in said
    assert "WARNING version.held version=2" in said
    assert said[-1].startswith("INFO process.ended role=trainer lived_s=")


def test_watching_speaks_json_where_that_is_wanted(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer_of(loop, monkeypatch, ["delta"])
    monkeypatch.setenv("HEADRACE__OBSERVE__LOG", "json")
    assert run(["train", "--watch"]) == 0
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [one["line"] for one in said] == [
        "process.started",
        "trainer.ready",
        "version.committed",
        "process.ended",
    ]
    assert said[2] | {"at": ""} == {
        "at": "",
        "level": "info",
        "line": "version.committed",
        "role": "trainer",
        "version": 1,
        "kind": "delta",
        "rows": 0,
        "until": None,
        "message": f"nothing new to learn: {SAME}",
    }


def test_a_second_trainer_is_refused_before_tensorflow_starts(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer_of(loop, monkeypatch, [])
    status.beat(loop.store, "trainer", {}, clock.now_us(), nonce="other")
    assert run(["train", "--once"]) == 1
    said = capfd.readouterr().err
    assert "another trainer runs on this root" in said
    assert "headrace retrain" in said
    assert "TensorFlow" not in said
    assert run(["train", "--watch"]) == 0
    assert "process.waiting role=trainer" in capfd.readouterr().err


def test_retrain_waits_for_the_resident_trainer(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer_of(loop, monkeypatch, ["no trainer of this process may be asked"])
    status.beat(loop.store, "trainer", {}, clock.now_us(), nonce="other")

    def answer() -> None:
        append(loop, "delta")  # a version of its own accord comes first
        while (request := loop.requests().head()) is None:
            time.sleep(0.05)
        append(loop, "delta", answers=request.seq)

    resident = threading.Thread(target=answer)
    resident.start()
    assert run(["retrain", "--json", "--timeout", "20"]) == 0
    resident.join()
    assert json.loads(capsys.readouterr().out)["version"] == 2


def test_a_request_that_is_not_answered_stays(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    status.beat(loop.store, "trainer", {}, clock.now_us(), nonce="other")
    assert run(["retrain", "--json", "--timeout", "0.3"]) == 1
    error = json.loads(capsys.readouterr().out)
    assert "was not answered" in error["message"]
    assert "headrace status" in error["hint"]
    head = loop.requests().head()
    assert head is not None
    assert head.kind == "retrain"


def test_a_lineage_that_begins_with_imported_rows_says_so_and_one_that_loses_them_too(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer_of(loop, monkeypatch, [])
    log = loop.version_log()
    rows = {"of": 1, "path": "models/default/checkpoints/1.npz", "sha256": "", "bytes": 1}
    start = VersionRecord.from_entry(log.read(0)).to_body()
    log.append("start", start | {"checkpoint": rows, "lineage": 1}, log.head())
    assert run(["train"]) == 0
    said = capfd.readouterr().err
    assert "version 1 begins with imported rows" in said
    assert "new lineage" not in said
    Path("headrace.toml").write_text(SETTINGS.replace("user = ", "item = "))
    write_start(loop, config.load("headrace.toml"))
    assert run(["train"]) == 0
    assert "begins without the rows that were imported: `headrace import` again" in capfd.readouterr().err


def test_a_new_lineage_says_what_changed(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer_of(loop, monkeypatch, [])
    assert run(["train"]) == 0
    assert "new lineage" not in capfd.readouterr().err  # the first one
    changed = SETTINGS.replace("user = ", "item = ").replace("[features]", '[model]\nkind = "lr"\n[features]')
    Path("headrace.toml").write_text(changed)
    write_start(loop, config.load("headrace.toml"))
    assert run(["train"]) == 0
    said = capfd.readouterr().err
    assert "version 1 begins a new lineage (without 'user', with 'item', model dcn_v2 -> lr)" in said
