"""`quarantine retry` says what would be read and why the rest stays, asks a pipeline or reads here, and once only."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest
from settings import settings_text

from headrace import clock, config, status
from headrace.cli.app import run
from headrace.loop import open_loop
from headrace.store import open_store
from pipelines.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = settings_text(
    streams={"time": "at"},
    impression={"source": "shown.jsonl"},
    click={"source": "clicks.jsonl"},
    label={"attribution_s": 3600},
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A loop that refused 10 of 61 events for want of a time zone, and one that is no event at all."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    now_us = clock.now_us() - 60 * clock.SECOND_US
    zones = ["" if n % 6 == 0 else "Z" for n in range(60)]
    times = [clock.iso(now_us + n * 100_000).removesuffix("Z") + zone for n, zone in enumerate(zones)]
    rows = [json.dumps({"id": n, "at": time, "user": f"u{n}"}) for n, time in enumerate(times)]
    (tmp_path / "shown.jsonl").write_text("\n".join([*rows, "{broken"]) + "\n")
    (tmp_path / "clicks.jsonl").write_text("")
    pipeline = Pipeline(open_loop(open_store(str(tmp_path / "loop")), "feed"), config.load("headrace.toml"))
    pipeline.tick()
    pipeline.close()
    return tmp_path


def mend(folder: Path) -> None:
    text = (folder / "headrace.toml").read_text()
    (folder / "headrace.toml").write_text(text.replace('time = "at"', 'time = "at"\ntime_zone = "UTC"', 1))


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert run(["quarantine", *words]) == code
    out = capsys.readouterr()
    return out.out + out.err


def head(folder: Path) -> int:
    entry = open_loop(open_store(str(folder / "loop")), "feed").shard_log().head()
    assert entry is not None
    return entry.seq


def test_before_and_after_the_cause_is_mended(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "none can be read by the settings of now" in said(capsys, "retry")
    assert head(folder) == 0
    mend(folder)
    told = json.loads(said(capsys, "retry", "--dry-run", "--json"))
    assert told == {
        "would_read": 10,
        "kept": {"malformed": 1},
        "was": {"bad_time": {"read": 10}, "malformed": {"malformed": 1}},
    }
    assert head(folder) == 0
    assert "10 events read again, up to shard record 1" in said(capsys, "retry")
    assert "none can be read" in said(capsys, "retry")
    assert head(folder) == 1
    (file,) = json.loads(said(capsys, "list", "--json"))["quarantine"]
    assert (file["rows"], file["retried"]) == (11, 10)
    events = json.loads(said(capsys, "show", "0", "--json"))["events"]
    assert [event.get("retried", False) for event in events] == [*[True] * 10, False]


def test_only_some(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mend(folder)
    told = json.loads(said(capsys, "retry", "0", "--reason", "bad_time", "--json").partition("no pipeline")[0])
    assert (told["read"], told["kept"], told["record"]) == (10, {}, 1)


def test_slips(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'bad_time'?" in said(capsys, "retry", "--reason", "badtime", code=2)
    assert "there is no shard record 7: the newest is 0" in said(capsys, "retry", "3-7", code=1)
    assert "neither a number" in said(capsys, "retry", "x", code=2)
    assert folder.exists()


def test_a_running_pipeline_answers_if_it_has_these_settings(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "BEAT_S", 0.05)
    loop = open_loop(open_store(str(folder / "loop")), "feed")
    ended = threading.Event()

    def live() -> None:
        Pipeline(loop, config.load("headrace.toml").replace("pipeline", tick_s=0.05)).run(stop=ended.is_set)

    old = config.load("headrace.toml")
    mend(folder)
    status.beat(loop.store, "pipeline", {"settings": old.reading}, clock.now_us())
    assert "has other settings than headrace.toml" in said(capsys, "retry", code=2)
    assert loop.requests().head() is None

    (folder / "headrace.toml").write_text((folder / "headrace.toml").read_text() + "[pipeline]\ntick_s = 0.05\n")
    thread = threading.Thread(target=live)
    thread.start()
    try:
        beats = lambda: [beat.info.get("settings") for beat in status.heartbeats(loop.store)]  # noqa: E731
        while config.load("headrace.toml").reading not in beats():
            assert thread.is_alive()
            ended.wait(0.02)
        text = said(capsys, "retry")
    finally:
        ended.set()
        thread.join()
    assert "asked the pipeline" in text
    assert "10 events read again" in text
