"""What a log promises on every store (headrace/log.py)."""

from __future__ import annotations

import pytest

from headrace.errors import DamagedFile, LogRewritten, LostRace, NewerFormat, NotFound
from headrace.log import Cursor, Follower, Log
from headrace.record import canonical, name_of, sha256_of
from headrace.store import open_store


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def filled(store, count, prefix="shards/log"):
    log, entries = Log(store, prefix), []
    for number in range(count):
        entries.append(log.append("shard", {"number": number}, entries[-1] if entries else None))
    return log, entries


def replaced(store, seq, prefix="shards/log", **changes):
    """Write record `seq` anew, with `changes`, sealed as a writer would."""
    import json

    record = json.loads(store.read(name_of(prefix, seq))) | changes
    record.pop("sha256")
    store.write(name_of(prefix, seq), canonical(record | {"sha256": sha256_of(canonical(record))}))


def test_an_empty_log(store):
    log = Log(store, "shards/log")
    assert log.head() is None
    assert log.first() is None
    assert log.seqs() == []
    assert Follower(log).poll() == []
    with pytest.raises(NotFound):
        log.read(0)


def test_append_read_head_first(store):
    log, entries = filled(store, 3)
    other = Log(store, "shards/log")
    assert [entry.seq for entry in entries] == [0, 1, 2]
    assert other.head() == log.head() == entries[2]
    assert other.first() == entries[0]
    assert other.read(1) == entries[1]
    assert other.read(1).body == {"number": 1}
    assert store.list("") == [name_of("shards/log", seq) for seq in range(3)]


def test_records_are_chained_by_the_hash_of_the_bytes(store):
    _, entries = filled(store, 3)
    for entry in entries:
        assert entry.sha256 == sha256_of(store.read(name_of("shards/log", entry.seq)))
        assert entry.parent == (entries[entry.seq - 1].sha256 if entry.seq else "")


def test_head_sees_what_others_appended(store):
    log, entries = filled(store, 1)
    assert log.head() == entries[0]
    newer = Log(store, "shards/log").append("shard", {}, entries[0])
    assert log.head() == newer


def test_long_lists_move_to_detail_files(store):
    log = Log(store, "shards/log", writer="0a0b0c0d")
    body = {"long": list(range(10_000)), "longer": {"a": list(range(20_000))}, "short": [1], "text": "x"}
    entry = log.append("shard", body, None)
    assert entry.body == body
    assert Log(store, "shards/log").read(0) == entry
    assert len(store.read(name_of("shards/log", 0))) <= 16 * 1024
    assert store.list("shards/detail") == [
        f"shards/detail/000000000000-{field}-0a0b0c0d.json" for field in ("long", "longer")
    ]


def test_a_missing_or_changed_detail_is_damage(store):
    log = Log(store, "shards/log")
    log.append("shard", {"long": list(range(10_000))}, None)
    (path,) = store.list("shards/detail")
    data = store.read(path)
    store.write(path, data.replace(b"17", b"18", 1))
    with pytest.raises(DamagedFile, match=path):
        log.read(0)
    store.delete(path)
    with pytest.raises(DamagedFile, match="missing"):
        Log(store, "shards/log").head()


def test_the_second_writer_of_a_number_loses_and_learns_the_winner(store):
    log, entries = filled(store, 2)
    rival = Log(store, "shards/log")
    with pytest.raises(LostRace) as raised:
        rival.append("shard", {"mine": 1}, entries[0])
    assert raised.value.context["winner"] == entries[1]
    assert rival.append("shard", {"mine": 1}, entries[1]).seq == 2
    assert log.head().body == {"mine": 1}


def test_a_newer_format_is_told_from_damage(store):
    log, _ = filled(store, 2)
    replaced(store, 1, format=2)
    with pytest.raises(NewerFormat, match="format 2"):
        log.read(1)
    with pytest.raises(NewerFormat):
        Log(store, "shards/log").head()
    store.write(name_of("shards/log", 1), store.read(name_of("shards/log", 1)).replace(b'"format":2', b'"format":3'))
    with pytest.raises(DamagedFile):
        log.read(1)


def test_a_record_under_another_number_is_damage(store):
    log, _ = filled(store, 1)
    store.write(name_of("shards/log", 1), store.read(name_of("shards/log", 0)))
    with pytest.raises(DamagedFile, match="says that it is record 0"):
        log.read(1)


def test_head_checks_its_parent(store):
    filled(store, 3)
    replaced(store, 1, number=99)
    with pytest.raises(DamagedFile, match="does not continue"):
        Log(store, "shards/log").head()
    store.delete(name_of("shards/log", 1))
    assert Log(store, "shards/log").head().seq == 2  # collected: nothing to compare with


def test_a_follower_reads_each_record_once_from_any_cursor(store):
    log, entries = filled(store, 3)
    follower = Follower(Log(store, "shards/log"))
    assert follower.poll() == entries
    assert follower.poll() == []
    entries.append(log.append("shard", {}, entries[-1]))
    assert follower.poll() == entries[3:]
    cursor = Cursor.from_json(entries[1].cursor().to_json())
    assert Follower(Log(store, "shards/log"), cursor).poll() == entries[2:]


def test_a_follower_starts_at_the_oldest_retained_record(store):
    _, entries = filled(store, 3)
    store.delete(name_of("shards/log", 0))
    assert Follower(Log(store, "shards/log")).poll() == entries[1:]


def test_a_cursor_is_checked_before_reading_on(store):
    log, entries = filled(store, 2)
    with pytest.raises(LogRewritten):
        Follower(log, Cursor(1, "0" * 64)).poll()
    with pytest.raises(LogRewritten):
        Follower(log, Cursor(0, "0" * 64)).poll()
    with pytest.raises(LogRewritten):
        Follower(log, Cursor(7, entries[1].sha256)).poll()


@pytest.mark.parametrize("how", ["gone", "different"])
def test_a_rewritten_log_is_noticed_after_ten_seconds(store, how):
    log, _ = filled(store, 2)
    clock = Clock()
    follower = Follower(log, now=clock)
    follower.poll()
    if how == "gone":
        store.delete(name_of("shards/log", 1))
    else:
        replaced(store, 1, number=99)
    clock.now = 9.9
    assert follower.poll() == []
    clock.now = 10.0
    with pytest.raises(LogRewritten):
        follower.poll()


def test_a_next_record_with_another_parent_is_noticed_at_once(store):
    log, _ = filled(store, 2)
    follower = Follower(log)
    follower.poll()
    filled(store, 3, prefix="others/log")
    store.write(name_of("shards/log", 2), store.read(name_of("others/log", 2)))
    with pytest.raises(LogRewritten):
        follower.poll()
    with pytest.raises(LogRewritten):
        log.head()


def test_what_can_be_read_is_returned_before_the_error(store):
    log, entries = filled(store, 3)
    store.write(name_of("shards/log", 2), b"{}")
    follower = Follower(log)
    assert follower.poll() == entries[:2]
    for _ in range(2):
        with pytest.raises(DamagedFile):
            follower.poll()
    assert follower.cursor == entries[1].cursor()


def test_nobody_builds_on_a_record_that_is_gone(store):
    log, entries = filled(store, 2)
    store.delete(name_of("shards/log", 1))
    with pytest.raises(LogRewritten):
        log.append("shard", {}, entries[1])
    assert log.seqs() == [0]


def test_a_restart_reads_what_the_process_before_it_wrote(url):
    filled(open_store(url), 3)
    log = Log(open_store(url), "shards/log")
    head = log.head()
    assert head.seq == 2
    assert log.append("shard", {}, head).seq == 3
