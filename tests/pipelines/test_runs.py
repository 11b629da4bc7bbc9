"""Run files: what is written is found again, by key and time, after merges and through a store; damage is refused."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import DamagedFile, NewerFormat
from headrace.store import open_store
from pipelines.compaction import FAN, bucket_of, merge_plan
from pipelines.match import among, latest
from pipelines.runs import (
    NewRun,
    Run,
    RunFiles,
    RunMeta,
    build,
    content_hash,
    event_keys,
    gather,
    merge,
    probe,
    standing,
)


def payload(rows):
    """rows: (event, ts, label, void)."""
    event, ts, label, void = zip(*rows, strict=True)
    return pa.table(
        {
            "_event": pa.array(event, pa.uint64()),
            "_ts": pa.array(ts, pa.int64()),
            "_label": pa.array(label, pa.float32()),
            "_void": pa.array(void, pa.uint8()),
            "_partition": pa.array([0] * len(rows), pa.int32()),
            "_offset": pa.array([str(n) for n in range(len(rows))]),
        }
    )


ROW = st.tuples(
    st.sampled_from([0, 1, 2, 1 << 32, (1 << 64) - 1, 0x0123456789ABCDEF]) | st.integers(0, (1 << 64) - 1),
    st.integers(-20, 20),
    st.sampled_from([0.0, 1.0]),
    st.just(0),
)
RUNS = st.lists(st.lists(ROW, min_size=1, max_size=30), min_size=1, max_size=4)


def seen(runs, refs):
    names = ("_event", "_ts", "_label")
    return sorted(zip(*(gather(runs, refs, name).tolist() for name in names), strict=True))


@settings(max_examples=200, deadline=None)
@given(RUNS, st.lists(st.integers(0, (1 << 64) - 1), max_size=5))
def test_probe_finds_every_row_of_a_key_and_no_other(groups, strangers):
    runs = [build("orphan", payload(rows)) for rows in groups]
    wanted = {rows[0][0] for rows in groups} | set(strangers)
    refs = probe(runs, np.array(sorted(wanted) * 2, np.uint64))
    assert seen(runs, refs) == sorted(row[:3] for rows in groups for row in rows if row[0] in wanted)
    assert (np.diff(refs >> 32) >= 0).all()


@settings(max_examples=100, deadline=None)
@given(RUNS)
def test_a_merged_run_is_the_run_of_all_rows(groups):
    merged = merge([build("orphan", payload(rows)) for rows in groups])
    whole = build("orphan", payload([row for rows in groups for row in rows]))
    columns = [name for name in whole.table.column_names if name != "_offset"]
    assert merged.table.select(columns).equals(whole.table.select(columns))


@settings(max_examples=100, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=30), st.integers(-25, 25), st.integers(-25, 25))
def test_between_is_half_open(rows, low, high):
    run = build("orphan", payload(rows))
    found = run.ts[run.between(low, high)].tolist()
    assert found == sorted(ts for _, ts, *_ in rows if low <= ts < high)
    assert (run.min_us, run.max_us) == (min(r[1] for r in rows), max(r[1] for r in rows))


def test_a_void_row_cancels_the_rows_equal_to_it():
    rows = [(1, 10, 0.0, 0), (1, 10, 1.0, 0), (1, 11, 0.0, 0), (2, 10, 0.0, 0)]
    runs = [build("orphan", payload(rows)), build("orphan", payload([(1, 10, 1.0, 1)]))]
    refs = np.array([0, 1, 2, 3, 1 << 32])
    assert standing(runs, refs).tolist() == [True, False, True, True, False]
    assert standing(runs, refs[:4]).tolist() == [True] * 4


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=20),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=20),
)
def test_joins_by_sorting(left, right):
    (a, at), (b, bt) = (tuple(np.array([row[n] for row in rows], np.int64) for n in (0, 1)) for rows in (left, right))
    assert among((at, a), (bt, b)).tolist() == [row in right for row in left]
    for place, (event, ts) in zip(latest(a, at, b, bt), right, strict=True):
        before = [t for e, t in left if e == event and t <= ts]
        assert (left[place] == (event, max(before))) if before else place == -1


def test_event_keys_are_farmhash():
    assert event_keys(pa.array(["abc", ""])).tolist() == [2640714258260161385, 11160318154034397263]


def test_content_hash_tells_rows_apart_whatever_the_chunks():
    table = pa.table(
        {
            "user": pa.array([1, 1, 1, 2, 1, None], pa.int64()),
            "tags": pa.array([[1, 2], [2, 1], [1], [1, 2], [], None], pa.list_(pa.int64())),
            "price": pa.array([0.5, 0.5, 0.5, 0.5, None, 0.0], pa.float32()),
        }
    )
    whole = content_hash(table)
    assert len(set(whole.tolist())) == 6
    pieces = pa.concat_tables([table.slice(0, 2), table.slice(2, 3), table.slice(5)])
    assert content_hash(pieces).tolist() == whole.tolist()
    assert [int(content_hash(table.slice(n, 1))[0]) for n in range(6)] == whole.tolist()


def written(store, rows, path="shards/state/000000000001-0-orphan-0-aa.arrow"):
    run = build("orphan", payload(rows))
    new = NewRun(RunMeta("orphan", run.rows, run.min_us, run.max_us, 0, 7), run.table)
    data = new.data("ab")
    store.write(path, bytes(data))
    return new.named(3, path, data)


def test_a_run_of_another_format_is_not_guessed_at(monkeypatch):
    store = open_store("memory://runs-newer")
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.runs.FORMAT", 2)
        meta = written(store, [(1, 1, 0.0, 0)])
    with pytest.raises(NewerFormat, match=r"format 2 and kind orphan.*reads format 1") as caught:
        RunFiles(store)(meta)
    assert "upgrade" in caught.value.hint


def test_a_meta_of_a_later_headrace():
    meta = RunMeta("orphan", 1, 0, 0, 0, 7)
    assert RunMeta.from_json({**meta.to_json(), "novel": 1}) == meta


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_run_comes_back_from_a_store(kind, tmp_path):
    store = open_store(str(tmp_path) if kind == "local" else f"memory://{tmp_path.name}")
    rows = [(5, 2, 1.0, 0), (3, 1, 0.0, 0), (5, 0, 0.0, 1)]
    meta = written(store, rows)
    assert RunMeta.from_json(meta.to_json()) == meta
    assert (meta.part, meta.rows, meta.min_us, meta.max_us, meta.bucket) == (3, 3, 0, 2, 7)
    files = RunFiles(store)
    run = files(meta)
    assert run.payload().equals(payload(rows))
    assert files(meta) is run
    files.keep([])
    assert files(meta) is not run


def test_every_flipped_bit_is_noticed(tmp_path):
    store = open_store(str(tmp_path))
    meta = written(store, [(5, 2, 1.0, 0)])
    path = tmp_path / meta.path
    whole = path.read_bytes()
    for place in random.Random(1).sample(range(len(whole)), 50):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedFile, match="does not have the SHA-256"):
            RunFiles(store)(meta)
    path.write_bytes(whole)
    assert RunFiles(store)(meta).rows == 1


def test_without_the_hash_a_damaged_run_would_be_read(tmp_path):
    """The twin: Arrow itself notices nothing."""
    ts = 0x1122334455667788
    path = tmp_path / written(open_store(str(tmp_path)), [(5, ts, 1.0, 0)]).path
    data = path.read_bytes()
    bad = data.replace(ts.to_bytes(8, "little"), (ts + 1).to_bytes(8, "little"))
    assert bad != data
    assert Run("orphan", pa.ipc.open_file(bad).read_all()).ts.tolist() == [ts + 1]


def test_merges_keep_the_number_of_runs_small():
    """Ten days of ticks of a minute with a life of a day: at most 17 buckets and FAN runs per level."""
    life, metas, most, copied = 86_400, [], 0, 0
    for tick in range(14_400):
        watermark = 60 * tick
        bucket = bucket_of(watermark, life)
        metas = [m for m in metas if m.max_us >= watermark - life]
        metas.append(RunMeta("feedback", 1, watermark, watermark, 0, bucket))
        if group := merge_plan(metas, bucket):
            picked = [metas[at] for at in group]
            metas = [m for at, m in enumerate(metas) if at not in group]
            rows, level = sum(m.rows for m in picked), 1 + max(m.level for m in picked)
            metas.append(RunMeta("feedback", rows, picked[0].min_us, picked[-1].max_us, level, picked[0].bucket))
            copied += rows
        most = max(most, len(metas))
    assert most <= 17 + 2 * FAN
    assert copied <= 3 * 14_400


def test_huge_runs_are_left_alone():
    metas = [RunMeta("impression", 10_000_000, 0, 0, 3, 1), RunMeta("impression", 10_000_000, 0, 0, 3, 1)]
    assert merge_plan(metas, bucket=2) == []
    assert merge_plan([RunMeta("impression", 10, 0, 0, 0, 1)] * 2, bucket=2) == [0, 1]
