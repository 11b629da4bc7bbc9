"""Whole ticks on files: rows against plain Python, cuts, replay, rivals, and every bad input that users meet."""

import json
import random
import resource
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import metrics, status
from headrace.config import Settings
from headrace.errors import (
    Busy,
    DamagedFile,
    MissingFeature,
    NewerFormat,
    SettingsError,
    SourceChanged,
    SourceTruncated,
    SourceVanished,
    StoreFull,
    TooManyInvalid,
    WrongType,
)
from headrace.loop import open_loop
from headrace.quarantine import read_quarantine
from headrace.shard import ShardRecord, read_shard
from headrace.store import open_store
from pipelines import aside
from pipelines import tick as tick_module
from pipelines.pipeline import Pipeline
from pipelines.sources.files import FileSource
from pipelines.sources.replay import ReplaySource

T0 = 1_700_000_000_000
NOW = (T0 + 3_600_000) * 1_000
WAIT, ATTRIBUTION = 30_000, 300_000


class Clock:
    def __init__(self, now_us=NOW):
        self.now = now_us

    def __call__(self):
        return self.now


def settings_of(folder, root, *, pipeline=None, label=None, impression=None, click=None, features=None):
    return Settings(
        loop={"name": "test", "root": str(root)},
        streams={
            "impression": {"source": f"{folder}/shown.jsonl", "id": "id", "time": "ts", "time_unit": "ms"}
            | (impression or {}),
            "click": {"source": f"{folder}/clicks.jsonl", "id": "id", "time": "at", "time_unit": "ms"} | (click or {}),
        },
        label=label or {"mode": "implicit", "wait_s": WAIT / 1000, "attribution_s": ATTRIBUTION / 1000},
        features=features or {"user": {"kind": "id"}, "price": {"kind": "number"}},
        pipeline=pipeline or {},
    )


def pipeline_of(folder, root, clock=None, **changes):
    settings = settings_of(folder, root, **changes)
    return Pipeline(open_loop(open_store(str(root)), "test"), settings, now_us=clock or Clock())


def events(n=400, seed=1):
    """n impressions over ten minutes (some twice), in disorder of at most 2 s; a click for every fifth."""
    rng = random.Random(seed)
    shown, clicks = [], []
    for k in range(n):
        ts = T0 + 600_000 * k // n + rng.randint(-1_000, 1_000)
        event = {"id": f"i{k}", "ts": ts, "user": rng.randrange(50), "price": rng.randrange(1_000) / 8}
        shown += [event] * (1 + (rng.random() < 0.05))
        if rng.random() < 0.2:
            clicks.append({"id": f"i{k}", "at": ts + rng.choice([0, 1_000, WAIT, WAIT + 1, 100_000, ATTRIBUTION])})
    return shown, sorted(clicks, key=lambda one: one["at"])


def write(folder, shown, clicks):
    (folder / "shown.jsonl").write_text("".join(json.dumps(one) + "\n" for one in shown))
    (folder / "clicks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in clicks))


def expected(shown, clicks):
    """(id, ts, label, kind, emit time) of every row, in milliseconds."""
    said = {one["id"]: one["at"] for one in clicks}
    rows = []
    for ts, id_ in {(one["ts"], one["id"]) for one in shown}:
        delay = said.get(id_, 10**15) - ts
        rows.append((id_, ts, float(delay <= WAIT), "observed", ts + WAIT))
        if WAIT < delay <= ATTRIBUTION:
            rows.append((id_, ts, 1.0, "correction", ts + delay))
    return Counter(rows)


def records(pipeline_or_loop):
    loop = pipeline_or_loop
    log = loop.shard_log()
    return [ShardRecord.from_entry(log.read(seq)) for seq in log.seqs()]


def rows_of(loop):
    """Every row of every shard, as `expected` has them."""
    names = ["impression_id", "event_time_us", "label", "row_kind", "emit_time_us"]
    rows = Counter()
    for record in records(loop):
        for shard in record.shards:
            for one in read_shard(loop.store, shard, names).to_pylist():
                a, ts, label, kind, emit = (one[name] for name in names)
                rows[a, ts // 1000, label, kind, emit // 1000] += 1
    return rows


def drain(pipeline):
    while pipeline.tick(drain=True) is not None:
        pass


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "events"
    made.mkdir()
    return made


def test_one_batch(folder, tmp_path):
    shown, clicks = events()
    write(folder, shown, clicks)
    pipeline = pipeline_of(folder, tmp_path / "loop")
    counted = metrics.EVENTS.labels("impression", "emitted")._value.get()
    drain(pipeline)
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    assert rows_of(loop) == expected(shown, clicks)
    assert metrics.EVENTS.labels("impression", "emitted")._value.get() == counted + 400
    (record,) = records(loop)
    assert record.counts["impression/files"] == {"duplicate": len(shown) - 400, "emitted": 400, "read": len(shown)}
    assert record.counts["click/files"]["read"] == len(clicks)
    assert [shard.part for shard in record.shards] == [0, 1]
    assert not [path for path in loop.store.list("shards/state") if "result" in path]
    assert pipeline.tick(drain=True) is None


@pytest.mark.parametrize("seed", range(3))
def test_any_cuts_give_the_rows_of_one_batch(folder, tmp_path, seed):
    """The files grow between ticks, by any number of bytes; budgets cut the rest."""
    rng = random.Random(seed)
    shown, clicks = events(seed=seed)
    write(folder, shown, clicks)
    whole = {name: (folder / name).read_bytes() for name in ("shown.jsonl", "clicks.jsonl")}
    have = dict.fromkeys(whole, 0)
    pipeline = pipeline_of(folder, tmp_path / "loop", pipeline={"max_bytes_per_tick": 9_000})
    while have != {name: len(data) for name, data in whole.items()}:
        upto = max(have[name] / len(data) for name, data in whole.items()) + rng.random() / 6
        for name, data in whole.items():
            have[name] = min(len(data), int(upto * len(data)))
            (folder / name).write_bytes(data[: have[name]])
        for _ in range(rng.randint(0, 3)):
            pipeline.tick()
    drain(pipeline)
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    assert rows_of(loop) == expected(shown, clicks)
    assert len(records(loop)) > 5


def test_replaying_a_record_gives_the_same_bytes(folder, tmp_path):
    write(folder, *events())
    pipeline = pipeline_of(folder, tmp_path / "loop", pipeline={"max_bytes_per_tick": 9_000})
    drain(pipeline)
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    for record in records(loop):
        replay = pipeline.replay(record.seq)
        assert replay.same
        assert len(replay.replayed.shards) == len(record.shards)


def test_a_replay_notices_other_events(folder, tmp_path):
    shown, clicks = events()
    write(folder, shown, clicks)
    pipeline = pipeline_of(folder, tmp_path / "loop")
    drain(pipeline)
    text = (folder / "shown.jsonl").read_text()
    (folder / "shown.jsonl").write_text(text[:-20] + text[-20:].replace("1", "2").replace("5", "3"))
    assert not pipeline.replay(0).same


def test_explicit_labels_and_revisions_from_one_source(folder, tmp_path):
    source = {"source": f"{folder}/orders.jsonl"}
    lines = [
        {"id": 1, "ts": T0, "user": "a", "price": 1, "at": T0 + 5_000, "label": 0},
        {"id": 2, "ts": T0 + 1_000, "user": "b", "price": 2},
        {"id": 1, "at": T0 + 9_000, "label": 1},
        {"id": 1, "at": T0 + 9_500, "label": 1},
    ]
    (folder / "orders.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    pipeline = pipeline_of(
        folder, tmp_path / "loop", impression=source, click={**source, "label": "label"},
        label={"mode": "explicit", "attribution_s": 300},
    )  # fmt: skip
    drain(pipeline)
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    assert rows_of(loop) == {
        ("1", T0, 0.0, "observed", T0 + 5_000): 1,
        ("1", T0, 1.0, "correction", T0 + 9_000): 1,
    }
    (record,) = records(loop)
    assert record.counts["impression/files"] == {"read": 2, "emitted": 1, "expired": 1}
    assert record.counts["click/files"] == {"read": 3, "joined": 2, "superseded": 1}


def test_parquet_and_csv(folder, tmp_path):
    shown, clicks = events(100)
    pq.write_table(pa.Table.from_pylist(shown), folder / "shown.parquet")
    text = "id,at\n" + "".join(f"{one['id']},{one['at']}\n" for one in clicks)
    (folder / "clicks.csv").write_text(text)
    pipeline = pipeline_of(
        folder,
        tmp_path / "loop",
        impression={"source": f"{folder}/shown.parquet"},
        click={"source": f"{folder}/clicks.csv"},
    )
    drain(pipeline)
    assert rows_of(open_loop(open_store(str(tmp_path / "loop")), "test")) == expected(shown, clicks)


def test_a_replayed_stream_declared_complete(folder, tmp_path):
    """The backtest: rows up to the declared time are out, whatever the watermarks of the streams say."""
    shown, clicks = events(100)
    sources = {}
    for name, rows, time in (("impression", shown, "ts"), ("click", clicks, "at")):
        table = pa.Table.from_pylist(sorted(rows, key=lambda one: one[time]))
        table = table.append_column("arrival", pa.array([v * 1_000 for v in table[time].to_pylist()], pa.int64()))
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        sources[name] = ReplaySource(folder / f"{name}.arrow", "arrival")
    root = tmp_path / "loop"
    loop = open_loop(open_store(str(root)), "test")
    pipeline = Pipeline(loop, settings_of(folder, root), sources=sources, now_us=Clock())
    for minute in range(13):
        until = (T0 + minute * 60_000) * 1_000
        for source in sources.values():
            source.reveal(until)
        while pipeline.tick(complete_until_us=until) is not None:
            pass
        known = (
            [one for one in shown if one["ts"] * 1_000 <= until],
            [one for one in clicks if one["at"] * 1_000 <= until],
        )
        due = {row for row in expected(*known) if row[4] * 1_000 < until}
        assert set(rows_of(loop)) == due
        if loop.shard_log().head():
            assert records(loop)[-1].watermark_us in (until, until - 60_000_000)


def test_idle_streams_let_rows_fall_due_and_close_their_windows(folder, tmp_path):
    shown, clicks = events(50)
    write(folder, shown, clicks[:1])
    clock = Clock()
    pipeline = pipeline_of(folder, tmp_path / "loop", clock, pipeline={"idle_s": 10})
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    assert pipeline.tick() is not None
    assert pipeline.tick() is None
    emitted = []
    for second in range(1, 1_200, 20):
        clock.now = NOW + second * 1_000_000
        pipeline.tick()
        emitted.append(sum(record.rows for record in records(loop)))
    assert emitted[0] < 50
    assert emitted[-1] >= 50
    last = records(loop)[-1]
    assert last.open_until_us <= last.closed_us
    assert last.watermark_us < NOW  # by the time idle, never to now
    assert len(records(loop)) < 50


def test_a_time_in_which_nobody_looked_is_no_idleness(folder, tmp_path):
    """The pipeline is down for an hour, the events of that hour wait in their producer: the watermark stays."""
    shown, clicks = events(50)
    write(folder, shown, clicks[:5])
    clock = Clock()
    one = pipeline_of(folder, tmp_path / "loop", clock)
    one.tick()
    clock.now += 12_000_000
    one.tick()
    one.close()
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    before = records(loop)[-1]
    clock.now += 3_600_000_000
    other = pipeline_of(folder, tmp_path / "loop", clock)
    plan = other.plan()
    assert not plan.due
    assert {r.idle_since_us for r in plan.ranges} == {clock.now}
    clock.now += 35_000_000
    entry = other.tick()
    after = records(loop)[-1]
    assert after.watermark_us == before.watermark_us + 23_000_000  # 25 s idle, 2 s of them recorded before
    assert {r.idle_since_us for r in after.ranges} == {clock.now - 35_000_000}
    assert other.replay(entry.seq).same


def test_an_outage_is_forgotten_idleness(folder, tmp_path, monkeypatch):
    write(folder, *events(50))
    clock = Clock()
    pipeline = pipeline_of(folder, tmp_path / "loop", clock)
    pipeline.tick()
    with monkeypatch.context() as patch:
        patch.setattr(FileSource, "reach", lambda *_, **__: None)
        clock.now += 9_000_000
        assert {r.idle_since_us for r in pipeline.plan().ranges} == {None}
    clock.now += 9_000_000
    assert {r.idle_since_us for r in pipeline.plan().ranges} == {clock.now}


def test_bad_events_are_kept_aside_with_reason_and_offset(folder, tmp_path):
    shown, clicks = events(200)
    write(folder, shown, clicks)
    with (folder / "shown.jsonl").open("ab") as stream:
        start = stream.tell()
        stream.write(b'{"id": "x", "ts": "soon", "user": 1, "price": 1}\n{"broken\n')
        stream.write(json.dumps({"id": "y", "ts": NOW // 1000 + 400_000, "user": 1, "price": 1}).encode() + b"\n")
    pipeline = pipeline_of(folder, tmp_path / "loop")
    counted = metrics.QUARANTINED.labels("malformed")._value.get()
    drain(pipeline)
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    assert rows_of(loop) == expected(shown, clicks)
    (record,) = records(loop)
    (named,) = record.quarantine
    assert named.reasons == {"future": 1, "malformed": 1, "wrong_type": 1}
    assert metrics.QUARANTINED.labels("malformed")._value.get() == counted + 1
    table = read_quarantine(loop.store, named).to_pylist()
    assert table[0]["offset"] == f"shown.jsonl:{start}"
    assert table[1]["raw"] == b'{"broken'
    assert record.counts["impression/files"]["invalid"] == 3


def test_late_events_are_kept_aside_too(folder, tmp_path):
    shown, clicks = events(50)
    write(folder, shown, clicks)
    pipeline = pipeline_of(folder, tmp_path / "loop")
    drain(pipeline)
    with (folder / "shown.jsonl").open("a") as stream:
        stream.write(json.dumps({**shown[0], "id": "late"}) + "\n")
    pipeline.tick()
    record = records(open_loop(open_store(str(tmp_path / "loop")), "test"))[-1]
    assert record.counts["impression/files"]["late"] == 1
    assert record.quarantine[0].reasons == {"late": 1}


def nothing_committed(root):
    return open_loop(open_store(str(root)), "test").shard_log().head() is None


def test_a_feature_that_no_event_has(folder, tmp_path):
    write(folder, *events(20))
    pipeline = pipeline_of(folder, tmp_path / "loop", features={"user": {"kind": "id"}, "prize": {"kind": "number"}})
    with pytest.raises(MissingFeature, match="feature 'prize' reads 'prize', but none of ") as caught:
        pipeline.tick()
    assert "features.prize" in caught.value.hint
    assert nothing_committed(tmp_path / "loop")


def test_a_key_that_some_events_lack_is_a_missing_value(folder, tmp_path):
    shown, clicks = events(20)
    write(folder, [{k: v for k, v in one.items() if k != "price" or i} for i, one in enumerate(shown)], clicks)
    drain(pipeline_of(folder, tmp_path / "loop"))
    assert not nothing_committed(tmp_path / "loop")


def test_wrong_types_throughout(folder, tmp_path):
    shown, clicks = events(200)
    write(folder, [{**one, "price": "dear"} for one in shown], clicks)
    with pytest.raises(TooManyInvalid, match=r"of stream 'impression' were refused.*another type") as caught:
        pipeline_of(folder, tmp_path / "loop").tick()
    assert "shards/quarantine/" in caught.value.hint
    assert nothing_committed(tmp_path / "loop")


def test_a_time_without_unit(folder, tmp_path):
    write(folder, *events(20))
    with pytest.raises(TooManyInvalid, match=r'number as time; add time_unit = "s"'):
        pipeline_of(folder, tmp_path / "loop", impression={"time_unit": None}).tick()


def test_a_typed_file_of_the_wrong_type(folder, tmp_path):
    shown, clicks = events(20)
    write(folder, shown, clicks)
    pq.write_table(pa.Table.from_pylist([{**one, "price": "x"} for one in shown]), folder / "shown.parquet")
    with pytest.raises(WrongType, match="feature 'price'") as caught:
        pipeline_of(folder, tmp_path / "loop", impression={"source": f"{folder}/shown.parquet"}).tick()
    assert caught.value.context["feature"] == "price"


def test_a_stop_at_a_share_of_invalid_events_but_not_of_few(folder, tmp_path):
    shown, clicks = events(100)
    write(folder, shown, clicks)
    pipeline = pipeline_of(folder, tmp_path / "loop")
    pipeline.tick()
    with (folder / "shown.jsonl").open("a") as stream:
        stream.write("broken\n" * 50)
    assert pipeline.tick() is not None
    with (folder / "shown.jsonl").open("a") as stream:
        stream.write("broken\n" * 150)
    with pytest.raises(TooManyInvalid, match="150 of 150 events"):
        pipeline.tick()


def test_a_source_that_vanishes_or_is_truncated_loses_nothing(folder, tmp_path):
    shown, clicks = events(50)
    write(folder, shown, clicks)
    pipeline = pipeline_of(folder, tmp_path / "loop")
    pipeline.tick()
    whole = (folder / "shown.jsonl").read_bytes()
    (folder / "shown.jsonl").write_bytes(whole[:100])
    with pytest.raises(SourceTruncated):
        pipeline.tick()
    (folder / "shown.jsonl").unlink()
    with pytest.raises(SourceVanished):
        pipeline.tick()
    (folder / "shown.jsonl").write_bytes(whole)
    drain(pipeline)
    assert rows_of(open_loop(open_store(str(tmp_path / "loop")), "test")) == expected(shown, clicks)


def test_a_full_disk_is_a_clear_error_and_nothing_is_lost(folder, tmp_path):
    shown, clicks = events(2_000)
    write(folder, shown, clicks)
    pipeline = pipeline_of(folder, tmp_path / "loop")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, hard))
    try:
        with pytest.raises(StoreFull) as caught:
            pipeline.tick()
        assert caught.value.hint
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert nothing_committed(tmp_path / "loop")
    drain(pipeline)
    assert rows_of(open_loop(open_store(str(tmp_path / "loop")), "test")) == expected(shown, clicks)


def test_settings_that_do_not_fit_what_is_pending(folder, tmp_path):
    write(folder, *events(50))
    pipeline_of(folder, tmp_path / "loop").tick()
    with pytest.raises(SettingsError, match=r"pipeline\.parts is 3, but events are pending in 2"):
        pipeline_of(folder, tmp_path / "loop", pipeline={"parts": 3}).tick()
    with pytest.raises(SettingsError, match="features changed") as caught:
        pipeline_of(folder, tmp_path / "loop", features={"user": {"kind": "id"}}).tick()
    assert "--drain" in caught.value.hint


def test_a_folder_of_many_files(folder, tmp_path):
    """Records share a file with the names behind the cursor; a new process goes on from it."""
    shown, clicks = events(150)
    write(folder, [], clicks)
    (folder / "in").mkdir()
    source = {"source": f"{folder}/in/"}
    pipeline = pipeline_of(folder, tmp_path / "loop", impression=source)
    for number, one in enumerate(shown):
        (folder / "in" / f"{number:04d}.jsonl").write_text(json.dumps(one) + "\n")
        if number >= 100 and number % 10 == 0:
            pipeline.tick()
    drain(pipeline)
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    assert rows_of(loop) == expected(shown, clicks)
    made = records(loop)
    asides = [record.ranges[-1].aside for record in made]
    assert asides[0] is None
    assert asides[1] == asides[-1]
    assert len(made[-1].ranges[-1].identity["recent"]) < 64
    assert all(pipeline.replay(record.seq).same for record in made)
    (folder / "in" / "0001.jsonl").write_text("{}\n{}\n")
    with pytest.raises(SourceChanged, match=r"0001\.jsonl shrank behind the cursor"):
        pipeline_of(folder, tmp_path / "loop", impression=source).tick()
    path = tmp_path / "loop" / asides[-1]["path"]
    path.write_bytes(path.read_bytes().replace(b"0001", b"0002"))
    aside._read.cache_clear()
    with pytest.raises(DamagedFile, match="aside"):
        pipeline_of(folder, tmp_path / "loop", impression=source).tick()


def test_an_aside_of_another_format(monkeypatch):
    store = open_store("memory://aside-newer")
    monkeypatch.setattr("pipelines.aside.FORMAT", 2)
    named = aside.write_aside(store, "shards/state/000000000000-aside-0-aa.json", {})
    monkeypatch.undo()
    with pytest.raises(NewerFormat, match="format 2 and kind aside"):
        aside.read_aside(store.url, named)


LABEL = {"mode": "implicit", "wait_s": WAIT / 1000, "attribution_s": ATTRIBUTION / 1000}
CHANGES = {
    "label.mode": {"label": {"mode": "explicit", "attribution_s": 300}, "click": {"label": "label"}},
    "label.wait_s": {"label": {**LABEL, "wait_s": 60}},
    "label.attribution_s": {"label": {**LABEL, "attribution_s": 200}},
    "pipeline.lateness_s": {"pipeline": {"lateness_s": 1}},
    "pipeline.window_s": {"pipeline": {"window_s": 30}},
}


@pytest.mark.parametrize("key", CHANGES)
def test_label_times_stay_while_rows_are_pending(folder, tmp_path, key):
    """Else a row would come twice (a longer wait) or never (a shorter one)."""
    shown, clicks = events(100)
    write(folder, shown, clicks)
    pipeline_of(folder, tmp_path / "loop").tick()
    with pytest.raises(SettingsError, match=rf"^{key} is .*, but rows are pending .* with {key} = ") as said:
        pipeline_of(folder, tmp_path / "loop", **CHANGES[key]).tick()
    assert "headrace pipeline run --drain" in said.value.hint
    assert "loop.root" in said.value.hint
    drain(pipeline_of(folder, tmp_path / "loop"))
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    assert records(loop)[-1].pending == ()
    assert pipeline_of(folder, tmp_path / "loop", **CHANGES[key]).tick() is None
    assert rows_of(loop) == expected(shown, clicks)


def test_disorder_and_idleness_may_change_and_the_record_says_what_was_used(folder, tmp_path):
    shown, clicks = events(100)
    write(folder, shown, clicks)
    pipeline_of(folder, tmp_path / "loop").tick()
    drain(pipeline_of(folder, tmp_path / "loop", pipeline={"disorder_s": 60, "idle_s": 1}))
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    first, last = records(loop)
    assert (first.policy.disorder_us, last.policy.disorder_us) == (5_000_000, 60_000_000)
    assert (first.policy.wait_us, first.policy.attribution_us) == (WAIT * 1_000, ATTRIBUTION * 1_000)
    assert rows_of(loop) == expected(shown, clicks)


def test_a_replay_decides_by_the_policy_of_its_record(folder, tmp_path):
    write(folder, *events(100))
    drain(pipeline_of(folder, tmp_path / "loop", pipeline={"max_bytes_per_tick": 4_000}))
    later = {"parts": 3, "window_s": 30, "disorder_s": 1, "lateness_s": 9, "idle_s": 1, "record_bytes": 10}
    other = pipeline_of(folder, tmp_path / "loop", label={**LABEL, "wait_s": 60}, pipeline={**later, "future_s": 0})
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    assert all(other.replay(record.seq).same for record in records(loop))
    with pytest.raises(SettingsError, match="other features"):
        pipeline_of(folder, tmp_path / "loop", features={"user": {"kind": "id"}}).replay(0)


def test_a_stream_that_is_gone_from_the_settings(folder, tmp_path):
    write(folder, *events(20))
    drain(pipeline_of(folder, tmp_path / "loop"))
    settings = settings_of(folder, tmp_path / "loop").model_dump(exclude_unset=True)
    settings["streams"]["tap"] = settings["streams"].pop("click")
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    for run in (Pipeline.tick, lambda one: one.replay(0)):
        with pytest.raises(SettingsError, match="stream 'click' is gone from the settings") as caught:
            run(Pipeline(loop, Settings(**settings), now_us=Clock()))
        assert "[streams.click]" in caught.value.hint


class Folders:
    """Every folder is a partition of its own."""

    def __init__(self, path):
        self.url = str(path)

    def partitions(self):
        return sorted(one.name for one in Path(self.url).iterdir())

    def first(self, partition):
        return self.of(partition).first(partition)

    def reach(self, partition, *args, **kwargs):
        return self.of(partition).reach(partition, *args, **kwargs)

    def spans(self, partition, *args):
        spans = self.of(partition).spans(partition, *args)
        return [replace(span, file=f"{partition}/{span.file}") for span in spans]

    def read(self, span, columns=None):
        partition, file = span.file.split("/")
        return self.of(partition).read(replace(span, file=file), columns)

    def of(self, partition):
        return FileSource(f"{self.url}/{partition}", "json")


def test_a_new_partition_comes_after_the_known_ones(folder, tmp_path):
    """Pending rows know their partition by its place: one that sorts before the others must not take it."""
    shown, clicks = events(60)
    late = [{**one, "id": f"late-{one['id']}"} for one in shown]
    settings = settings_of(folder, tmp_path / "loop")
    sources = {name: Folders(folder / name) for name in ("impression", "click")}
    for name, rows in (("impression/p2", shown), ("click/c", clicks)):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    pipeline = Pipeline(loop, settings, sources=sources, now_us=Clock())
    pipeline.tick()
    for name, rows in (("impression/p10", late[40:]), ("impression/p1", late[:40]), ("click/b", [])):
        (folder / name).mkdir()
        (folder / name / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    drain(pipeline)
    first, *_, last = records(loop)
    assert [one.key for one in first.ranges] == ["click/c", "impression/p2"]
    assert [one.key for one in last.ranges] == [
        "click/c", "impression/p2", "click/b", "impression/p1", "impression/p10",
    ]  # fmt: skip
    assert last.counts["impression/p2"]["emitted"] == 60
    emitted = sum(last.counts[f"impression/{name}"].get("emitted", 0) for name in ("p1", "p10"))
    assert sum(rows_of(loop).values()) - last.corrections == 60 + emitted
    assert all(pipeline.replay(record.seq).same for record in records(loop))


def test_two_pipelines_in_turn_on_one_root(folder, tmp_path):
    """The log is the lock: whoever is first commits, the other folds it and goes on; no event counts twice."""
    shown, clicks = events()
    write(folder, shown, clicks)
    small = {"max_bytes_per_tick": 9_000}
    pipelines = [pipeline_of(folder, tmp_path / "loop", pipeline=small) for _ in range(2)]
    stale = pipelines[1].plan()
    assert pipelines[0].tick().seq == stale.seq
    went_on = True
    while went_on:
        went_on = pipelines[0].tick(drain=True) is not None
        went_on = pipelines[1].tick(drain=True) is not None or went_on
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    assert rows_of(loop) == expected(shown, clicks)


def test_a_lost_race_is_folded(folder, tmp_path, monkeypatch):
    shown, clicks = events()
    write(folder, shown, clicks)
    one, other = (pipeline_of(folder, tmp_path / "loop") for _ in range(2))
    make, raced = tick_module.make, []

    def slow(*args):
        made = make(*args)
        if not raced:
            raced.append(None)
            raced[0] = other.tick()
        return made

    monkeypatch.setattr("pipelines.pipeline.make", slow)
    one.tick(drain=True)
    drain(one)
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    assert raced[0].seq == 0
    assert rows_of(loop) == expected(shown, clicks)


def test_a_second_living_pipeline_stops_or_waits(folder, tmp_path):
    write(folder, *events(20))
    store = open_store(str(tmp_path / "loop"))
    pipeline = pipeline_of(folder, tmp_path / "loop")
    from headrace.clock import now_us

    heartbeat = status.Heartbeat("pipeline", "elsewhere", 1, "0badcafe", now_us(), {})
    path = "status/pipeline-elsewhere.json"
    store.overwrite(path, json.dumps(vars(heartbeat)).encode())
    with pytest.raises(Busy, match="another pipeline runs on this root: process 1 on elsewhere"):
        pipeline.tick()
    waited, stops = [], iter([False, True])
    pipeline.run(stop=lambda: next(stops), on_wait=waited.append)
    assert waited[0].host == "elsewhere"
    store.delete(path)
    assert pipeline.tick() is not None


def test_run_once_and_runner_names(folder, tmp_path):
    shown, clicks = events(50)
    write(folder, shown, clicks)
    settings = settings_of(folder, tmp_path / "loop")
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    seen = []
    Pipeline(loop, settings, beam_args=["--runner=DirectRunner"], now_us=Clock()).run(once=True, on_record=seen.append)
    assert [entry.seq for entry in seen] == [0]
    Pipeline(loop, settings, now_us=Clock()).run(drain=True)
    assert rows_of(loop) == expected(shown, clicks)
    assert loop.store.list("status") == []


def test_another_runner_gives_the_same_rows(folder, tmp_path):
    """Not in process: the pipeline is built anew for each tick, by Beam's own flags."""
    shown, clicks = events(50)
    write(folder, shown, clicks)
    settings = settings_of(folder, tmp_path / "loop")
    loop = open_loop(open_store(str(tmp_path / "loop")), "test")
    Pipeline(loop, settings, beam_args=["--runner=BundleBasedDirectRunner"], now_us=Clock()).run(drain=True)
    assert rows_of(loop) == expected(shown, clicks)


def test_another_runner_cannot_reach_memory(folder):
    settings = settings_of(folder, "memory://other-runner")
    loop = open_loop(open_store("memory://other-runner"), "test")
    write(folder, *events(5))
    with pytest.raises(SettingsError, match="cannot reach a store in memory"):
        Pipeline(loop, settings, beam_args=["--runner", "FlinkRunner"], now_us=Clock()).tick()


def test_an_alarm_before_the_stop(folder, tmp_path, caplog):
    shown, clicks = events(200)
    write(folder, shown, clicks)
    with (folder / "shown.jsonl").open("a") as stream:
        stream.write("broken\n" * 10)
    pipeline_of(folder, tmp_path / "loop").tick()
    assert "quarantine.alarm stream=impression refused=10" in caplog.text
