from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.errors import AccountingError, DamagedFile, NewerFormat
from headrace.log import Entry, Log
from headrace.shard import (
    BLANK,
    COLUMNS,
    Policy,
    Quarantine,
    Range,
    Shard,
    ShardRecord,
    arrange,
    read_shard,
    write_shard,
)
from headrace.store import open_store

ROLES = {"impression": "impression", "click": "feedback"}
MINUTE = 60_000_000


def rows(n=5):
    return pa.table(
        {
            "impression_id": [f"i{k}" for k in range(n)],
            "event_time_us": pa.array([(n - k) * MINUTE // 2 for k in range(n)], pa.int64()),
            "emit_time_us": pa.array([(n - k) * MINUTE for k in range(n)], pa.int64()),
            "label": pa.array([k % 2 for k in range(n)], pa.float32()),
            "row_kind": ["observed"] * n,
            "delay_us": pa.array([None] * n, pa.int64()),
            "sample_rate": pa.array([1.0] * n, pa.float32()),
            "user": pa.array(range(n), pa.int64()),
            "tags": pa.array([[k] for k in range(n)], pa.list_(pa.int64())),
            "price": pa.array([None, *range(1, n)], pa.float32()),
        }
    )


def record(**changes):
    impression = Range("impression", "files", {"file": "a"}, 0, 10, 500, None)
    click = Range("click", "files", {"file": "b"}, 0, 4, 500, 7)
    counts = {
        "impression/files": {"read": 10, "emitted": 6, "duplicate": 1, "late": 1, "invalid": 1, "pending": 1},
        "click/files": {"read": 4, "joined": 2, "superseded": 1, "expired": 1},
    }
    base = ShardRecord(
        seq=0,
        ranges=(click, impression),
        now_us=1,
        watermark_us=500,
        closed_us=0,
        open_until_us=0,
        shards=(),
        pending=({"part": 0, "path": "x"},),
        counts=counts,
        parts=2,
        schema="ab",
        code="1",
        committed_at_us=2,
        quarantine=(Quarantine("q", "00", 1, {"late": 1}),),
    )
    return replace(base, **changes)


def test_rows_are_sorted_by_window_and_keep_their_columns():
    table = arrange(rows(), MINUTE)
    assert table.column_names == [*COLUMNS.names, "user", "tags", "price"]
    assert table["window"].to_pylist() == sorted(table["window"].to_pylist())
    assert table["impression_id"].to_pylist() == ["i4", "i3", "i2", "i1", "i0"]


def test_a_shard_comes_back_as_it_was_and_knows_its_windows():
    store = open_store("memory://shard-back")
    table = arrange(rows(), MINUTE)
    shard = write_shard(store, table, path="shards/data/0.parquet", part=1, fingerprint="ab")
    back = read_shard(store, shard)
    assert back.to_pylist() == table.to_pylist()
    assert back.column_names == table.column_names
    assert (shard.rows, shard.part, shard.max_emit_us) == (5, 1, 5 * MINUTE)
    assert list(shard.windows) == [
        {"start": 0, "rows": 1, "positives": 0},
        {"start": MINUTE, "rows": 2, "positives": 1},
        {"start": 2 * MINUTE, "rows": 2, "positives": 1},
    ]
    assert read_shard(store, shard, ["user"]).column_names == ["user"]


def test_the_same_rows_give_the_same_bytes():
    store = open_store("memory://shard-same")
    one, other = (
        write_shard(store, arrange(order, MINUTE), path=f"shards/data/{k}.parquet", part=0, fingerprint="ab")
        for k, order in enumerate([rows(), rows().take([3, 1, 0, 2, 4])])
    )
    assert one.sha256 == other.sha256


def test_one_flipped_bit_is_noticed():
    store = open_store("memory://shard-flip")
    shard = write_shard(store, arrange(rows(), MINUTE), path="shards/data/0.parquet", part=0, fingerprint="ab")
    data = bytearray(store.read(shard.path))
    for at in range(0, len(data), 97):
        data[at] ^= 1
        store.delete(shard.path)
        store.write(shard.path, bytes(data))
        with pytest.raises(DamagedFile, match="SHA-256"):
            read_shard(store, shard)
        data[at] ^= 1


def test_without_the_hash_some_flips_would_pass():
    """The twin: page checksums are there, but not all of a file is a page."""
    store = open_store("memory://shard-twin")
    shard = write_shard(store, arrange(rows(), MINUTE), path="shards/data/0.parquet", part=0, fingerprint="ab")
    data = bytearray(store.read(shard.path))
    passed = 0
    for at in range(len(data)):
        data[at] ^= 1
        try:
            pq.read_table(pa.BufferReader(bytes(data)))
            passed += 1
        except (OSError, ValueError, pa.ArrowException):
            pass
        data[at] ^= 1
    assert passed > 0


def test_a_record_survives_the_log():
    log = Log(open_store("memory://shard-log"), "shards/log")
    entry = log.append("shard", record().to_body(), None)
    assert ShardRecord.from_entry(log.read(entry.seq)) == record()


def more(value):
    """The same JSON as a later headrace might write it: a key more in every object that has fixed keys."""
    if isinstance(value, list):
        return [more(one) for one in value]
    if not isinstance(value, dict):
        return value
    free = "late" in value or "read" in value or any("/" in key for key in value) or set(value) == {"file"}
    return {key: more(one) for key, one in value.items()} | ({} if free else {"novel": 1})


def test_keys_of_a_later_headrace_are_passed_over():
    body = record(pending=(), policy=Policy(wait_us=7)).to_body()
    body["shards"] = [vars(Shard(0, "p", "00", 1, 1, ({"start": 0, "rows": 1, "positives": 0},), 3))]
    known = ShardRecord.from_entry(Entry(0, "", "shard", body))
    read = ShardRecord.from_entry(Entry(0, "", "shard", {**more(body), "requests": body["requests"]}))
    assert replace(read, shards=(), declared=known.declared) == replace(known, shards=())
    assert read.shards[0].path == "p"


def test_another_kind_of_record_is_of_a_newer_headrace():
    with pytest.raises(NewerFormat, match="record 3 of the shard log is of the kind 'gap'") as caught:
        ShardRecord.from_entry(Entry(3, "", "gap", {"accepted": []}))
    assert "upgrade" in caught.value.hint


def test_check_accepts_what_goes_on():
    before = record()
    after = record(seq=1, ranges=tuple(replace(r, start=r.end) for r in before.ranges))
    before.check(BLANK, ROLES)
    after.check(before, ROLES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"counts": {**record().counts, "click/files": {"read": 4, "joined": 3}}}, "click/files read 4 events"),
        ({"counts": {**record().counts, "click/files": {"read": 0, "joined": 1, "late": -1}}}, "click/files"),
        ({"watermark_us": 499}, "watermark back"),
        ({"ranges": record().ranges[:1]}, "forgets"),
        ({"ranges": tuple(replace(r, start=r.end) for r in record().ranges[::-1])}, "other numbers"),
    ],
)
def test_check_refuses(change, words):
    before = record()
    going_on = {"seq": 1, "ranges": tuple(replace(r, start=r.end) for r in before.ranges)}
    with pytest.raises(AccountingError, match=words):
        record(**{**going_on, **change}).check(before, ROLES)


def test_check_refuses_a_gap():
    with pytest.raises(AccountingError, match="from 0, but 4 was committed"):
        record(seq=1).check(record(), ROLES)


def test_a_record_without_one_of_its_fields_is_damaged():
    with pytest.raises(DamagedFile, match="record 3 of the shard log has no field 'closed_us'"):
        ShardRecord.from_entry(Entry(3, "", "shard", {}))
