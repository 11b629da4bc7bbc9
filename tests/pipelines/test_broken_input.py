"""Broken input in bulk, through whole ticks: all of it in quarantine with place and reason, its neighbours unharmed."""

import json
import random
import shlex
import subprocess
from collections import Counter

import pyarrow as pa
import pytest
from formats import GROWING, WAYS, csv, pieces_of

from headrace.config import Settings
from headrace.errors import SourceChanged
from headrace.loop import open_loop
from headrace.quarantine import read_quarantine
from headrace.shard import ShardRecord, read_shard
from headrace.store import open_store
from pipelines.pipeline import Pipeline
from pipelines.sources import members

T0 = 1_700_000_000
GOOD = [{"id": f"g{i}", "ts": T0 + i % 600, "user": f"u{i % 40}", "price": (i % 80) / 8} for i in range(2_000)]
BASE = {"id": "b", "ts": T0 + 5, "user": "u", "price": 1.0}

BAD_JSON = [  # 20 kinds
    (b'{"id": "cut", "ts": 1700', "malformed"),
    (b"", None),
    (b"null", "malformed"),
    (b"[1, 2]", "malformed"),
    (b"plain text", "malformed"),
    (b'{"id":"a","ts":1700000005}{"id":"b","ts":1700000005}', "malformed"),
    (b'{"id":"a","id":"b","ts":1700000005}', "duplicate_key"),
    (b'{"id":"\xff\xfe","ts":1700000005}', "utf8"),
    (b'{"id":"a","ts":1700000005,"x":' + b"[" * 1_500, "too_deep"),
    ({**BASE, "price": "cheap"}, "wrong_type"),
    ({**BASE, "id": 1.5}, "wrong_type"),
    ({**BASE, "user": {"name": "u"}}, "wrong_type"),
    (b'{"id":"a","ts":1700000005,"user":"u","price":NaN}', "infinite"),
    ({**BASE, "price": 1e300}, "out_of_range"),
    ({**BASE, "ts": -5}, "time_range"),
    ({**BASE, "ts": T0 + 10**8}, "future"),
    ({**BASE, "ts": None}, "missing_time"),
    ({**BASE, "id": ""}, "missing_id"),
    ({**BASE, "ts": "yesterday"}, "wrong_type"),
    ({**BASE, "x": "y" * 3_000}, "too_long"),
    (b"\x00\x01\x02{}", "malformed"),
]
BAD_CSV = [  # 20 kinds
    ("x,1700000005", "malformed"),
    ("x,1700000005,u,1,2", "malformed"),
    ("x", "malformed"),
    (",,", "malformed"),
    (",,,", "missing_id"),
    (",1700000005,u,1", "missing_id"),
    ('"",1700000005,u,1', "missing_id"),
    ("x,,u,1", "missing_time"),
    ("x,yesterday,u,1", "wrong_type"),
    ("x,2023-11-14T22:13:25Z,u,1", "wrong_type"),
    ("x,-5,u,1", "time_range"),
    ("x,1800000005,u,1", "future"),
    ("x,1e300,u,1", "wrong_type"),
    ("x,1700000005,u,cheap", "wrong_type"),
    ("x,1700000005,u,1.5.2", "wrong_type"),
    ("x,1700000005,u,inf", "wrong_type"),
    ("x,1700000005,u,1e300", "out_of_range"),
    ('x,1700000005,"u,1', "quoted_newline"),
    ("x,1700000005," + "u" * 3_000 + ",1", "too_long"),
    (b"x,1700000005,\xff\xfe,1", "malformed"),
]


def bytes_of(bad):
    return bad if isinstance(bad, bytes) else (bad if isinstance(bad, str) else json.dumps(bad)).encode()


def pipeline_of(folder, root, name, **pipeline):
    settings = Settings(
        loop={"name": "t", "root": str(root)},
        streams={
            "impression": {"source": f"{folder}/{name}", "id": "id", "time": "ts", "time_unit": "s"},
            "click": {"source": f"{folder}/clicks.jsonl", "id": "id", "time": "at", "time_unit": "s"},
        },
        label={"mode": "implicit", "wait_s": 30, "attribution_s": 60},
        features={"user": {"kind": "id"}, "price": {"kind": "number"}},
        pipeline={"record_bytes": 2_000, "quarantine_stop": 1.0, "parts": 1, **pipeline},
    )
    (folder / "clicks.jsonl").write_text('{"id": "g1", "at": 1700000009}\n')
    return Pipeline(open_loop(open_store(str(root)), "t"), settings, now_us=lambda: (T0 + 3_600) * 1_000_000)


def run(folder, root, name, *, drain=True, **pipeline):
    running = pipeline_of(folder, root, name, **pipeline)
    while running.tick(drain=drain) is not None:
        pass
    log = running.shard_log() if hasattr(running, "shard_log") else open_loop(open_store(str(root)), "t").shard_log()
    return open_store(str(root)), [ShardRecord.from_entry(log.read(seq)) for seq in log.seqs()]


def rows_of(store, records):
    tables = [read_shard(store, shard) for record in records for shard in record.shards]
    return sorted(map(repr, pa.concat_tables(tables).to_pylist()))


def refused_of(store, records):
    return [
        row for record in records for named in record.quarantine for row in read_quarantine(store, named).to_pylist()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["json", "csv"])
def test_two_thousand_bad_lines_of_twenty_kinds_among_two_thousand_good_ones(tmp_path, kind):
    """Plain Python says where each bad line begins; the shards are those of the good lines alone, byte for byte."""
    kinds = [(bytes_of(line), reason) for line, reason in (BAD_JSON if kind == "json" else BAD_CSV) if reason]
    assert len(kinds) == 20
    one = (lambda row: json.dumps(row).encode()) if kind == "json" else (lambda row: csv([row]).split(b"\n")[1])
    good = [(one(row), None) for row in GOOD]
    mixed = [*good, *(kinds * 100)]
    random.Random(5).shuffle(mixed)
    head = b"" if kind == "json" else b"id,ts,user,price\n"
    name = "shown.jsonl" if kind == "json" else "shown.csv"
    for folder, some in (("clean", [line for line in mixed if line[1] is None]), ("mixed", mixed)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(head + b"".join(line + b"\n" for line, _ in some))
    clean = run(tmp_path / "clean", tmp_path / "a", name)
    store, records = run(tmp_path / "mixed", tmp_path / "b", name)
    assert rows_of(store, records) == rows_of(*clean)
    assert [s.sha256 for r in records for s in r.shards] == [s.sha256 for r in clean[1] for s in r.shards]
    wanted, at = {}, len(head)
    for line, reason in mixed:
        if reason:
            wanted[f"{name}:{at}"] = (reason, line[:4096])
        at += len(line) + 1
    assert {row["offset"]: (row["reason"], row["raw"]) for row in refused_of(store, records)} == wanted
    assert len(wanted) == 2_000
    counts = records[-1].counts["impression/files"]
    assert (counts["read"], counts["invalid"], counts["emitted"]) == (4_000, 2_000, 2_000)


@pytest.mark.parametrize("name", ["a.avro", "a.jsonl.zst"])
def test_a_replay_of_every_record_of_a_file_that_grew_is_the_same(tmp_path, name):
    (tmp_path / "shown").mkdir()
    data = GROWING[name](GOOD)
    for share in (0.31, 0.6, 0.77):
        (tmp_path / "shown" / name).write_bytes(data[: int(share * len(data))])
        run(tmp_path, tmp_path / "loop", "shown/", drain=share > 0.7)
    (tmp_path / "shown" / name).write_bytes(data)
    store, records = run(tmp_path, tmp_path / "loop", "shown/")
    counts = records[-1].counts["impression/files"]
    assert (counts["read"], counts["invalid"], counts.get("duplicate", 0)) == (len(GOOD) + 1, 1, 0)
    reasons = Counter(row["reason"] for row in refused_of(store, records))
    assert reasons == {"broken_file": 1, "late": counts.get("late", 0)}  # drained before it was whole
    pipeline = pipeline_of(tmp_path, tmp_path / "loop", "shown/")
    assert len(records) > 3
    assert all(pipeline.replay(record.seq).same for record in records)


def test_an_end_that_can_never_be_read_is_said(tmp_path, caplog):
    """Once; and what follows in the newest file is read all the same."""
    for number, data in enumerate((WAYS["a.jsonl.gz"](GOOD[:999]), b"garbage", WAYS["a.jsonl.gz"](GOOD[999:]))):
        with (tmp_path / "shown.jsonl.gz").open("ab") as file:
            file.write(data)
        _, records = run(tmp_path, tmp_path / "loop", "shown.jsonl.gz", drain=False)
        assert caplog.text.count("source.broken stream=impression partition=files files=1 pieces=0") == (number > 0)
    counts = records[-1].counts["impression/files"]
    assert (counts["read"], counts["invalid"]) == (len(GOOD) + 1, 1)


def gapped(folder, name):
    """Of a file, and of the same with garbage in it: events that were read while it was the newest, store, records."""
    some, found = pieces_of(name, GOOD, 200), []
    for kind, more in (("clean", []), ("mixed", [b"garbage"])):
        (folder / kind).mkdir()
        (folder / kind / f"shown{name[1:]}").write_bytes(b"".join([*some[:5], *more, *some[5:]]))
        _, records = run(folder / kind, folder / f"{kind} loop", f"shown{name[1:]}", drain=False)
        read = records[-1].counts["impression/files"]["read"]
        found.append((read, *run(folder / kind, folder / f"{kind} loop", f"shown{name[1:]}")))
    return found


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.arrows"])
def test_garbage_in_the_middle_of_the_only_file_costs_nothing_else(tmp_path, name, caplog):
    (read, *clean), (more, store, records) = gapped(tmp_path, name)
    assert (read, more) == (len(GOOD), len(GOOD) + 1)
    assert rows_of(store, records) == rows_of(*clean)
    assert [s.sha256 for r in records for s in r.shards] == [s.sha256 for r in clean[1] for s in r.shards]
    row = next(row for row in refused_of(store, records) if row["reason"] != "late")
    assert (row["reason"], row["raw"], row["size"]) == ("broken_piece", b"garbage", 7)
    assert "source.broken stream=impression partition=files files=0 pieces=1" in caplog.text
    pipeline = pipeline_of(tmp_path / "mixed", tmp_path / "mixed loop", f"shown{name[1:]}")
    assert all(pipeline.replay(record.seq).same for record in records)


def test_twin_without_gaps_what_follows_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "resumed", lambda *args: None)
    (_, *clean), (more, store, records) = gapped(tmp_path, "a.jsonl.gz")
    assert more == len(GOOD) // 2 + 1
    assert len(rows_of(store, records)) < len(rows_of(*clean))


def test_a_file_that_is_read_again_from_its_beginning_counts_nothing_twice(tmp_path):
    """Half of an Avro file was taken before its end was called broken; the error says how the rest comes in."""
    for folder in ("clean", "mixed"):
        (tmp_path / folder / "shown").mkdir(parents=True)
    for number, part in enumerate((GOOD[:400], GOOD[400:800], GOOD[800:])):
        data = WAYS["a.avro"](part)
        (tmp_path / "clean" / "shown" / f"{number}.avro").write_bytes(data)
        torn = data[: 2 * len(data) // 3] if number == 1 else data
        (tmp_path / "mixed" / "shown" / f"{number}.avro").write_bytes(torn)
    clean = run(tmp_path / "clean", tmp_path / "a", "shown/")
    run(tmp_path / "mixed", tmp_path / "b", "shown/", drain=False)
    (tmp_path / "mixed" / "shown" / "1.avro").write_bytes(WAYS["a.avro"](GOOD[400:800]))
    with pytest.raises(SourceChanged) as caught:
        run(tmp_path / "mixed", tmp_path / "b", "shown/", drain=False)
    subprocess.run(shlex.split(caught.value.hint.split("`")[1]), check=True)
    store, records = run(tmp_path / "mixed", tmp_path / "b", "shown/")
    assert rows_of(store, records) == rows_of(*clean)
    counts = records[-1].counts["impression/files"]
    assert counts["emitted"] == len(GOOD)
    assert counts["invalid"] == 1
    assert counts["duplicate"] == counts["read"] - 1 - len(GOOD) > 0


@pytest.mark.parametrize("budget", [1 << 26, 20_000])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.arrows", "a.avro", "a.jsonl.gz", "a.csv.zst"])
def test_broken_files_among_good_ones(tmp_path, name, budget):
    ending = name[1:]
    for folder in ("clean", "mixed"):
        (tmp_path / folder / "shown").mkdir(parents=True)
        for number in range(5):
            part = GOOD[number * 400 : number * 400 + 400]
            (tmp_path / folder / "shown" / f"f{number}0{ending}").write_bytes(WAYS[name](part))
    whole = WAYS[name](GOOD[:50])  # of one piece
    broken = {"f05": whole[: len(whole) // 3], "f15": b"", "f25": b"<html>502</html>", "f45": whole[:-3]}
    for place, data in broken.items():
        (tmp_path / "mixed" / "shown" / f"{place}{ending}").write_bytes(data)
    clean = run(tmp_path / "clean", tmp_path / "a", "shown/", max_bytes_per_tick=budget)
    store, records = run(tmp_path / "mixed", tmp_path / "b", "shown/", max_bytes_per_tick=budget)
    assert rows_of(store, records) == rows_of(*clean)
    refused = refused_of(store, records)
    assert Counter((row["offset"], row["reason"]) for row in refused) == Counter(
        (f"{place}{ending}:0", "broken_file") for place in broken
    )
    assert {row["offset"]: row["raw"] for row in refused} == {f"{p}{ending}:0": d[:4096] for p, d in broken.items()}
    counts = records[-1].counts["impression/files"]
    assert (counts["read"], counts["invalid"], counts["emitted"]) == (2_004, 4, 2_000)
