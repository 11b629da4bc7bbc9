from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from headrace.errors import SettingsError, SourceVanished
from headrace.sample import read_sample

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = pa.table({"id": [1, 2, 3], "name": ["a", None, "c"]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(EVENTS, tmp_path / "b.parquet")
    pacsv.write_csv(EVENTS, tmp_path / "c.csv")
    (tmp_path / "d.jsonl").write_text('{"id": 1, "name": "a"}\n{"id": 2}\n{"id": 3, "name": "c"}\n{"id": 4, "na')
    (tmp_path / "a.txt").write_text("not events")
    return tmp_path


@pytest.mark.parametrize("name", ["b.parquet", "c.csv", "d.jsonl"])
def test_the_first_events(folder: Path, name: str) -> None:
    assert read_sample(folder / name, rows=3).to_pylist() == EVENTS.to_pylist()
    assert read_sample(folder / name, rows=2).num_rows == 2


def test_a_folder_shows_its_first_file(folder: Path) -> None:
    assert read_sample(folder) == EVENTS


def test_an_unfinished_last_line_is_left_for_later(folder: Path) -> None:
    assert read_sample(folder / "d.jsonl").num_rows == 3


def test_what_cannot_be_looked_at(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceVanished, match="there is no file"):
        read_sample(folder / "none.csv")
    with pytest.raises(SettingsError, match=r"the format of .*a\.txt cannot be told"):
        read_sample(folder / "a.txt")
    (folder / "e.jsonl").write_text("{]\n")
    with pytest.raises(SettingsError, match=r"e\.jsonl cannot be read"):
        read_sample(folder / "e.jsonl")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceVanished, match="has no event files"):
        read_sample(empty)
