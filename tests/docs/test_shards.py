"""docs/shards.md: every block runs, on a loop that the real pipeline made, and says what plain Python says."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import duckdb
import pytest
from settings import PRICE, USER, settings_text

from headrace import config
from headrace.cli.app import run
from headrace.loop import open_loop
from headrace.store import open_store
from headrace.version import VersionRecord
from training.start import write_start

PAGE = (Path(__file__).parents[2] / "docs" / "shards.md").read_text()
SQL = [query.strip() for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL) for query in block.split(";")]
QUERIES = [query for query in SQL if query]
(PYTHON,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

T0 = 1_700_000_000
WAIT_S = 5
SETTINGS = settings_text(
    USER,
    PRICE,
    loop={"name": "items", "root": "loop"},
    streams={"time": "at", "time_unit": "s"},
    impression={"source": "shown.jsonl"},
    click={"source": "clicks.jsonl"},
    label={"wait_s": WAIT_S},
)
SHOWN = [{"id": f"i{i}", "at": T0 + i, "user": f"u{i % 7}", "price": i / 2} for i in range(200)]
CLICKS = [{"id": f"i{i}", "at": T0 + i + 1 + i % 9} for i in range(0, 200, 3)]


def expected():
    """{impression: (label in time, label in the end)}."""
    delay = {one["id"]: one["at"] - T0 - int(one["id"][1:]) for one in CLICKS}
    return {one["id"]: (float(delay.get(one["id"], 99) <= WAIT_S), float(one["id"] in delay)) for one in SHOWN}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two records of shards, a refused event, a version that learned both, and a file that no record names."""
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("headrace.toml").write_text(SETTINGS)
        lines = [json.dumps(one) + "\n" for one in SHOWN]
        Path("clicks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in CLICKS))
        Path("shown.jsonl").write_text("".join([*lines[:100], '{"id": "broken"\n']))
        assert run(["pipeline", "run", "--once"]) == 0
        with Path("shown.jsonl").open("a") as file:
            file.writelines(lines[100:])
        assert run(["pipeline", "run", "--once", "--drain"]) == 0
    loop = open_loop(open_store(str(folder / "loop")), "items", create=False)
    start = write_start(loop, config.load(folder / "headrace.toml"))
    head = loop.shard_log().head()
    learned = {"base": 0, "trained": [[0, head.seq + 1]], "cursor": head.cursor().to_json()}
    loop.version_log().append("delta", VersionRecord.from_entry(start).to_body() | learned, start)
    named = min((folder / "loop" / "shards" / "data").glob("*.parquet"))
    named.with_name("000000000001-0-deadbeef.parquet").write_bytes(named.read_bytes())
    return folder


@pytest.fixture(scope="module")
def answers(folder):
    """Query -> its rows; all in one session, in the order of the page."""
    with pytest.MonkeyPatch.context() as patch, duckdb.connect() as session:
        patch.chdir(folder)
        return {query: session.execute(query).fetchall() for query in QUERIES}


def answer(answers, part):
    (found,) = [rows for query, rows in answers.items() if part in query and "CREATE" not in query]
    return found


def test_every_block_runs(answers):
    assert len(answers) == len(QUERIES) > 10
    assert answer(answers, "elsewhere") == [(0,)]


def test_windows_and_users_are_those_of_the_events(answers):
    in_time = {name: label for name, (label, _) in expected().items()}
    windows = answer(answers, "make_timestamp")
    assert sum(rows for _, rows, _ in windows) == len(SHOWN)
    assert sum(rows * share for _, rows, share in windows) == pytest.approx(sum(in_time.values()))
    users = defaultdict(list)
    for one in SHOWN:
        users[one["user"]].append(in_time[one["id"]])
    told = Counter((rows, round(share, 9)) for _, rows, share in answer(answers, 'SELECT "user"'))
    assert told == Counter((len(labels), round(sum(labels) / len(labels), 9)) for labels in users.values())


def test_delays_and_corrections_are_those_of_the_clicks(answers):
    (delay_s,) = answer(answers, "delay_s")[0]
    delays = sorted(one["at"] - T0 - int(one["id"][1:]) for one in CLICKS)
    assert delay_s[0] == delays[len(delays) // 2]
    corrected = {name: last for name, (first, last) in expected().items() if first != last}
    assert {name: label for name, label, _ in answer(answers, "arg_max")} == corrected


def test_a_version_learned_all_and_what_was_refused_is_there(answers):
    ((version, rows, _),) = answer(answers, "SELECT version, count(*)")
    assert (version, rows) == (1, len(SHOWN) + sum(first != last for first, last in expected().values()))
    ((stream, reason, events, _, was),) = answer(answers, "what_it_was")
    assert (stream, reason, events, was) == ("impression", "malformed", 1, '{"id": "broken"')


def test_python_says_the_same_and_twin_files_without_a_name_are_counted(answers, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    exec(compile(PYTHON, "a block of docs/shards.md", "exec"), {})
    ((count, _),) = eval(capsys.readouterr().out)
    ((_, rows, _),) = answer(answers, "SELECT version, count(*)")
    assert count == rows
    ((every,),) = duckdb.sql("SELECT count(*) FROM read_parquet('loop/shards/data/*.parquet')").fetchall()
    assert every > count
