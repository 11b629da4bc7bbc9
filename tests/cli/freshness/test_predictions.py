"""Scores of another model: every format gives the same, and what cannot be right is told with what to do."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.cli.freshness.predictions import read_predictions
from headrace.errors import SettingsError

ROWS = [("a", 0.25), ("7", 0.5), ("c,d", 0.125)]
EVENTS = pa.chunked_array([["c,d", "x", "a", "7"]])


def parquet(path, ids, scores, name="score", **more):
    pq.write_table(pa.table({"id": ids, name: scores, **more}), path)
    return path


def refused(path, **options):
    with pytest.raises(SettingsError) as caught:
        read_predictions(path, **({"id_column": "id"} | options))
    return caught.value.message, caught.value.hint


def texts(tmp_path):
    lines = "".join(json.dumps({"id": id_, "p": score}) + "\n" for id_, score in ROWS)
    table = "id,p\n" + "".join(f'"{id_}",{score}\n' for id_, score in ROWS)
    parquet(tmp_path / "p.parquet", *map(list, zip(*ROWS, strict=True)), name="p")
    (tmp_path / "p.jsonl").write_text(lines + "\n")
    (tmp_path / "p.csv").write_text(table)
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress(table.encode()))
    (tmp_path / "p.json.gz").write_bytes(gzip.compress(lines.encode()))


@pytest.mark.parametrize("name", ["p.parquet", "p.jsonl", "p.csv", "p.csv.gz", "p.json.gz"])
def test_all_formats_say_the_same(tmp_path, name):
    texts(tmp_path)
    found = read_predictions(tmp_path / name, id_column="id")
    assert (found.column, len(found)) == ("p", 3)
    np.testing.assert_array_equal(found.of(EVENTS), [0.125, np.nan, 0.25, 0.5])


def test_ids_are_the_same_where_their_texts_are(tmp_path):
    whole = parquet(tmp_path / "i.parquet", [7, 8, 9], [0.1, 0.2, 0.3])
    for events in (pa.chunked_array([["8", "7"]]), pa.chunked_array([[8, 7]]), pa.chunked_array([[8.0, 7.0]])):
        assert read_predictions(whole, id_column="id").of(events).tolist() == [0.2, 0.1]
    words = parquet(tmp_path / "d.parquet", pa.array(["8", "7"]).dictionary_encode(), [0.2, 0.1])
    assert read_predictions(words, id_column="id").of(pa.chunked_array([[7]])).tolist() == [0.1]
    (tmp_path / "n.jsonl").write_text(
        '{"id": 7, "score": 0.1}\n{"id": "007", "score": 0.2}\n{"id": 8.0, "score": 0.3}\n'
    )
    mixed = read_predictions(tmp_path / "n.jsonl", id_column="id")
    assert mixed.of(pa.chunked_array([["007", "7", "8"]])).tolist() == [0.2, 0.1, 0.3]
    (tmp_path / "n.csv").write_text("id,score\n007,0.2\n7,0.1\n")
    written = read_predictions(tmp_path / "n.csv", id_column="id")
    assert written.of(pa.chunked_array([["007", "7"]])).tolist() == [0.2, 0.1]


def test_the_column_of_the_scores(tmp_path):
    path = parquet(tmp_path / "p.parquet", ["a"], [0.5], other=[3.0], chance=[0.25])
    assert read_predictions(path, id_column="id").column == "score"
    assert read_predictions(path, id_column="id", score_column="chance").scores.tolist() == [0.25]
    message, hint = refused(path, score_column="chanse")
    assert "has no column 'chanse', only 'id', 'score', 'other', 'chance'" in message
    assert "--score chance" in hint
    message, hint = refused(path, id_column="request")
    assert "has no column 'request'" in message
    assert "call the column of the event's id 'request'" in hint
    message, hint = refused(parquet(tmp_path / "q.parquet", ["a"], [0.5], name="p", q=[0.5]))
    assert "does not say which column has the scores: 'p', 'q'" in message
    assert "--score COLUMN" in hint
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "r.parquet")
    assert "there is only the id" in refused(tmp_path / "r.parquet")[0]


@pytest.mark.parametrize("header", ["id,score,score", "id,id,score", "id,p,p"])
def test_a_column_that_is_there_twice_is_named(tmp_path, header):
    (tmp_path / "p.csv").write_text(f"{header}\na,0.5,0.5\n")
    twice = max(header.split(","), key=header.split(",").count)
    message, hint = refused(tmp_path / "p.csv", score_column="p" if "p" in header else None)
    assert f"has the column '{twice}' 2 times" in message
    assert hint == "give each a name of its own"
    pq.write_table(pa.table([["a"], [0.5], [0.5]], names=header.split(",")), tmp_path / "p.parquet")
    assert f"has the column '{twice}' 2 times" in refused(tmp_path / "p.parquet", score_column=twice)[0]


def test_what_json_can_say_and_a_column_cannot(tmp_path):
    path = tmp_path / "p.jsonl"
    for number, shown in (("9" * 400, "inf"), ("-" + "9" * 400, "-inf")):
        path.write_text(f'{{"id": "a", "score": 0.5}}\n{{"id": "b", "score": {number}}}\n')
        message, hint = refused(path)
        assert message.endswith(f"the first is row 2 ('b'): {shown}")
        assert "log-odds" in hint
    for row in ('{"id": "\\ud800", "score": 0.5}', '{"id": "a", "score": "\\ud800"}'):
        path.write_text(row)
        message, hint = refused(path)
        assert "'\\ud800' in " in message
        assert "it has half a character" in message
        assert "leave the row out" in hint
    path.write_text("[" * 100_000)
    assert "line 1: this is no JSON object" in refused(path)[0]


@pytest.mark.parametrize(
    ("scores", "said", "hint"),
    [
        ([0.5, 1.0, 0.0], "2 of 3 scores in 'score' are not between 0 and 1, the first is row 2 ('b'): 1", "certain"),
        ([0.5, 0.0, 0.5], "1 of 3 scores", "1e-6"),
        ([-2.5, 0.2, 3.0], "2 of 3 scores", "log-odds"),
        ([12.5, 0.2, 3.0], "the first is row 1 ('a'): 12.5", "per cent"),
        ([1, 0, 1], "3 of 3 scores", "certain"),
        ([0.5, None, 0.5], "1 rows have no 'score', the first is row 2 ('b')", "left out for every curve"),
        ([0.5, 0.5, float("nan")], "1 rows have no 'score', the first is row 3", "leave out"),
        ([float("inf"), 0.5, 0.5], "1 of 3 scores", "log-odds"),
        (["high", "low", "0.5"], "'score' has string, not numbers, such as 'high'", "--score"),
        ([True, False, True], "'score' has bool, not numbers", "numbers between 0 and 1"),
    ],
)
def test_scores_that_cannot_be_right(tmp_path, scores, said, hint):
    message, next_step = refused(parquet(tmp_path / "p.parquet", ["a", "b", "c"], scores))
    assert said in message
    assert hint in next_step
    lines = [json.dumps({"id": id_, "score": score}) for id_, score in zip("abc", scores, strict=True)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    message, next_step = refused(tmp_path / "p.jsonl")
    assert hint in next_step


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["a", "b", "a"], "1 ids come more than once, such as 'a'"),
        (["a", "a", "a"], "2 ids come more than once"),
        (["a", None, "c"], "1 rows have no 'id', the first is row 2"),
        (["a", "b", ""], "1 rows have no 'id', the first is row 3"),
        ([[1], [2], [3]], "write ids as text or as integers"),
    ],
)
def test_ids_that_cannot_be_right(tmp_path, ids, said):
    message, hint = refused(parquet(tmp_path / "p.parquet", ids, [0.1, 0.2, 0.3]))
    assert said in f"{message} {hint}"


def test_files_that_cannot_be_read(tmp_path):
    assert "is not there" in refused(tmp_path / "p.parquet")[0]
    assert "is a folder" in refused(tmp_path)[0]
    for name, content, said in [
        ("p.txt", b"x", "its name does not say what it is"),
        ("p.parquet.gz", b"x", "its name does not say what it is"),
        ("p.parquet", b"PAR1 and then nothing", "cannot be read"),
        ("p.csv", b'id,score\n"a,0.5\n', "cannot be read"),
        ("e.csv", b"", "cannot be read"),
        ("h.csv", b"id,score\n", "has no row"),
        ("p.csv.gz", b"not packed", "cannot be read"),
        ("e.jsonl", b"", "has no row"),
        ("p.jsonl", b'{"id": "a", "score": 0.5}\n[1]\n', "line 2: this is no JSON object"),
        ("q.jsonl", b'{"id": "a", "score": 0.5\n', "line 1: this is no JSON object"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert said in refused(tmp_path / name)[0], name


def test_scores_of_other_events_alone_are_refused(tmp_path):
    path = parquet(tmp_path / "p.parquet", ["k1", "k2"], [0.5, 0.5])
    with pytest.raises(SettingsError, match=r"none of its 2 ids is one of the 4 impressions .* 'c,d', 'x', 'a'"):
        read_predictions(path, id_column="id").of(EVENTS)
