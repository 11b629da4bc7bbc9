"""What `headrace init` looks at: a few odd lines do not hide what the others hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from headrace.cli.sample import sample_of

if TYPE_CHECKING:
    from pathlib import Path


def test_odd_json_lines_and_values_are_passed_over(tmp_path: Path) -> None:
    good = [json.dumps({"at": i, "user": {"age": i / 2}, "tags": ["a"]}) for i in range(100)]
    odd = ["garbage", '{"at":', "{}", '{"at": "x", "user": {"age": "old"}, "tags": 3}', '{"user": "u"}', "[1]"]
    (tmp_path / "events.jsonl").write_text("\n".join(good + odd) + "\n")
    table = sample_of(tmp_path / "events.jsonl")
    assert str(table.schema.field("at").type) == "int64"
    assert str(table.schema.field("user").type) == "struct<age: double>"
    assert str(table.schema.field("tags").type) == "list<item: string>"
    assert table.num_rows == 103
    assert table["at"].null_count == table["user"].null_count + 1 == 3


def test_values_of_no_prevailing_type_are_text(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("".join(json.dumps({"x": [i, f"v{i}"][i % 2]}) + "\n" for i in range(10)))
    assert str(sample_of(tmp_path / "events.jsonl").schema.field("x").type) == "string"


def test_odd_fields_do_not_make_numbers_text(tmp_path: Path) -> None:
    lines = ["id,price,name", *(f"{i},{i / 4},n{i}" for i in range(100)), "x,cheap,n", "1,2", "7,,n"]
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    table = sample_of(tmp_path / "events.csv")
    assert [str(kind) for kind in table.schema.types] == ["int64", "double", "string"]
    assert (table["id"].null_count, table["price"].null_count) == (1, 2)
