"""A root as format 1 was first written: it stays readable, and is still written so, byte for byte."""

from __future__ import annotations

from pathlib import Path

from headrace.log import Follower, Log
from headrace.loop import open_loop
from headrace.store.local import LocalStore
from headrace.store.memory import MemoryStore

ROOT = Path(__file__).parent / "root-1"
BODIES = [
    {"number": 0, "text": 'é "x"', "share": 0.1, "nothing": None},
    {"number": 1, "rows": [list(range(50)) for _ in range(130)]},
    {"number": 2},
]


def test_it_reads():
    loop = open_loop(LocalStore(ROOT), "feed", create=False)
    assert loop.created_us == 1_790_000_000_000_000
    entries = Follower(loop.shard_log()).poll()
    assert [entry.body for entry in entries] == BODIES
    assert {(entry.kind, entry.writer) for entry in entries} == {("shard", "0a1b2c3d")}
    assert entries[2].sha256 == "9760220c60622f59e91c6d3201ca4d2b63bccf00c863fe4987c0e1453fa38711"


def test_it_is_written_so():
    store, golden = MemoryStore("golden-root"), LocalStore(ROOT)
    open_loop(store, "feed", now_us=lambda: 1_790_000_000_000_000)
    log, parent = Log(store, "shards/log", writer="0a1b2c3d"), None
    for body in BODIES:
        parent = log.append("shard", body, parent)
    assert {path: store.read(path) for path in store.list("")} == {path: golden.read(path) for path in golden.list("")}
