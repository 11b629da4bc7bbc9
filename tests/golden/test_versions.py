"""A version log with all five kinds, as format 1 was first written: it stays readable, and is still written so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from headrace.log import Cursor, Log
from headrace.store.local import LocalStore
from headrace.store.memory import MemoryStore
from headrace.version import Kept, NamedFile, VersionRecord, path_to, trained_in

ROOT = Path(__file__).parent / "versions-1"
TABLE = {"name": "linear", "width": 1, "encoding": "f32", "features": ["item"]}
START = VersionRecord(
    version=0,
    kind="start",
    base=None,
    lineage=0,
    model={"kind": "lr", "tables": [TABLE]},
    schema={"format": 1, "features": [{"name": "item", "kind": "id"}]},
    prior=0.05,
    digest={"rows": 0, "sum": "0000000000000000", "tower": ""},
    created_at_us=1_790_000_000_000_000,
    code="0.1.0",
)
DELTA = replace(
    START,
    version=1,
    kind="delta",
    base=0,
    cursor=Cursor(4, "ab" * 32),
    trained=((0, 5),),
    watermark_us=1_790_000_060_000_000,
    max_emit_us=1_790_000_059_999_999,
    delta=NamedFile("models/default/params/000000000001-delta-0a1b2c3d.arrow", "cd" * 32, 4096),
    digest={"rows": 7, "sum": "00000000deadbeef", "tower": "ef" * 32},
    offset=-0.25,
    evaluation={"live": {"n": 100, "log_loss": 0.25}},
    gate={"action": "publish", "reasons": []},
    snapshot=Kept(1, "models/default/params/000000000001-snapshot-0a1b2c3d.arrow", "12" * 32, 9000),
    checkpoint=Kept(1, "models/default/checkpoints/000000000001-0a1b2c3d.arrow", "34" * 32, 20_000),
)
HOLD = replace(
    DELTA,
    version=2,
    kind="hold",
    base=1,
    cursor=Cursor(5, "ba" * 32),
    trained=(),
    held=((5, 6),),
    held_now=((5, 6),),
    delta=None,
    gate={"action": "hold", "reasons": ["G0: a weight is not finite"]},
    requests={"cursor": {"seq": 0, "sha256": "56" * 32}, "outcomes": [{"seq": 0, "outcome": "held"}]},
)
ROLLBACK = replace(HOLD, version=3, kind="rollback", base=2, to=0, held=((0, 5),), held_now=((0, 6),), requests={})
PIN = replace(ROLLBACK, version=4, kind="pin", base=3, to=1, pinned=1, held=(), verdicts=({"version": 1, "g3": "ok"},))
RECORDS = [START, DELTA, HOLD, ROLLBACK, PIN]


def test_they_read():
    log = Log(LocalStore(ROOT), "models/default/log")
    read = [VersionRecord.from_entry(log.read(seq)) for seq in log.seqs()]
    assert read == RECORDS


def test_they_are_written_so():
    store, golden = MemoryStore("golden-versions"), LocalStore(ROOT)
    log, parent = Log(store, "models/default/log", writer="0a1b2c3d"), None
    for record in RECORDS:
        parent = log.append(record.kind, record.to_body(), parent)
    assert {path: store.read(path) for path in store.list("")} == {path: golden.read(path) for path in golden.list("")}


def test_they_fold():
    log = Log(LocalStore(ROOT), "models/default/log")

    def read(version: int) -> VersionRecord:
        return VersionRecord.from_entry(log.read(version))

    assert path_to(2, read).snapshot == DELTA.snapshot
    assert path_to(4, read).deltas == ()
    assert [each.served for each in RECORDS] == [0, 1, 2, 3, 1]
    assert trained_in(2, read) == ((0, 5),)
    assert trained_in(4, read) == ()
