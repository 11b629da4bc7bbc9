"""A run of pending impressions of format 1, named by the golden shard record: it stays readable, and is written so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from headrace.log import Entry
from headrace.shard import ShardRecord
from headrace.store import open_store
from pipelines.runs import NewRun, RunFiles, RunMeta, build, probe

GOLDEN = Path(__file__).parent


def test_a_run_of_format_1(tmp_path: Path) -> None:
    body = json.loads((GOLDEN / "shard-record-format1.json").read_text())
    record = ShardRecord.from_entry(Entry(7, "", "shard", body))
    meta = RunMeta.from_json(record.pending[0])
    data = (GOLDEN / "run-format1.arrow").read_bytes()
    store = open_store(str(tmp_path))
    store.write(meta.path, data)
    run = RunFiles(store)(meta)
    assert run.payload().to_pydict() == {
        "_event": [3, 1, 3],
        "_ts": [1_699_999_980_000_000, 1_699_999_981_000_000, 1_699_999_982_000_000],
        "_hash": [11, 12, 13],
        "_void": [0, 0, 1],
        "_partition": [1, 1, 0],
        "_id": ["c", "a", None],
        "user": [7, 8, None],
        "tags": [[1, 2], [], None],
        "price": [1.5, None, None],
    }
    assert sorted(probe([run], np.array([3], np.uint64)).tolist()) == [0, 2]
    again = NewRun(meta, build("impression", run.payload()).table)
    assert bytes(again.data(record.schema)) == data
