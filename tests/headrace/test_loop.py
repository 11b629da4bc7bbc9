"""Opening a root."""

from __future__ import annotations

import itertools
import json

import pytest

from headrace.errors import Ambiguous, DamagedFile, NewerFormat, NotFound, StoreRefused
from headrace.loop import open_loop
from headrace.store.memory import MemoryStore

_numbers = itertools.count()


@pytest.fixture
def store():
    return MemoryStore(f"loop-{next(_numbers)}")


def test_the_first_opener_makes_it_and_it_never_changes(store):
    loop = open_loop(store, "feed", now_us=lambda: 17)
    assert json.loads(store.read("loop.json")) == {"format": 1, "name": "feed", "created_us": 17}
    assert open_loop(store, "feed", now_us=lambda: 99) == loop
    assert (loop.name, loop.created_us) == ("feed", 17)


def test_a_reader_makes_nothing(store):
    with pytest.raises(NotFound, match="no loop") as raised:
        open_loop(store, "feed", create=False)
    assert raised.value.hint
    assert store.list("") == []


def test_another_loop_is_refused(store):
    open_loop(store, "feed")
    with pytest.raises(StoreRefused, match="holds the loop 'feed', not 'ads'"):
        open_loop(store, "ads")


def test_a_root_made_by_a_newer_headrace_is_refused(store):
    store.write("loop.json", b'{"format": 2, "title": "feed"}')
    with pytest.raises(NewerFormat, match="newer headrace") as raised:
        open_loop(store, "feed")
    assert "upgrade" in raised.value.hint


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": 1}', b'{"format":1,"name":"a","created_us":null}'])
def test_a_broken_file_is_named(store, data):
    store.write("loop.json", data)
    with pytest.raises(DamagedFile, match=r"loop\.json"):
        open_loop(store, "feed")


def test_a_lost_answer_is_looked_up(store):
    put = store.put_if_absent

    def lost(path, data):
        put(path, data)
        raise Ambiguous("no answer")

    store.put_if_absent = lost
    assert open_loop(store, "feed", now_us=lambda: 17).created_us == 17
    store.delete("loop.json")
    store.put_if_absent = lambda path, data: (_ for _ in ()).throw(Ambiguous("no answer"))
    with pytest.raises(Ambiguous):
        open_loop(store, "feed")


def test_its_logs(store):
    loop = open_loop(store, "feed")
    logs = [loop.shard_log(), loop.version_log(), loop.version_log("ctr"), loop.requests()]
    assert [log.prefix for log in logs] == ["shards/log", "models/default/log", "models/ctr/log", "requests/log"]
    assert len({log.writer for log in logs}) == 4
