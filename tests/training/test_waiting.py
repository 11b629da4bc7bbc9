"""What waits to be learned: all of it, in order, and small, for a daily trigger lets a day of records wait."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from headrace.errors import DamagedFile
from headrace.log import Log
from headrace.record import name_of
from headrace.shard import Shard, ShardRecord
from headrace.store import open_store
from training import waiting

RECORDS = 600


class Schema:
    fingerprint = "f"


def record(seq: int) -> ShardRecord:
    """As a busy loop has them: it names 100 pending runs."""
    names = ("kind", "part", "path", "sha256", "bytes", "rows", "min_us", "max_us", "level", "bucket")
    pending = tuple({name: f"{name} of {run} in {seq}" for name in names} for run in range(100))
    windows = ({"start": seq * 1_000_000, "rows": 7, "positives": 1},)
    shards = tuple(Shard(part, f"shards/data/{seq:012d}-{part}", "cd" * 32, 9, 7, windows, seq) for part in range(2))
    return ShardRecord(
        seq=seq, ranges=(), now_us=0, watermark_us=seq, closed_us=0, open_until_us=0, shards=shards, pending=pending,
        counts={"impression/0": {"read": seq}}, schema=Schema.fingerprint, code="test", committed_at_us=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    log, parent = Log(open_store(str(tmp_path_factory.mktemp("root"))), "shards/log"), None
    for seq in range(RECORDS):
        parent = log.append("shard", record(seq).to_body(), parent)
    return log


@pytest.mark.parametrize("twin", ["", "keeps all", "reads all at once"])
def test_a_day_of_records_waits_in_little_memory(log: Log, monkeypatch: Any, twin: str) -> None:
    """A day has 86,400 of them. One twin keeps the lists of pending runs, one has them all in memory once."""
    if twin == "keeps all":
        monkeypatch.setattr(waiting, "_light", lambda record: record)
    if twin == "reads all at once":
        monkeypatch.setattr(waiting, "AT_ONCE", 10**6)
    gc.collect()
    tracemalloc.start()
    found = waiting.Waiting(log, None, Schema())
    records = found.poll()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [one.seq for one in records] == list(range(RECORDS))
    assert (peak < RECORDS * 24_000) == (not twin)


def test_how_many_rows_wait_is_known_without_a_look_at_each(log: Log) -> None:
    found = waiting.Waiting(log, None, Schema())
    found.poll()
    assert found.rows == RECORDS * 14
    found.drop(log.read(9).cursor())
    assert found.rows == (RECORDS - 10) * 14


def test_what_stands_before_damage_waits_all_the_same(tmp_path: Any) -> None:
    damaged, parent = Log(open_store(str(tmp_path)), "shards/log"), None
    for seq in range(waiting.AT_ONCE + 2):
        parent = damaged.append("shard", record(seq).to_body(), parent)
    path = tmp_path / name_of("shards/log", waiting.AT_ONCE)
    path.write_bytes(path.read_bytes()[:-9])
    found = waiting.Waiting(damaged, None, Schema())
    assert len(found.poll()) == waiting.AT_ONCE
    with pytest.raises(DamagedFile):
        found.poll()
