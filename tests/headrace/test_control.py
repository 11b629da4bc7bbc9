from __future__ import annotations

import threading

import pytest
from handmade import Publisher

from headrace import control
from headrace.errors import InvalidTarget, NotFound
from headrace.log import Cursor
from headrace.loop import open_loop
from headrace.store import open_store
from headrace.version import VersionRecord


@pytest.fixture
def loop(tmp_path):
    return open_loop(open_store(str(tmp_path)), "feed")


@pytest.fixture
def publisher(loop):
    """Versions 0 (start) to 4; shard record n is learned in version n + 1."""
    shards, parent = loop.shard_log(), None
    for _ in range(4):
        parent = shards.append("shard", {}, parent)
    publisher = Publisher(loop.store)
    publisher.start()
    for version in range(1, 5):
        learned = {"trained": ((version - 1, version),), "cursor": Cursor(version - 1, "")}
        publisher.delta({"linear": {7: [float(version)]}}, **learned)
    return publisher


def newest(loop) -> VersionRecord:
    return VersionRecord.from_entry(loop.version_log().head())


def test_a_rollback_takes_the_target_s_table_and_holds_what_came_after(loop, publisher) -> None:
    entry = control.rollback(loop, 2, by="ada", reason="bad clicks", now_us=9)
    record = newest(loop)
    assert (entry.seq, record.kind, record.to, record.created_at_us) == (5, "rollback", 2, 9)
    assert record.digest == publisher.table(2).digest().to_json()
    assert record.held == record.held_now == ((2, 4),)
    assert record.gate == {"action": "rollback", "by": "ada", "reason": "bad clicks"}


def test_a_pin_is_set_and_ended(loop, publisher) -> None:
    control.pin(loop, 3, by="ada", reason="", now_us=9)
    assert newest(loop).served == 3
    control.pin(loop, None, by="ada", reason="", now_us=9)
    assert newest(loop).served == newest(loop).version == 6
    with pytest.raises(InvalidTarget, match="no version is pinned"):
        control.pin(loop, None, by="ada", reason="", now_us=9)


def test_what_only_a_later_record_leads_to_cannot_be_pinned(loop, publisher) -> None:
    """A snapshot is written aside and named later. Once the head names a newer one, nothing would lead to the pin."""
    kept = publisher.snapshot()
    publisher.delta({"linear": {7: [5.0]}}, snapshot=None)
    publisher.delta({"linear": {7: [6.0]}}, snapshot=kept)
    loop.store.delete("models/default/log/000000000003.json")
    with pytest.raises(NotFound, match="no snapshot lies between") as error:
        control.pin(loop, 5, by="ada", reason="", now_us=9)
    assert "versions list" in error.value.hint
    control.pin(loop, 6, by="ada", reason="", now_us=9)


@pytest.mark.parametrize("version", [-1, 5, 99])
def test_unknown_versions_are_refused(loop, publisher, version) -> None:
    for ask in (control.rollback, control.pin):
        with pytest.raises(NotFound, match=f"there is no version {version}") as error:
            ask(loop, version, by="ada", reason="", now_us=9)
        assert "versions list" in error.value.hint
    assert newest(loop).version == 4


def test_going_back_to_what_is_served_is_refused(loop, publisher) -> None:
    publisher.hold()
    for version in (4, 5):
        with pytest.raises(InvalidTarget, match="has the parameters"):
            control.rollback(loop, version, by="ada", reason="", now_us=9)


def test_another_lineage_is_refused(loop, publisher) -> None:
    publisher.start()
    with pytest.raises(InvalidTarget, match="lineage of version 0"):
        control.rollback(loop, 2, by="ada", reason="", now_us=9)


def test_without_its_shards_and_a_checkpoint_a_version_cannot_be_gone_back_to(loop, publisher) -> None:
    loop.store.delete("shards/log/000000000000.json")
    with pytest.raises(InvalidTarget, match="no longer kept") as error:
        control.rollback(loop, 2, by="ada", reason="", now_us=9)
    assert "pin" in error.value.hint
    assert list(control.reachable(loop)) == [0]
    control.pin(loop, 2, by="ada", reason="", now_us=9)


def test_what_can_be_reached(loop, publisher) -> None:
    assert list(control.reachable(loop)) == [3, 2, 1, 0]
    loop.store.delete("models/default/log/000000000001.json")
    assert list(control.reachable(loop)) == [0]


def test_no_version_yet(loop) -> None:
    with pytest.raises(NotFound, match="no version yet"):
        control.rollback(loop, 0, by="ada", reason="", now_us=9)
    assert list(control.reachable(loop)) == []


def test_racing_control_records_all_land(loop, publisher) -> None:
    def pins() -> None:
        for version in range(1, 4):
            control.pin(loop, version, by="racer", reason="", now_us=9)

    threads = [threading.Thread(target=pins) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = loop.version_log()
    assert log.seqs() == list(range(14))
    assert all(log.read(seq).kind == "pin" for seq in range(5, 14))
