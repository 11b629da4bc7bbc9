"""Forty mistakes in settings and data, as people make them: each is answered by its code, the place, the reason, and a
next step; the test does what the answer says, and then the settings are good.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from headrace.cli.app import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T0 = 1_700_000_000
GOOD = """[loop]
name = "shop"
root = "./loop"
prior = 0.1

[streams.impression]
source = "shown.jsonl"
id = "request"
time = "shown_at"
time_unit = "ms"

[streams.click]
source = "clicks.csv"
id = "request"
time = "clicked_at"
time_unit = "s"

[label]
mode = "implicit"
wait_s = 30
attribution_s = 600

[features]
user = { kind = "id", ttl = "7d" }
item = { kind = "id" }
price = { kind = "number", transform = "log1p" }
age = { kind = "bucket", of = "age_h", edges = [1, 6, 24] }
tags = { kind = "ids", max = 4 }
hour = { kind = "time", part = "hour", time_zone = "UTC" }
user_x_item = { kind = "cross", of = ["user", "item"] }

[train]
every_s = 60
"""
CLICK = '[streams.click]\nsource = "clicks.csv"\nid = "request"\ntime = "clicked_at"\ntime_unit = "s"\n'
Edit = tuple[str, str]


@dataclass(frozen=True)
class Mistake:
    """`wrong` and `step` are edits; `says` (place and reason) and `said` (the step) are parts of the answer."""

    name: str
    wrong: Edit
    code: str
    says: str
    said: str
    step: Edit


def slip(
    name: str, wrong: Edit, says: str, said: str, step: Edit | None = None, code: str = "config.invalid"
) -> Mistake:
    """The step turns the edit back, unless it is said."""
    return Mistake(name, wrong, code, says, said, step or wrong[::-1])


WINDOW = ("[train]", '[serve]\nhost = "0.0.0.0"\n[train]')
SETTINGS = [
    slip("key", ("wait_s = 30", "wiat_s = 30"), "[label] has no setting 'wiat_s'", "'wait_s'"),
    slip("section", ("[train]", "[trian]"), "there is no section [trian]", "'train'"),
    slip(
        "no id",
        ('id = "request"\ntime = "shown_at"', 'time = "shown_at"'),
        "[streams.impression] id is missing",
        "add id",
    ),
    slip("no feedback", (CLICK, ""), "no stream of feedback", "add [streams.click]", ("[label]", f"{CLICK}[label]")),
    slip(
        "impression",
        ("[streams.impression]", "[streams.impresion]"),
        "no [streams.impression]",
        "call it [streams.impression] instead of [streams.impresion]",
    ),
    slip("unit in text", ("wait_s = 30", 'wait_s = "30s"'), "[label] wait_s = '30s': must be a number", "wait_s = 30"),
    slip(
        "minutes",
        ("wait_s = 30", 'wait_s = "2m"'),
        "must be a number",
        "wait_s = 120",
        ('wait_s = "2m"', "wait_s = 120"),
    ),
    slip("negative", ("wait_s = 30", "wait_s = -1"), "[label] wait_s = -1: must be at least 0", "correct wait_s"),
    slip(
        "prior 0",
        ("prior = 0.1", "prior = 0"),
        "must be greater than 0",
        "prior = 0.05",
        ("prior = 0\n", "prior = 0.05\n"),
    ),
    slip("percent", ("prior = 0.1", "prior = 10"), "must be less than 1", "remove it", ("prior = 10\n", "")),
    slip("mode", ('"implicit"', '"implict"'), "[label] mode = 'implict'", "did you mean 'implicit'?"),
    slip(
        "wait",
        ("wait_s = 30", "wait_s = 900"),
        "wait_s = 900 is longer than attribution_s = 600",
        "at least wait_s",
        ("= 600", "= 900"),
    ),
    slip(
        "no label",
        ('"implicit"\nwait_s = 30', '"explicit"'),
        "does not say which column carries the label",
        'use mode = "implicit"',
        ('"explicit"', '"implicit"\nwait_s = 30'),
    ),
    slip(
        "kind",
        ('item = { kind = "id" }', 'item = { kind = "idd" }'),
        "[features] item: kind = 'idd'",
        "did you mean 'id'?",
    ),
    slip(
        "not of the kind",
        ('item = { kind = "id" }', 'item = { kind = "id", edges = [1] }'),
        "edges does not belong",
        "takes column, path, ttl",
    ),
    slip("edges", ("edges = [1, 6, 24]", "edges = [6, 1, 24]"), "edges of bucket 'age'", "edges = [1, 6, 24]"),
    slip("cross", ('["user", "item"]', '["user", "itme"]'), "'itme', which is not a feature", "'item'"),
    slip(
        "cross of a number",
        ('["user", "item"]', '["user", "price"]'),
        "cannot be made of 'price'",
        "a bucket",
        ('["user", "price"]', '["user", "age"]'),
    ),
    slip("zone", ('time_zone = "UTC"', 'time_zone = "Europe/Belin"'), "'Europe/Belin' is not a time zone", '"UTC"'),
    slip("part", ('part = "hour"', 'part = "hours"'), "[features] hour: part = 'hours'", "did you mean 'hour'?"),
    slip(
        "no part",
        ('part = "hour", ', ""),
        "[features] hour: part is missing",
        '"hour"',
        ('kind = "time", ', 'kind = "time", part = "hour", '),
    ),
    slip("ttl", ('ttl = "7d"', 'ttl = "7 days"'), "ttl = '7 days': must be like \"7d\"", "correct ttl"),
    slip("transform", ('"log1p"', '"log"'), "[features] price: transform = 'log'", "did you mean 'log1p'?"),
    slip(
        "reserved",
        ("price = {", "label = {"),
        "a feature cannot be called 'label'",
        "call it my_label",
        ("label = { kind", 'my_label = { column = "price", kind'),
    ),
    slip(
        "cron",
        ("every_s = 60", 'at = "61 * * * *"'),
        "[train] at = '61 * * * *' is no cron line",
        '"0 3 * * *"',
        ("61 *", "0 3"),
    ),
    slip("quotes", ('name = "shop"', "name = shop"), "not valid TOML", "text needs quotes"),
    slip("twice", ("wait_s = 30", "wait_s = 30\nwait_s = 20"), "not valid TOML", "remove one"),
    slip(
        "model",
        ("[train]", '[model]\nkind = "dcn"\n[train]'),
        "[model] kind = 'dcn'",
        "'dcn_v2'",
        ('"dcn"', '"dcn_v2"'),
    ),
    slip(
        "part of a model",
        ("[train]", '[model]\nkind = "lr"\ndim = 4\n[train]'),
        "[model] dim has no meaning",
        "remove dim",
        ("dim = 4\n", ""),
    ),
    slip("host", WINDOW, "host = '0.0.0.0'", '"127.0.0.1"', ("0.0.0.0", "127.0.0.1"), "config.not_implemented"),
    slip(
        "port", ("[train]", "[serve]\nport = 99999\n[train]"), "must be at most 65535", "port = 8500", ("99999", "8500")
    ),
    slip(
        "queue",
        ('"shown.jsonl"', '"kafka://h/t"'),
        "message queues",
        "write the events to a file",
        code="config.not_implemented",
    ),
    slip(
        "ending",
        ('"shown.jsonl"', '"shown.txt"'),
        "format of",
        '"json"',
        ('"shown.txt"', '"shown.txt"\nformat = "json"'),
    ),
    slip(
        "file",
        ('"shown.jsonl"', '"shwon.jsonl"'),
        "[streams.impression] source: there is no",
        "correct `source`",
        code="source.vanished",
    ),
    slip(
        "csv column",
        ('"clicked_at"', '"click_at"'),
        "clicks.csv has no column 'click_at'",
        "'clicked_at'",
        code="event.missing_feature",
    ),
    slip(
        "column",
        ('of = "age_h"', 'of = "age_hours"'),
        "reads 'age_hours', but none of 400",
        "'age_h'",
        code="event.missing_feature",
    ),
    slip("feature", ("item = {", "itme = {"), "'item', which is not a feature", "'itme'"),
    slip(
        "where",
        ('source = "shown.jsonl"', 'source = "shown.jsonl"\nwhere = { user = "u" }'),
        "where compares 'user'",
        "of the type that the events have",
        ('"u" }', "7 }"),
        "event.wrong_type",
    ),
    slip("unit", ('time_unit = "ms"', 'time_unit = "s"'), "(bad_time)", 'time_unit = "ms" fits', code="bad"),
    slip(
        "other unit",
        ('time_unit = "s"', 'time_unit = "ms"'),
        "lie before the year 2000",
        'time_unit = "s" fits',
        ('clicked_at"\ntime_unit = "ms"', 'clicked_at"\ntime_unit = "s"'),
        "bad",
    ),
    slip(
        "no unit",
        ('\ntime_unit = "ms"', ""),
        "(time_without_unit)",
        'time_unit = "ms" fits',
        ('"shown_at"', '"shown_at"\ntime_unit = "ms"'),
        "bad",
    ),
    slip("time", ('"shown_at"', '"showed_at"'), "(missing_time)", "did you mean 'shown_at'?", code="bad"),
    slip("id", ('id = "request"', 'id = "reqest"'), "(missing_id)", "did you mean 'request'?", code="bad"),
]

DATA: list[tuple[str, Callable[[dict[str, Any]], Any], str, str]] = [
    (
        "numbers in quotes",
        lambda event: event | {"price": str(event["price"])},
        "(wrong_type)",
        "write price without quotes",
    ),
    (
        "half a line",
        lambda event: json.dumps(event)[: 20 + event["user"] % 2 * 500],
        "(malformed)",
        "mend what writes them",
    ),
    ("no id", lambda event: {k: v for k, v in event.items() if k != "request"}, "(missing_id)", "request"),
    ("a text where a list is due", lambda event: event | {"tags": "a,b"}, "(wrong_type)", "tags = "),
]


def write(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda event: event) -> None:
    rows = [
        {
            "request": f"r{i}",
            "shown_at": (T0 + i * 60) * 1_000,
            "user": i % 40,
            "item": f"i{i % 9}",
            "price": (i % 50) / 4,
            "age_h": i % 30,
            "tags": ["a", "b"],
        }
        for i in range(400)
    ]
    changed = [change(row) for row in rows]
    lines = [one if isinstance(one, str) else json.dumps(one) for one in changed]
    (folder / "shown.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "shown.txt").write_text((folder / "shown.jsonl").read_text())
    clicks = "".join(f"r{i},{T0 + i * 60 + 20}\n" for i in range(0, 400, 4))
    (folder / "clicks.csv").write_text(f"request,clicked_at\n{clicks}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    (tmp_path / "headrace.toml").write_text(GOOD)
    return tmp_path


def check(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run(["config", "check"])
    said = capsys.readouterr()
    return code, said.out + said.err


def edited(text: str, edit: Edit) -> str:
    assert edit[0] in text
    return text.replace(edit[0], edit[1], 1)


def test_there_are_forty_and_the_settings_are_good_without_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(SETTINGS) + len(DATA) >= 40
    code, said = check(capsys)
    assert code == 0, said


@pytest.mark.parametrize("mistake", SETTINGS, ids=lambda mistake: mistake.name)
def test_a_mistake_in_the_settings(folder: Path, capsys: pytest.CaptureFixture[str], mistake: Mistake) -> None:
    wrong = edited(GOOD, mistake.wrong)
    (folder / "headrace.toml").write_text(wrong)
    code, said = check(capsys)
    assert code in (2, 4), said
    assert mistake.says in said
    assert mistake.said in said
    if mistake.code == "bad":
        assert "BAD" in said
    else:
        assert f"code: {mistake.code}" in said
        assert re.search(r"^  fix: .", said, re.MULTILINE)
    (folder / "headrace.toml").write_text(edited(wrong, mistake.step))
    code, said = check(capsys)
    assert code == 0, said


@pytest.mark.parametrize(("name", "change", "says", "step"), DATA, ids=[name for name, *_ in DATA])
def test_a_mistake_in_the_events(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, change: Any, says: str, step: str
) -> None:
    write(folder, change)
    code, said = check(capsys)
    assert code == 4, said
    assert says in said
    assert step in said
    write(folder)
    code, said = check(capsys)
    assert code == 0, said
