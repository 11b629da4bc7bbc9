"""`config check` says what stands in the events and what would stop the pipeline; quarantine names the value, too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from headrace import clock, config, status
from headrace.cli.app import run
from headrace.cli.culprit import Culprits
from headrace.loop import open_loop
from headrace.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = """[loop]
name = "feed"
[streams.impression]
source = "events.jsonl"
where = { type = "impression" }
id = "id"
time = "at"
time_unit = "s"
[streams.click]
source = "events.jsonl"
where = { type = "click" }
id = "id"
time = "at"
time_unit = "s"
[label]
mode = "implicit"
wait_s = 5
attribution_s = 60
[features]
user = { kind = "id" }
price = { kind = "number", path = "item.price" }
"""
AT = 1_700_000_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    write(tmp_path, events())
    return tmp_path


def events(at: int = AT) -> list[dict[str, Any]]:
    shown = [{"type": "impression", "id": i, "at": at + i, "user": f"u{i}", "item": {"price": i}} for i in range(100)]
    return [*shown, *({"type": "click", "id": i, "at": at + i + 1} for i in range(9))]


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def change(folder: Path, old: str, new: str) -> None:
    text = (folder / "headrace.toml").read_text()
    assert old in text
    (folder / "headrace.toml").write_text(text.replace(old, new, 1))


def checked(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert run(["config", "check"]) == code
    said = capsys.readouterr()
    return said.out + said.err


def test_first_and_last_event_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert folder.exists()
    assert "100 good, from 2023-11-14T22:13:20Z to 2023-11-14T22:14:59Z" in checked(capsys, 0)


@pytest.mark.parametrize(
    ("unit", "part"),
    [("ms", "100 events lie before the year 2000"), ("us", 'time_unit = "s" fits')],
)
def test_a_wrong_unit_is_noticed(folder: Path, capsys: pytest.CaptureFixture[str], unit: str, part: str) -> None:
    change(folder, 'time_unit = "s"', f'time_unit = "{unit}"')
    assert part in checked(capsys, 4)


def test_a_unit_that_makes_times_unreadable_is_noticed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, events(AT * 1_000))
    said = checked(capsys, 4)
    assert "at = 1700000000000" in said
    assert 'time_unit = "ms" fits' in said


def test_events_of_the_future_are_noticed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, events(clock.now_us() // clock.SECOND_US + 86_400))
    assert "refused 100 (future)" in checked(capsys, 4)


def test_a_where_that_picks_nothing_names_what_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, '"click"', '"clik"')
    assert "type = 'clik', but 'type' has impression, click" in checked(capsys, 4)
    change(folder, 'type = "clik"', 'tpe = "click"')
    assert "there is no 'tpe'" in checked(capsys, 4)


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [("user =", "usr =", "did you mean 'user'?"), ('"item.price"', '"price"', 'did you mean path = "item.price"?')],
)
def test_a_column_that_is_not_there_has_a_neighbour(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, hint: str
) -> None:
    change(folder, old, new)
    assert hint in checked(capsys, 4)


def test_a_column_that_a_csv_does_not_have_has_a_neighbour(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "events.csv").write_text(f"id,at,type,usr,item\n1,{AT},impression,u,i\n")
    (folder / "headrace.toml").write_text(SETTINGS.replace(".jsonl", ".csv").replace(', path = "item.price"', ""))
    change(folder, "price = ", "item = ")
    assert "did you mean 'usr'?" in checked(capsys, 4)


def test_a_source_that_is_not_there_names_its_setting(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "events.jsonl").unlink()
    for command in (["config", "check"], ["pipeline", "plan"]):
        assert run(command) != 0
        assert "[streams.impression] source: there is no" in capsys.readouterr().err


def test_refused_values_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, [*events(), {"type": "impression", "id": 7, "at": AT, "user": "u", "item": {"price": "cheap"}}])
    assert "refused 1 (wrong_type)" in (said := checked(capsys, 0))
    assert 'item.price = "cheap"' in said


@pytest.mark.parametrize(
    ("line", "reason", "found"),
    [
        ("7,2024-01-01T00:00:00Z,cheap,1", "wrong_type", ("price", '"cheap"')),
        ("7,2024-01-01T00:00:00Z,1e99,1", "out_of_range", ("price", '"1e99"')),
        ("7,2024-01-01T00:00:00Z,3,yes", "wrong_type", ("bought", '"yes"')),
        ("7,soon,3,true", "bad_time", ("at", '"soon"')),
        ("7,2024-01-01T00:00:00Z,NA,7", "label_range", ("bought", '"7"')),
        ("7", "malformed", ("", "")),
        ("7\r8,2024-01-01T00:00:00Z,3,1", "malformed", ("", "")),
    ],
)
def test_the_value_of_a_csv_line_that_was_the_reason(tmp_path: Path, line: str, reason: str, found: object) -> None:
    text = SETTINGS.replace("events.jsonl", "events.csv").replace("where", "#").replace('time_unit = "s"', "")
    text = text.replace('"implicit"\nwait_s = 5', '"explicit"').replace("[label]", 'label = "bought"\n[label]')
    settings = config.parse(text.replace(', path = "item.price"', ""), folder=tmp_path)
    (tmp_path / "events.csv").write_text("id,at,price,bought\n")
    streams = [Culprits(settings, name, tmp_path / "events.csv") for name in settings.streams]
    assert found in [culprits.of(reason, line.encode(), "events.csv") for culprits in streams]


def test_labels_in_words_are_told_how_to_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SETTINGS.replace("events.jsonl", "events.csv").replace("where", "#").replace(', path = "item.price"', "")
    text = text.replace('"implicit"\nwait_s = 5', '"explicit"').replace("[label]", 'label = "bought"\n[label]')
    (folder / "headrace.toml").write_text(text)
    (folder / "events.csv").write_text(f"id,at,user,price,bought\n1,{AT},u,2,yes\n2,{AT},u,2,no\n")
    assert "write labels as 1 and 0, or true and false" in (said := checked(capsys, 4))
    assert 'bought = "yes"' in said


def test_quarantine_names_the_value(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa

    from headrace.quarantine import COLUMNS, write_quarantine
    from headrace.shard import ShardRecord

    loop = open_loop(open_store(str(folder / "loop")), "feed")
    raw = json.dumps({"id": 1, "at": AT, "item": {"price": "cheap"}}).encode()
    row = dict.fromkeys(COLUMNS.names) | {"stream": "impression", "reason": "wrong_type", "raw": raw}
    rows = pa.Table.from_pylist([row | {"offset": "events.jsonl:0"}], COLUMNS)
    named = write_quarantine(loop.store, rows, path="shards/quarantine/0.parquet", fingerprint="f")
    body = ShardRecord(0, (), 1, 0, 0, 0, (), (), {}, "f", "0", 0).to_body()
    loop.shard_log().append("shard", body | {"quarantine": [vars(named)]}, None)
    assert run(["quarantine", "list"]) == 0
    assert 'item.price = "cheap"' in capsys.readouterr().out
    assert run(["quarantine", "show", "0"]) == 0
    assert 'because=item.price = "cheap"' in capsys.readouterr().out


def test_a_second_pipeline_is_refused_before_beam_starts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = open_loop(open_store(str(folder / "loop")), "feed")
    status.beat(loop.store, "pipeline", {}, clock.now_us(), nonce="other")
    assert run(["pipeline", "run", "--once"]) == 1
    said = capsys.readouterr().err
    assert "another pipeline runs on this root" in said
    assert "it reads what is new by itself" in said


def test_a_value_in_csv_with_semicolons_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["type;id;at;user;price", "impression;b;1700000001;u1;1,5", "click;a;1700000003;;"]
    lines += [f"impression;{n};1700000000;u0;2" for n in range(9)]
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    (folder / "headrace.toml").write_text(
        SETTINGS.replace("events.jsonl", "events.csv").replace('path = "item.price"', 'column = "price"')
    )
    said = checked(capsys, 0)
    assert "refused 1 (wrong_type)" in said
    assert 'price = "1,5"' in said
