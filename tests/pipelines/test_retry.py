"""Refused events that are read again: once, with their sums, in every format, and through a kill at every step."""

import io
import json
from dataclasses import replace

import pytest
from formats import WAYS

from headrace import failpoints
from headrace.config import Settings
from headrace.log import Follower
from headrace.loop import open_loop
from headrace.requests import ask
from headrace.shard import ShardRecord, read_shard
from headrace.store import open_store
from pipelines import retry
from pipelines.pipeline import Pipeline
from pipelines.retry import Wanted, look, retried
from pipelines.setup import setup_of
from pipelines.sources.avro import AvroFiles
from pipelines.sources.packed import PackedLines
from pipelines.sources.quarantine import RETRIED

T0 = 1_700_000_000
NOW_US = (T0 + 900) * 1_000_000
ALL = Wanted(((0, 1 << 40),))


def settings_of(folder, name="shown.jsonl", *, impression=None, click=None, **pipeline):
    return Settings(
        loop={"name": "t", "root": str(folder / "loop")},
        streams={
            "impression": {"source": f"{folder}/{name}", "id": "id", "time": "ts", "time_unit": "s"}
            | (impression or {}),
            "click": {"source": f"{folder}/clicks.jsonl", "id": "id", "time": "at", "time_unit": "s"} | (click or {}),
        },
        label={"mode": "implicit", "wait_s": 30, "attribution_s": 3_600},
        features={"user": {"kind": "id"}, "price": {"kind": "number"}},
        pipeline={"quarantine_stop": 1.0, "record_bytes": 200, "future_s": 10.0, **pipeline},
    )


def loop_of(folder):
    return open_loop(open_store(str(folder / "loop")), "t")


def pipeline_of(folder, settings):
    return Pipeline(loop_of(folder), settings, now_us=lambda: NOW_US)


def records(folder):
    log = loop_of(folder).shard_log()
    return [ShardRecord.from_entry(log.read(seq)) for seq in log.seqs()]


def rows_of(folder):
    store = open_store(str(folder / "loop"))
    rows = [row for one in records(folder) for shard in one.shards for row in read_shard(store, shard).to_pylist()]
    return sorted((row["impression_id"], row["event_time_us"] // 1_000_000, row["label"]) for row in rows)


def run(folder, settings, *, drain=False):
    pipeline = pipeline_of(folder, settings)
    while pipeline.tick(drain=drain) is not None:
        pass
    pipeline.close()


def ask_for(folder, wanted=ALL):
    return ask(loop_of(folder), "retry", wanted.to_json(), "ann", NOW_US)


def fates(folder, settings, wanted=ALL):
    loop = loop_of(folder)
    found = look(setup_of(loop.store, settings), loop.shard_log(), records(folder)[-1], wanted, NOW_US)
    return sorted((reason, one.fate(row)) for one in found for row, reason in one.was.items())


def read_again(folder):
    return {one.key: one.end for one in records(folder)[-1].ranges if one.partition == RETRIED}


GOOD = [{"id": f"g{i}", "ts": T0 + i, "user": f"u{i % 9}", "price": i / 4} for i in range(100)]
LONG = [{"id": f"l{i}", "ts": T0 + i, "user": "u" * 200 + str(i), "price": 1.0} for i in range(20)]
HUGE = [{"id": f"h{i}", "ts": T0 + i, "user": "u" * 5_000 + str(i), "price": 1.0} for i in range(3)]
EARLY = [{"id": f"f{i}", "ts": T0 + 1_000 + i, "user": "u", "price": 1.0} for i in range(10)]
NEVER = [{"id": None, "ts": T0, "user": "u", "price": 1.0}] * 5
CLICKS = [{"id": name, "at": T0 + 20} for name in ("g1", "l1", "h1")]


def write(folder, name="shown.jsonl", rows=None):
    mixed = [*GOOD[:50], *LONG, *NEVER, *HUGE, *EARLY, *GOOD[50:]] if rows is None else rows
    (folder / name).write_bytes(WAYS[f"a.{name.partition('.')[2]}"](mixed))
    (folder / "clicks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in CLICKS))


def expected(rows):
    clicked = {one["id"] for one in CLICKS}
    return sorted((row["id"], row["ts"], float(row["id"] in clicked)) for row in rows)


MENDED = {"record_bytes": 20_000, "future_s": 86_400.0}


@pytest.mark.parametrize("name", ["shown.jsonl", "shown.csv", "shown.jsonl.gz", "shown.csv.zst"])
def test_what_is_mended_is_read_once_and_joins_its_feedback(tmp_path, name):
    write(tmp_path, name)
    run(tmp_path, settings_of(tmp_path, name))
    mended = settings_of(tmp_path, name, **MENDED)
    assert fates(tmp_path, settings_of(tmp_path, name)) == [
        *[("future", "future")] * 10, *[("missing_id", "missing_id")] * 5, *[("too_long", "too_long")] * 23
    ]  # fmt: skip
    assert fates(tmp_path, mended) == [
        *[("future", "")] * 10, *[("missing_id", "missing_id")] * 5, *[("too_long", "")] * 23
    ]  # fmt: skip
    request = ask_for(tmp_path)
    run(tmp_path, mended)
    assert read_again(tmp_path) == {f"impression/{RETRIED}": 33}
    (answer,) = [one for record in records(tmp_path) for one in record.requests["outcomes"]]
    assert answer == {"seq": request.seq, "outcome": "retried", "kept": {"missing_id": 5}}
    assert fates(tmp_path, mended) == [("missing_id", "missing_id")] * 5
    ask_for(tmp_path)  # a second one finds nothing
    run(tmp_path, mended, drain=True)
    assert read_again(tmp_path) == {f"impression/{RETRIED}": 33}
    assert rows_of(tmp_path) == expected([*GOOD, *LONG, *HUGE, *EARLY])
    counts = records(tmp_path)[-1].counts
    assert counts["impression/files"] == {"read": 138, "emitted": 100, "invalid": 38}
    assert counts[f"impression/{RETRIED}"] == {"read": 33, "emitted": 33}
    pipeline = pipeline_of(tmp_path, mended)
    assert all(pipeline.replay(record.seq).same for record in records(tmp_path)[1:])


@pytest.mark.parametrize("name", ["shown.parquet", "shown.arrow", "shown.avro"])
def test_rows_of_typed_files_are_read_where_they_stand(tmp_path, name):
    write(tmp_path, name, rows=[*GOOD[:50], *EARLY[:5], *NEVER, *EARLY[5:], *GOOD[50:]])
    run(tmp_path, settings_of(tmp_path, name))
    mended = settings_of(tmp_path, name, **MENDED)
    ask_for(tmp_path, Wanted(((0, 9),), ("future",)))
    run(tmp_path, mended)
    run(tmp_path, mended, drain=True)
    assert read_again(tmp_path) == {f"impression/{RETRIED}": 10}
    assert rows_of(tmp_path) == expected([*GOOD, *EARLY])


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_of_several_partitions(tmp_path, name):
    for host, some in (("h1", [*GOOD[:50], *EARLY[:4], *HUGE]), ("h2", [*EARLY[4:], *GOOD[50:]])):
        (tmp_path / "logs" / host).mkdir(parents=True)
        (tmp_path / "logs" / host / name).write_bytes(WAYS[name](some))
    write(tmp_path)
    run(tmp_path, settings_of(tmp_path, "logs/{p}/"))
    ask_for(tmp_path)
    run(tmp_path, settings_of(tmp_path, "logs/{p}/", **MENDED))
    run(tmp_path, settings_of(tmp_path, "logs/{p}/", **MENDED), drain=True)
    assert rows_of(tmp_path) == expected([*GOOD, *EARLY, *HUGE])
    assert records(tmp_path)[-1].counts[f"impression/{RETRIED}"]["read"] == (13 if name == "a.jsonl" else 10)


def test_only_the_reasons_and_records_that_are_asked_for(tmp_path):
    write(tmp_path)
    run(tmp_path, settings_of(tmp_path))
    mended = settings_of(tmp_path, **MENDED)
    for wanted, reached in (
        (Wanted(((0, 99),), ("missing_id",)), {}),
        (Wanted(((5, 99),)), {}),
        (Wanted(((0, 1),), ("future",)), {f"impression/{RETRIED}": 10}),
        (Wanted(((0, 1),)), {f"impression/{RETRIED}": 33}),
    ):
        ask_for(tmp_path, wanted)
        run(tmp_path, mended)
        assert read_again(tmp_path) == reached


def test_many_are_read_in_several_ticks_and_a_drain_waits_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "MOST", 7)
    write(tmp_path)
    run(tmp_path, settings_of(tmp_path))
    ask_for(tmp_path)
    run(tmp_path, settings_of(tmp_path, **MENDED), drain=True)
    assert rows_of(tmp_path) == expected([*GOOD, *LONG, *HUGE, *EARLY])
    assert [record.counts.get(f"impression/{RETRIED}", {}).get("read", 0) for record in records(tmp_path)] == [
        0, 7, 14, 21, 28, 33
    ]  # fmt: skip


def test_what_is_late_or_gone_stays(tmp_path):
    write(tmp_path)
    run(tmp_path, settings_of(tmp_path), drain=True)
    mended = settings_of(tmp_path, **MENDED)
    assert set(fates(tmp_path, mended)) == {("future", ""), ("missing_id", "missing_id"), ("too_long", "late")}
    ask_for(tmp_path)
    run(tmp_path, mended, drain=True)
    assert read_again(tmp_path) == {f"impression/{RETRIED}": 10}
    (outcome,) = records(tmp_path)[1].requests["outcomes"]
    assert outcome["kept"] == {"late": 23, "missing_id": 5}
    assert rows_of(tmp_path) == expected([*GOOD, *EARLY])

    other = tmp_path / "other"
    (other / "shown").mkdir(parents=True)
    write(other)
    (other / "shown.jsonl").rename(other / "shown" / "a.jsonl")
    (other / "shown" / "b.jsonl").write_text(json.dumps({**GOOD[0], "id": "b"}) + "\n")
    run(other, settings_of(other, "shown/"))
    (other / "shown" / "a.jsonl").unlink()
    mended = settings_of(other, "shown/", **MENDED)
    found = fates(other, mended)
    assert (found.count(("too_long", "gone")), found.count(("too_long", ""))) == (3, 20)  # quarantine has 4 KiB of each
    ask_for(other)
    run(other, mended)
    (outcome,) = records(other)[-1].requests["outcomes"]
    assert outcome["kept"] == {"gone": 3, "missing_id": 5}
    assert read_again(other) == {f"impression/{RETRIED}": 30}


@pytest.mark.parametrize("name", ["a.avro", "a.jsonl.gz"])
def test_a_file_whose_codec_is_there_now_is_read_whole(tmp_path, name, monkeypatch):
    kind = AvroFiles if name == "a.avro" else PackedLines
    ending = name.partition(".")[2]
    (tmp_path / "shown").mkdir()
    for place, some in (("a", GOOD[:50]), ("b", [*GOOD[50:90], *NEVER]), ("c", GOOD[90:])):
        (tmp_path / "shown" / f"{place}.{ending}").write_bytes(WAYS[name](some))
    (tmp_path / "clicks.jsonl").write_text("")
    settings = settings_of(tmp_path, "shown/")

    def without_codec(self, stream, size, known):
        data = stream.read()
        if data == (tmp_path / "shown" / f"b.{ending}").read_bytes():
            raise ValueError("no such codec")
        return measure(self, io.BytesIO(data), size, known)

    measure = kind.measure
    with monkeypatch.context() as patch:
        patch.setattr(kind, "measure", without_codec)
        pipeline = pipeline_of(tmp_path, settings)
        assert pipeline.tick() is not None
        pipeline.close()
        assert fates(tmp_path, settings) == [("broken_file", "broken_file")]
    assert fates(tmp_path, settings) == [("broken_file", "")]
    ask_for(tmp_path)
    run(tmp_path, settings)
    run(tmp_path, settings, drain=True)
    assert rows_of(tmp_path) == sorted((row["id"], row["ts"], 0.0) for row in GOOD)
    assert read_again(tmp_path) == {f"impression/{RETRIED}": 1}
    assert records(tmp_path)[-1].counts[f"impression/{RETRIED}"] == {"read": 45, "emitted": 40, "invalid": 5}
    assert fates(tmp_path, settings) == [("missing_id", "missing_id")] * 5
    assert pipeline_of(tmp_path, settings).replay(1).same


def test_a_line_that_nobody_could_attribute_is_offered_to_every_stream_of_its_source(tmp_path):
    source = {"source": f"{tmp_path}/all.jsonl"}
    shown = [{"type": "i", "id": f"i{n}", "ts": T0 + n, "user": "u" * 200, "price": 1.0} for n in range(10)]
    clicks = [{"type": "c", "id": f"i{n}", "ts": T0 + n + 1, "pad": "x" * 200} for n in range(5)]
    short = [{"type": "i", "id": f"s{n}", "ts": T0 + n, "user": "u", "price": 1.0} for n in range(10)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*short, *shown, *clicks]))

    def settings(**pipeline):
        streams = {
            "impression": {**source, "where": {"type": "i"}},
            "click": {**source, "where": {"type": "c"}, "time": "ts"},
        }
        return settings_of(tmp_path, **streams, **pipeline)

    run(tmp_path, settings())
    ask_for(tmp_path)
    run(tmp_path, settings(**MENDED))
    run(tmp_path, settings(**MENDED), drain=True)
    assert read_again(tmp_path) == {f"impression/{RETRIED}": 10, f"click/{RETRIED}": 5}
    assert rows_of(tmp_path) == sorted(
        [(f"s{n}", T0 + n, 0.0) for n in range(10)] + [(f"i{n}", T0 + n, float(n < 5)) for n in range(10)]
    )


def test_requests_to_others_are_passed_over_and_remembered(tmp_path):
    write(tmp_path)
    loop = loop_of(tmp_path)
    ask(loop, "retrain", {}, "ann", NOW_US)
    run(tmp_path, settings_of(tmp_path))
    assert records(tmp_path)[-1].requests["cursor"] is None  # a first record answers nothing
    ask_for(tmp_path)
    ask(loop, "retrain", {}, "ann", NOW_US)
    run(tmp_path, settings_of(tmp_path, **MENDED), drain=True)
    assert records(tmp_path)[-1].requests["cursor"]["seq"] == 2
    assert [entry.kind for entry in Follower(loop.requests()).poll()] == ["retrain", "retry", "retrain"]


def test_refused_events_stay_as_long_as_a_record_reads_them(tmp_path):
    write(tmp_path)
    run(tmp_path, settings_of(tmp_path))
    ask_for(tmp_path)
    run(tmp_path, settings_of(tmp_path, **MENDED))
    from headrace.retention import files_named

    bodies = [loop_of(tmp_path).shard_log().read(one.seq).body for one in records(tmp_path)]
    (kept,) = [named.path for one in records(tmp_path) for named in one.quarantine]
    assert [kept in set(files_named(body)) for body in bodies] == [True, True, *[False] * (len(bodies) - 2)]


def test_a_damaged_file_of_refused_events_stops_nobody(tmp_path):
    write(tmp_path)
    run(tmp_path, settings_of(tmp_path))
    (kept,) = [named.path for one in records(tmp_path) for named in one.quarantine]
    path = tmp_path / "loop" / kept
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    ask_for(tmp_path)
    run(tmp_path, settings_of(tmp_path, **MENDED), drain=True)
    assert records(tmp_path)[1].requests["outcomes"][0]["kept"] == {"damaged": 38}
    assert rows_of(tmp_path) == expected(GOOD)


PLACES = [name for name in failpoints.NAMES if name.startswith(("pipeline.", "log."))]


class Killed(Exception):
    """Stands for the end of the process: the pipeline that raises it is dropped as it is."""


def killed(folder, settings, place, monkeypatch):
    """Run until nothing is new, dying at `place`; whether it died there."""

    def die():
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "_die", die)
        patch.setattr(failpoints, "_hits", {})
        patch.setenv(failpoints.VARIABLE, place)
        try:
            run(folder, settings)
        except Exception as error:  # noqa: BLE001  (Beam wraps what its workers raise)
            return "Killed" in repr(error) + str(error)
    return False


def tortured(folder, monkeypatch):
    """Ask, die at every step in turn, ask again each time; how many events were read again."""
    write(folder)
    run(folder, settings_of(folder))
    mended = settings_of(folder, **MENDED)
    for place in PLACES:
        ask_for(folder)
        assert killed(folder, mended, place, monkeypatch), place
    ask_for(folder)
    run(folder, mended, drain=True)
    return records(folder)[-1].counts[f"impression/{RETRIED}"]["read"]


def test_killed_at_every_step_nothing_is_lost_or_read_twice(tmp_path, monkeypatch):
    assert tortured(tmp_path, monkeypatch) == 33
    assert rows_of(tmp_path) == expected([*GOOD, *LONG, *HUGE, *EARLY])


def test_twin_without_marks_reads_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "_marked", lambda marks, picks, first: {})
    assert tortured(tmp_path, monkeypatch) > 33


def test_twin_without_the_answer_in_the_record_never_ends(tmp_path, monkeypatch):
    """The cursor is what ends a request: without it each tick finds the request again."""
    write(tmp_path)
    run(tmp_path, settings_of(tmp_path))
    ask_for(tmp_path)
    real = retry.with_retry
    monkeypatch.setattr("pipelines.pipeline.with_retry", lambda *args: replace(real(*args), requests=None))
    pipeline = pipeline_of(tmp_path, settings_of(tmp_path, **MENDED))
    assert all(pipeline.tick() is not None for _ in range(5))
    assert retried(loop_of(tmp_path).store.url, records(tmp_path)[-1])
    assert read_again(tmp_path) == {f"impression/{RETRIED}": 33}  # the marks hold all the same
