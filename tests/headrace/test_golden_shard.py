"""Shards, quarantine files and shard records of format 1 stay readable for ever."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.errors import NewerFormat
from headrace.log import Entry
from headrace.quarantine import COLUMNS as QUARANTINE
from headrace.quarantine import read_quarantine, write_quarantine
from headrace.shard import BLANK, COLUMNS, ShardRecord, read_shard
from headrace.store import open_store

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(tmp_path):
    """The record, and a store with the files that it names."""
    body = json.loads((GOLDEN / "shard-record-format1.json").read_text())
    record = ShardRecord.from_entry(Entry(7, "", "shard", body))
    store = open_store(str(tmp_path))
    store.write(record.shards[0].path, (GOLDEN / "shard-format1.parquet").read_bytes())
    store.write(record.quarantine[0].path, (GOLDEN / "quarantine-format1.parquet").read_bytes())
    return record, store


def test_the_record(tmp_path):
    record, _ = golden(tmp_path)
    assert record.to_body() == json.loads((GOLDEN / "shard-record-format1.json").read_text())
    record.check(BLANK, {"impression": "impression", "click": "feedback"})
    assert [part.key for part in record.ranges] == ["click/files", "impression/files"]


def test_the_shard(tmp_path):
    record, store = golden(tmp_path)
    table = read_shard(store, record.shards[0])
    assert table.column_names == [*COLUMNS.names, "user", "tags", "price"]
    assert table.schema.field("tags").type == pa.list_(pa.int64())
    assert table["impression_id"].to_pylist() == ["a", "b", "a"]
    assert table["row_kind"].to_pylist() == ["observed", "observed", "correction"]
    assert table["delay_us"].to_pylist() == [None, 1_000_000, 40_000_000]
    assert table["tags"].to_pylist() == [[1, 2], [], [1, 2]]
    assert table["price"].to_pylist() == [1.5, None, 1.5]


def test_the_quarantine_file(tmp_path):
    record, store = golden(tmp_path)
    table = read_quarantine(store, record.quarantine[0])
    assert table.schema == QUARANTINE
    assert table["reason"].to_pylist() == ["malformed", "late"]
    assert table["raw"].to_pylist() == [b"{", None]


def test_a_quarantine_file_of_another_format(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    monkeypatch.setattr("headrace.quarantine.FORMAT", 2)
    named = write_quarantine(store, QUARANTINE.empty_table(), path="shards/quarantine/0.parquet", fingerprint="ab")
    monkeypatch.undo()
    with pytest.raises(NewerFormat, match="format 2 and kind quarantine; known is format 1"):
        read_quarantine(store, named)
