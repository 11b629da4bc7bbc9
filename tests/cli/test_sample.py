"""What `headrace init` looks at: a few odd lines do not hide what the others hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from formats import WAYS

from headrace.cli.sample import sample_of
from headrace.errors import SourceError, WrongType

if TYPE_CHECKING:
    from pathlib import Path


def test_odd_json_lines_and_values_are_passed_over(tmp_path: Path) -> None:
    good = [json.dumps({"at": i, "user": {"age": i / 2}, "tags": ["a"]}) for i in range(100)]
    odd = ["garbage", '{"at":', "{}", '{"at": "x", "user": {"age": "old"}, "tags": 3}', '{"user": "u"}', "[1]"]
    (tmp_path / "events.jsonl").write_text("\n".join(good + odd) + "\n")
    table = sample_of(str(tmp_path / "events.jsonl"))
    assert str(table.schema.field("at").type) == "int64"
    assert str(table.schema.field("user").type) == "struct<age: double>"
    assert str(table.schema.field("tags").type) == "list<item: string>"
    assert table.num_rows == 103
    assert table["at"].null_count == table["user"].null_count + 1 == 3


def test_values_of_no_prevailing_type_are_text(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("".join(json.dumps({"x": [i, f"v{i}"][i % 2]}) + "\n" for i in range(10)))
    assert str(sample_of(str(tmp_path / "events.jsonl")).schema.field("x").type) == "string"


def test_csv_is_separated_as_its_header_is(tmp_path: Path) -> None:
    (tmp_path / "events.tsv").write_text("id\tname\n1\ta,b\n2\tc\n")
    assert sample_of(str(tmp_path / "events.tsv")).to_pylist() == [{"id": 1, "name": "a,b"}, {"id": 2, "name": "c"}]


def test_odd_fields_do_not_make_numbers_text(tmp_path: Path) -> None:
    lines = ["id,price,name", *(f"{i},{i / 4},n{i}" for i in range(100)), "x,cheap,n", "1,2", "7,,n"]
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    table = sample_of(str(tmp_path / "events.csv"))
    assert [str(kind) for kind in table.schema.types] == ["int64", "double", "string"]
    assert (table["id"].null_count, table["price"].null_count) == (1, 2)


@pytest.mark.parametrize(
    ("first", "kind", "message"),
    [
        ("a1,2026-11-01T00:00:11Z,3", SourceError, "does not name the columns: '2026-11-01T00:00:11Z' is a value"),
        ("a1,at,-3.5", SourceError, "'-3.5' is a value"),
        ("id,at,id", WrongType, "events.csv has several columns 'id': which one is meant cannot be told"),
    ],
)
def test_a_first_line_that_does_not_name_columns(tmp_path: Path, first: str, kind: type, message: str) -> None:
    (tmp_path / "events.csv").write_text(f"{first}\na2,2026-11-01T00:00:12Z,4\n")
    with pytest.raises(kind, match=message):
        sample_of(str(tmp_path / "events.csv"))


def test_lines_that_are_not_utf8_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_bytes(b"id,name\n1,a\n\xe9,b,c\n2,\xe9\n")
    assert sample_of(str(tmp_path / "events.csv")).to_pylist() == [{"id": 1, "name": "a"}, {"id": 2, "name": "\ufffd"}]


def test_columns_without_a_name_are_one(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(",id,3d,\n0,a,1,\n1,b,2,\n")
    assert sample_of(str(tmp_path / "events.csv")).column_names == ["", "id", "3d"]


@pytest.mark.parametrize("name", list(WAYS))
def test_every_format_is_looked_at(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WAYS[name]([{"id": f"e{i}", "at": i, "x": i / 2} for i in range(50)]))
    for source in (tmp_path, tmp_path / name):
        table = sample_of(str(source))
        assert table.num_rows == 50
        assert [str(kind) for kind in table.select(["id", "at", "x"]).schema.types] == ["string", "int64", "double"]


def test_rows_that_are_not_what_their_types_say_are_passed_over(tmp_path: Path) -> None:
    text = pa.array([b"a", b"\xff", b"b"]).view(pa.string())
    table = pa.table({"id": text.dictionary_encode(), "x": pa.array([1, 2, 3])}).append_column("x", text)
    pq.write_table(table, tmp_path / "a.parquet")
    assert sample_of(str(tmp_path)).to_pylist() == [{"id": "a", "x": 1}, {"id": "b", "x": 3}]


def test_a_broken_file_is_passed_over_if_there_is_another(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"cannot be read as the ending of a\.parquet"):
        sample_of(str(tmp_path))
    (tmp_path / "b.parquet").write_bytes(WAYS["a.parquet"]([{"id": "e"}]))
    assert sample_of(str(tmp_path)).num_rows == 1


def test_a_pattern_is_looked_at(tmp_path: Path) -> None:
    for host in "ab":
        (tmp_path / host).mkdir()
        (tmp_path / host / "x.jsonl").write_text('{"id": 1}\n')
    assert sample_of(f"{tmp_path}/{{p}}/").num_rows == 2
