"""`headrace inspect` as a user calls it."""

from __future__ import annotations

import json

import pytest
from settings import USER, settings_text

from headrace.cli.app import run

T0 = 1_700_000_000
SETTINGS = settings_text(
    USER,
    'site = { kind = "category" }',
    loop={"name": "t"},
    streams={"time_unit": "s"},
    impression={"source": "shown.jsonl", "time": "t"},
    click={"source": "clicks.jsonl", "time": "at"},
    label={"wait_s": 30, "attribution_s": 600},
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    shown = [{"id": f"r{i}", "t": T0 + 60 * i, "user": i % 50, "site": "x"} for i in range(1_000)]
    text = "".join(json.dumps(one) + "\n" for one in shown)
    (tmp_path / "shown.jsonl").write_text('{"id": \n' * 10 + text + json.dumps(shown[3]) + "\n")
    clicks = [{"id": f"r{i}", "at": T0 + 60 * i + (20 if i % 5 else 200)} for i in range(0, 1_000, 2)]
    (tmp_path / "clicks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in clicks))
    return tmp_path


def test_words(folder, capsys):
    assert run(["inspect", "--plot", "look.png"]) == 0
    text = capsys.readouterr().out
    assert "refused 10 (malformed)" in text
    assert "1 impressions come more than once" in text
    assert "500 of 1,000 impressions have feedback within attribution_s = 600, mean label 50.00%" in text
    assert "wait_s = 30 catches 80% of positives; 300 catches 100%" in text
    assert "LOOK  feature 'site' has one value in nearly all events" in text
    assert (folder / "look.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "loop").exists()


def test_json(folder, capsys):
    assert run(["inspect", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert found["labels"]["join_rate"] == 1.0
    assert dict(map(tuple, found["labels"]["catches"]))[30] == 0.8
    assert [one["distinct"] for one in found["features"]] == [50, 1]


def test_ids_that_do_not_match_are_noticed(folder, capsys):
    clicks = (folder / "clicks.jsonl").read_text().replace('"r', '"')
    (folder / "clicks.jsonl").write_text(clicks)
    assert run(["inspect"]) == 0
    assert "only 0% of feedback has its impression: do [streams.impression] id = 'id'" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["inspect"], ["config", "check"]])
def test_an_id_that_many_impressions_share_is_noticed(folder, capsys, command):
    shared = SETTINGS.replace('id = "id"', 'id = "user"', 1)
    assert shared != SETTINGS
    (folder / "headrace.toml").write_text(shared)
    assert run(command) == 0
    assert "951 of 1,001 impressions have the id of an earlier one" in capsys.readouterr().out
    (folder / "headrace.toml").write_text(SETTINGS)
    assert run(command) == 0
    assert "the id of an earlier one" not in capsys.readouterr().out  # one of 1,001 was sent again


def test_what_the_pipeline_would_stop_on(folder, capsys):
    (folder / "shown.jsonl").write_text("broken\n" * 500 + '{"id": "a", "t": 1700000000, "user": 1, "site": 1}\n')
    assert run(["inspect"]) == 4
    assert "the pipeline would stop" in capsys.readouterr().out


def test_config_check_says_what_a_wait_catches(folder, capsys):
    assert run(["config", "check"]) == 0
    assert "wait_s = 30 catches 80% of positives" in capsys.readouterr().out


@pytest.mark.parametrize("rows", [60, 2_000, 200_000])
def test_a_sample_of_a_pattern_has_some_of_every_partition(folder, capsys, rows):
    settings = SETTINGS.replace('"shown.jsonl"', '"shown/{p}/"')
    (folder / "headrace.toml").write_text(settings)
    for host in range(20):
        (folder / "shown" / f"h{host:02}").mkdir(parents=True)
        events = [{"id": f"r{host}-{i}", "t": T0 + i, "user": i, "site": f"h{host}"} for i in range(300)]
        text = "".join(json.dumps(one) + "\n" for one in events)
        (folder / "shown" / f"h{host:02}" / "a.jsonl").write_text(text)
    assert run(["inspect", "--rows", str(rows), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (site,) = [one for one in found["features"] if one["name"] == "site"]
    assert site["distinct"] == 20
    read = found["streams"]["impression"]["read"]
    assert min(rows, 6_000) <= read <= max(rows + 300, 1.2 * rows)
