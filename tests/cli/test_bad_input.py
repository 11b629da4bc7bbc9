"""Bad input, as a user meets it: each answer names the place, says why and what to do, and nothing is lost."""

from __future__ import annotations

import gzip
import json
import socket
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from settings import PRICE, USER, settings_text

from headrace import config
from headrace.cli.app import run
from headrace.loop import open_loop
from headrace.shard import ShardRecord
from headrace.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = settings_text(USER, PRICE, streams={"time_unit": "s"})
EVENTS = [{"id": i, "at": 1_700_000_000 + i, "user": f"u{i}", "price": i / 2} for i in range(200)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    write(tmp_path, EVENTS)
    return tmp_path


def write(folder: Path, events: list[dict[str, Any]]) -> None:
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def change(folder: Path, old: str, new: str) -> None:
    text = (folder / "headrace.toml").read_text()
    assert old in text
    (folder / "headrace.toml").write_text(text.replace(old, new, 1))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> dict[str, Any]:
    """The error of a command: as JSON, and the same for people."""
    assert run([*arguments]) == code
    people = capsys.readouterr().err
    assert "Traceback" not in people
    assert run([*arguments, "--json"]) == code
    error = json.loads(capsys.readouterr().out)
    assert error["message"] in people
    assert error["hint"], error
    return dict(error)


@pytest.mark.parametrize(
    ("old", "new", "place", "hint"),
    [
        ("wait_s = 5", "wait = 5", "[label]", "'wait_s'"),
        ("wait_s = 5", 'wait_s = "soon"', "wait_s", ""),
        ("[label]", "[lable]", "[lable]", "'label'"),
        ('kind = "id"', 'kind = "identity"', "user", ""),
        ("wait_s = 5", "wait_s =", "line 15", "quotes"),
        ('"events.jsonl"', '"kafka://host/t"', "[streams.impression] source", "file"),
    ],
)
def test_settings(folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, place: str, hint: str) -> None:
    change(folder, old, new)
    assert run(["config", "check"]) == 2
    said = capsys.readouterr().err
    assert "headrace.toml" in said
    assert place in said
    assert hint in said.split("fix:")[1] if hint else True


def test_a_feature_that_no_event_has(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, "user = ", "visitor = ")
    error = refused(capsys, "config", "check", code=4)
    assert error["error"] == "event.missing_feature"
    assert "visitor" in error["message"]


def test_a_time_without_unit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, 'time_unit = "s"\n', "")
    assert run(["config", "check"]) == 4
    assert "refused 200 (time_without_unit)" in (said := capsys.readouterr().out)
    assert 'add time_unit = "s"' in said


def test_events_of_which_many_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, [{**event, "price": "much"} for event in EVENTS[:100]] + EVENTS[100:])
    assert run(["config", "check", "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert found["streams"]["impression"]["refused"] == {"wrong_type": 100}


def test_a_source_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "events.jsonl").unlink()
    error = refused(capsys, "config", "check", code=4)
    assert error["error"] == "source.vanished"
    assert "events.jsonl" in error["message"]


@pytest.mark.parametrize(
    "data", [b"id\rx,at,user,price\n1,1,u,2\n", b"\x00\x01\r\x02\n" * 99, b"x" * 140_000 + b"\n\n"]
)
def test_a_csv_file_that_is_none(folder: Path, capsys: pytest.CaptureFixture[str], data: bytes) -> None:
    text = SETTINGS.replace("events.jsonl", "events.csv")
    (folder / "headrace.toml").write_text(text)
    (folder / "events.csv").write_bytes(data)
    error = refused(capsys, "config", "check", code=4)
    assert error["error"] == "source.failed"
    for command in (["init", "--from", "events.csv", "-c", "other.toml"], ["inspect"], ["pipeline", "run", "--once"]):
        assert run(command) in (1, 2, 4)
        said = capsys.readouterr().err
        assert error["message"] in said
        assert "events.csv does not name columns" in said
        assert "source.failed" in said


def test_a_root_of_a_newer_headrace(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "loop").mkdir()
    (folder / "loop" / "loop.json").write_text('{"format": 99, "name": "feed", "created_us": 0}')
    error = refused(capsys, "status", code=1)
    assert error["error"] == "log.newer"
    assert "upgrade" in error["hint"]


def test_a_root_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, 'name = "feed"', 'name = "feed"\nroot = "./events.jsonl/loop"')
    error = refused(capsys, "retrain", code=1)
    assert error["error"].startswith("store.")
    assert "events.jsonl" in error["message"]


@pytest.mark.parametrize(
    ("root", "cause", "hint"),
    [("events.jsonl/loop", "Not a directory", "a part of that path is a file"), ("/proc/nope", "No such", "choose")],
)
def test_a_root_that_cannot_be_is_named_with_its_cause(
    folder: Path, capsys: pytest.CaptureFixture[str], root: str, cause: str, hint: str
) -> None:
    change(folder, 'name = "feed"', f'name = "feed"\nroot = "{root}"')
    assert run(["pipeline", "run", "--once"]) == 1
    said = capsys.readouterr().err
    assert "[loop] root = " in said
    assert cause in said
    assert hint in said
    assert run(["doctor"]) == 4
    assert "BAD  root" in capsys.readouterr().out


def test_doctor_says_what_stops_the_pipeline(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from headrace.shard import Range
    from pipelines.sources.files import FileSource

    loop = open_loop(open_store(str(folder / "loop")), "feed")
    source = FileSource(str(folder / "events.jsonl"))
    read = source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=True)
    assert read is not None
    ranges = tuple(
        Range(name, "files", read.identity, read.position, read.position) for name in ("click", "impression")
    )
    body = ShardRecord(0, ranges, 1, 0, 0, 0, (), (), {}, "f", "0", 0).to_body()
    loop.shard_log().append("shard", body, None)
    run(["doctor"])
    assert "ok   pipeline     the sources are as they were read" in capsys.readouterr().out
    write(folder, EVENTS[:100])
    assert run(["doctor"]) == 4
    said = capsys.readouterr().out
    assert "BAD  pipeline" in said
    assert "were read from it" in said


def test_doctor_names_a_file_whose_end_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, [event | {"clicked": event["at"] + 1} for event in EVENTS])
    change(folder, '"events.jsonl"', '"events.jsonl.gz"')
    data = gzip.compress((folder / "events.jsonl").read_bytes())
    for end, said in ((b"", False), (b"garbage", True)):
        (folder / "events.jsonl.gz").write_bytes(data + end)
        assert run(["pipeline", "run", "--once"]) == 0
        capsys.readouterr()
        run(["doctor"])
        assert ("; events.jsonl.gz cannot be read to its end" in capsys.readouterr().out) == said


@pytest.mark.parametrize("late", [False, True])
def test_a_last_file_that_is_not_whole_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], *, late: bool
) -> None:
    """It is waited for; a later file ends that."""
    (folder / "in").mkdir()
    change(folder, '"events.jsonl"', '"in/"')
    both = [event | {"clicked": event["at"] + 1} for event in EVENTS]
    write(folder, both)
    table = pa.Table.from_pylist(both)
    pq.write_table(table, folder / "in" / "a.parquet")
    (folder / "in" / "b.parquet").write_bytes((folder / "in" / "a.parquet").read_bytes()[:-9])
    if late:
        pq.write_table(table, folder / "in" / "c.parquet")
    assert run(["pipeline", "run", "--once"]) == 0
    capsys.readouterr()
    for command in (["pipeline", "plan"], ["doctor"]):
        run(command)
        assert ("b.parquet is not whole: it is waited for" in capsys.readouterr().out) == (not late)
    assert run(["pipeline", "plan"]) == 0
    assert ("every source is read to its end" in capsys.readouterr().out) == late


def test_ports_out_of_range_are_a_usage_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert folder.exists()
    assert run(["serve", "--port", "70000"]) == 2
    assert "65535" in capsys.readouterr().err


def test_warmups_are_checked_before_anything_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "events.jsonl").unlink()
    assert run(["backtest", "--warmup", "2"]) == 2
    assert "reading" not in capsys.readouterr().err


@pytest.fixture
def record(folder: Path) -> Path:
    """A loop with one empty shard record; the file of the record."""
    loop = open_loop(open_store(str(folder / "loop")), "feed")
    body = ShardRecord(0, (), 1, 0, 0, 0, (), (), {}, "f", "0", 0).to_body()
    loop.shard_log().append("shard", body, None)
    return folder / "loop" / "shards" / "log" / "000000000000.json"


def test_a_broken_record(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    data = bytearray(record.read_bytes())
    data[len(data) // 2] ^= 1
    record.write_bytes(data)
    error = refused(capsys, "status", code=4)
    assert error["error"] == "log.damaged"
    assert "000000000000.json" in error["message"]
    assert run(["log", "verify"]) == 4
    said = capsys.readouterr().out
    assert "DAMAGED" in said
    assert "000000000000.json" in said
    assert run(["doctor"]) == 4
    assert "BAD  logs" in capsys.readouterr().out


def test_versions_and_quarantine_that_are_not_there(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record.exists()
    assert refused(capsys, "versions", "show", "7", code=1)["error"] == "store.not_found"
    assert "quarantine list" in refused(capsys, "quarantine", "show", "0", code=1)["hint"]


def test_init_does_not_overwrite(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, "init", "--from", "events.jsonl", code=2)
    assert "--force" in error["hint"]
    assert (folder / "headrace.toml").read_text() == SETTINGS


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("nowhere.parquet", None, "nowhere.parquet is not there"),
        ("events.xlsx", "x", ".xlsx"),
        ("broken.parquet", "PAR1", "cannot be read as the ending of broken.parquet says"),
        ("empty.jsonl", "", "has no event"),
    ],
)
def test_init_from_what_cannot_be_read(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, part: str
) -> None:
    if content is not None:
        (folder / name).write_text(content)
    error = refused(capsys, "init", "--from", name, "-c", "other.toml", code=1)
    assert part in error["message"]
    assert not (folder / "other.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--every", "hourly"], "'hourly'"),
        (["--every", "7h,1d"], "multiple"),
        (["--example", "trains"], "'trains'"),
        (["--warmup", "1.5"], "between 0 and 1"),
    ],
)
def test_backtests_that_cannot_be(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    write(folder, [{**event, "clicked": event["at"] + 1} for event in EVENTS])
    assert part in refused(capsys, "backtest", *arguments, code=2)["message"]


def test_a_port_in_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert folder.exists()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(["serve", "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert f"port {port}" in said
    assert "fix: " in said
    assert "serving.port_in_use" in said


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    from paramserver.server import Server
    from training.start import write_start

    settings = config.load(folder / "headrace.toml")
    loop = open_loop(open_store(settings.loop.root), "feed")
    write_start(loop, settings)
    running = Server(loop, settings, port=0)
    running.start()
    assert running.wait_until_serving(10)
    yield running.address
    running.stop()


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        ('{"user": "u", "price": 1, "colour": "red"}', "colour"),
        ('{"user": "u"}', "price"),
        ('{"user": ["a", "b"], "price": [1, 2, 3]}', "2 values"),
        (json.dumps({"user": "u", "price": [1.0] * 1_001}), "1001 candidates"),
        ('{"user": "u", "price": "cheap"}', "price"),
        ("user", "name=value"),
    ],
)
def test_predict(server: str, capsys: pytest.CaptureFixture[str], request_: str, part: str) -> None:
    error = refused(capsys, "predict", request_, "--address", server, code=2)
    assert error["error"] == "serving.invalid_request"
    assert part in error["message"]


def test_a_missing_value_is_an_empty_one(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "user=", "price=", "--address", server]) == 0
    assert "version 0, nothing learned yet" in capsys.readouterr().err
    assert run(["predict", "user=u1", "--address", server]) == 2
    assert "`price=`" in capsys.readouterr().err


def test_predict_answers(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "user=u1", "price=2", "--address", server, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["scores"] == [pytest.approx(0.05)]
    assert answer["version"] == 0


def test_predict_without_a_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert folder.exists()
    error = refused(capsys, "predict", "user=u1", "price=2", "--address", "127.0.0.1:1", code=1)
    assert error["error"] == "serving.unreachable"
    assert "headrace serve" in error["hint"]
