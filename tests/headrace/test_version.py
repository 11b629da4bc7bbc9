from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import DamagedFile, NewerFormat, NotFound
from headrace.log import Cursor, Entry
from headrace.version import (
    Kept,
    NamedFile,
    VersionRecord,
    contains,
    difference,
    learned_apart,
    path_to,
    pin_of,
    rollback_of,
    trained_in,
    union,
)

RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)).map(lambda pair: (pair[0], sum(pair))), max_size=6)


def record(version: int, kind: str = "delta", **fields: object) -> VersionRecord:
    base = None if kind == "start" else version - 1
    blank = VersionRecord(
        version=version, kind=kind, base=base, lineage=0, model={"kind": "lr"}, schema={}, prior=0.1, digest={},
        created_at_us=0, code="test", delta=NamedFile(f"d{version}", "00", 1) if kind == "delta" else None,
    )  # fmt: skip
    return replace(blank, **fields)


def reader(*records: VersionRecord):
    by_version = {each.version: each for each in records}

    def read(version: int) -> VersionRecord:
        if version not in by_version:
            raise NotFound(f"no version {version}")
        return by_version[version]

    return read


def entry_of(each: VersionRecord) -> Entry:
    return Entry(seq=each.version, sha256="", kind=each.kind, body=json.loads(json.dumps(each.to_body())))


def numbers(ranges) -> set[int]:
    return {n for low, high in ranges for n in range(low, high)}


def test_a_record_survives_json() -> None:
    kept = Kept(3, "s", "ff", 9)
    there = record(
        4, cursor=Cursor(7, "ab"), trained=((5, 8),), held_now=((1, 2),), snapshot=kept, verdicts=({"version": 2},)
    )  # fmt: skip
    assert VersionRecord.from_entry(entry_of(there)) == there


def test_an_unknown_kind_is_newer_and_a_missing_field_is_damage() -> None:
    entry = entry_of(record(4))
    with pytest.raises(NewerFormat, match="unknown kind 'merge'"):
        VersionRecord.from_entry(replace(entry, kind="merge"))
    del entry.body["digest"]
    with pytest.raises(DamagedFile, match="'digest'"):
        VersionRecord.from_entry(entry)


def test_the_path_walks_back_to_the_empty_table() -> None:
    read = reader(record(0, "start"), record(1), record(2, "hold"), record(3))
    path = path_to(3, read)
    assert path.snapshot is None
    assert [each.version for each in path.deltas] == [1, 3]


def test_a_rollback_takes_the_table_of_its_target() -> None:
    read = reader(record(0, "start"), record(1), record(2), record(3, "rollback", to=1), record(4))
    assert [each.version for each in path_to(4, read).deltas] == [1, 4]
    assert record(3, "rollback", to=1).table_of == 1


def test_a_pin_changes_what_is_served_and_no_table() -> None:
    pin = record(2, "pin", to=1, pinned=1)
    assert (pin.served, pin.table_of) == (1, 1)
    assert record(3, pinned=1).served == 1
    assert record(3, meanwhile=2).served == 2
    assert record(3, pinned=1, meanwhile=2).served == 1
    assert record(3).served == 3


@pytest.mark.parametrize("named_by", ["itself", "a later record", "the newest record"])
def test_a_snapshot_shortens_the_path(named_by: str) -> None:
    kept = Kept(2, "snapshot", "", 1)
    records = [record(0, "start"), record(1), record(2), record(3), record(4)]
    if named_by == "itself":
        records[2] = replace(records[2], snapshot=kept)
    if named_by == "a later record":
        records[3] = replace(records[3], snapshot=kept)
    path = path_to(4, reader(*records[2:]), [kept] if named_by == "the newest record" else [])
    assert path.snapshot == kept
    assert [each.version for each in path.deltas] == [3, 4]


def test_an_unreachable_version_says_so() -> None:
    with pytest.raises(NotFound, match="version 4 cannot be reached: version 2 is no longer kept") as caught:
        path_to(4, reader(record(3), record(4)))
    assert "versions list" in caught.value.hint


def test_the_lineage_of_a_rollback_forgets_what_came_after_its_target() -> None:
    read = reader(
        record(0, "start"), record(1, trained=((0, 2),)), record(2, trained=((2, 3),)),
        record(3, "rollback", to=1), record(4, trained=((3, 4),)),
    )  # fmt: skip
    assert trained_in(2, read) == ((0, 3),)
    assert trained_in(4, read) == ((0, 2), (3, 4))


def lineage(steps) -> list[VersionRecord]:
    """A record for each (what, which): trained, held, released, or gone back to an earlier version."""
    records, seen = [record(0, "start")], 0
    for what, which in steps:
        head, next_, held = records[-1], len(records), sorted(numbers(records[-1].held_now))
        same = {"cursor": head.cursor, "held_now": head.held_now}
        if what == "rollback":
            records.append(rollback_of(head, which % next_, records.__getitem__, now_us=0, code="x"))
        elif what == "release" and held:
            one = ((held[which % len(held)], held[which % len(held)] + 1),)
            same["held_now"] = difference(head.held_now, one)
            records.append(record(next_, **same, trained=one, released=one))
        elif what in ("train", "hold"):
            one, seen = ((seen, seen + 1),), seen + 1
            same["cursor"] = Cursor(one[0][0], "")
            if what == "train":
                records.append(record(next_, **same, trained=one))
            else:
                same["held_now"] = union(head.held_now, one)
                records.append(record(next_, "hold", **same, held=one))
    return records


STEPS = st.lists(
    st.tuples(st.sampled_from(["train", "hold", "release", "rollback"]), st.integers(0, 30)), min_size=1, max_size=16
)


@given(STEPS, st.data())
def test_what_two_versions_have_learned_apart_is_known_without_the_way_between_them(steps, data) -> None:
    """Compared with walking both ways to the start."""
    records = lineage(steps)
    one = trained_in(len(records) - 1, records.__getitem__)
    to = data.draw(st.integers(0, len(records) - 1))
    other = trained_in(to, records.__getitem__)
    read = records.__getitem__ if records[to].cursor is None else reader()
    assert learned_apart(records[-1], records[to], read) == (difference(one, other), difference(other, one))


@given(RANGES, RANGES)
def test_ranges_are_sets(left, right) -> None:
    assert numbers(union(left, right)) == numbers(left) | numbers(right)
    assert numbers(difference(left, right)) == numbers(left) - numbers(right)
    assert all(contains(union(left), n) == (n in numbers(left)) for n in range(40))
    assert all(a[1] < b[0] for a, b in zip(union(left, right), union(left, right)[1:], strict=False))


def test_a_rollback_serves_what_its_target_served_and_holds_what_came_after() -> None:
    records = [
        record(0, "start"),
        record(1, trained=((0, 2),), offset=-1.0, digest={"sum": "1"}, max_emit_us=5, watermark_us=6,
               cursor=Cursor(1, "aa")),
        record(2, trained=((2, 4),), offset=-2.0, digest={"sum": "2"}, max_emit_us=9, watermark_us=9, pinned=None,
               cursor=Cursor(4, "ab"), held_now=((4, 5),), requests={"cursor": {"seq": 1, "sha256": ""}}),
    ]  # fmt: skip
    back = rollback_of(records[2], 1, reader(*records), now_us=77, code="x")
    assert (back.version, back.kind, back.base, back.to, back.table_of) == (3, "rollback", 2, 1, 1)
    assert (back.offset, back.digest, back.max_emit_us, back.watermark_us) == (-1.0, {"sum": "1"}, 5, 6)
    assert (back.cursor, back.held, back.held_now) == (Cursor(4, "ab"), ((2, 4),), ((2, 5),))
    assert (back.requests["cursor"], back.created_at_us) == ({"seq": 1, "sha256": ""}, 77)


@given(STEPS)
def test_whatever_is_rolled_back_to_a_shard_is_learned_or_held_and_never_both(steps) -> None:
    """Back, and forward again: a shard that is held although the weights have learned it could be released twice."""
    records = lineage(steps)
    seen = max((each.cursor.seq + 1 for each in records if each.cursor), default=0)
    learned = trained_in(len(records) - 1, records.__getitem__)
    assert union(learned, records[-1].held_now) == (((0, seen),) if seen else ())
    assert not numbers(learned) & numbers(records[-1].held_now)
    for before, after in pairwise(records):
        told = difference(union(before.held_now, after.held), after.released)
        assert told == after.held_now  # a record says what it changes


def test_a_rollback_to_what_is_gone_is_refused() -> None:
    with pytest.raises(NotFound):
        rollback_of(record(4), 1, reader(record(4)), now_us=0, code="x")


def test_a_pin_repeats_the_head() -> None:
    pin = pin_of(record(2, trained=((2, 4),), offset=-2.0), 1, now_us=0, code="x")
    assert (pin.version, pin.kind, pin.base, pin.to, pin.served) == (3, "pin", 2, 1, 1)
    assert (pin.trained, pin.delta, pin.offset) == ((), None, -2.0)
    assert pin_of(pin, None, now_us=0, code="x").served == 4
