"""id -> row, beside a dict: collisions, absent ids, older versions, indexes that share keys."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import idindex
from headrace.idindex import IdIndex

SLOTS = 64
IDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=SLOTS // 2, unique=True)


def ids_of(values):
    return np.array(values, np.int64)


def rows_of(count, start=0):
    return np.arange(start, start + count, dtype=np.int32)


def colliding(count: int) -> np.ndarray:
    """Ids that all have the same home slot in an index of `SLOTS` slots."""
    index = IdIndex.empty(SLOTS // 2)
    candidates = np.arange(count * SLOTS * 4, dtype=np.int64)
    homes = index._home(candidates)
    return candidates[homes == homes[0]][:count]


@given(IDS, IDS)
def test_what_was_put_is_found_and_nothing_else(known, others):
    index = IdIndex.empty(SLOTS // 2)
    index.put(ids_of(known), rows_of(len(known)))
    rows = dict(zip(known, range(len(known)), strict=True))
    asked = known + others
    assert index.find(ids_of(asked)).tolist() == [rows.get(one, -1) for one in asked]


@pytest.mark.parametrize("count", [2, 17, 30])
def test_ids_with_one_home_are_told_apart_however_many(count):
    """More of them than are looked at at a time."""
    ids = colliding(count + 1)
    known, absent = ids[:-1], ids[-1:]
    index = IdIndex.empty(SLOTS // 2)
    index.put(known, rows_of(count))
    assert index.find(np.concatenate([known[::-1], absent])).tolist() == [*range(count - 1, -1, -1), -1]


@given(IDS, IDS, IDS)
def test_indexes_that_share_keys_have_rows_of_their_own(one, other, more):
    first = IdIndex.empty(4 * SLOTS)
    first.put(ids_of(one), rows_of(len(one)))
    second = first.beside()
    second.put(ids_of(other), rows_of(len(other), 100))
    third = second.updated(ids_of(more), rows_of(len(more), 200))
    assert first.shares(second)
    assert first.shares(third)
    asked = ids_of(one + other + more)
    slots = first.slots(asked)
    rows = dict(zip(other, range(100, 100 + len(other)), strict=True))
    for index, expected in (
        (first, dict(zip(one, range(len(one)), strict=True))),
        (second, rows),
        (third, rows | dict(zip(more, range(200, 200 + len(more)), strict=True))),
    ):
        assert index.at(index.slots(asked)).tolist() == [expected.get(id_, -1) for id_ in asked.tolist()]
    assert second.at(second.slots(asked)).tolist() == second.at(first.slots(asked)).tolist()
    assert first.at(slots).tolist() == first.find(asked).tolist()


def test_an_index_that_grows_shares_no_more():
    index = IdIndex.empty(4)
    grown = index.updated(np.arange(1000), rows_of(1000))
    assert not grown.shares(index)
    assert grown.find(np.arange(1001)).tolist() == [*range(1000), -1]


def test_the_rows_of_an_index_that_is_gone_are_written_over_and_those_of_no_other():
    ids = ids_of(range(20))
    first = IdIndex.empty(20)
    first.put(ids, rows_of(20))
    held = first.updated(ids, rows_of(20, 100))
    newest = held.updated(ids, rows_of(20, 200))
    memory = newest._rows
    newest = held.updated(ids, rows_of(20, 300))
    after = newest.updated(ids[:5], rows_of(5, 400), gone=ids[5:6])
    assert after._rows is memory
    assert first.find(ids).tolist() == list(range(20))
    assert held.find(ids).tolist() == list(range(100, 120))
    assert newest.find(ids).tolist() == list(range(300, 320))
    assert after.find(ids).tolist() == [*range(400, 405), -1, *range(306, 320)]


NUMBERS = st.lists(st.integers(0, 40), unique=True, max_size=20)


@pytest.mark.parametrize("dear", [0, idindex._DEAR], ids=["what changed", "whole"])
@given(st.lists(st.tuples(st.integers(0, 9), NUMBERS, NUMBERS), max_size=30))
def test_indexes_that_are_held_stay_what_they_were_whichever_others_go(dear, steps):
    held = [(IdIndex.empty(41), {})]
    with patch.object(idindex, "_DEAR", dear):
        for count, (of, changed, dropped) in enumerate(steps, 1):
            index, known = held[of % len(held)]
            gone = [number for number in dropped if number not in changed]
            after = index.updated(ids_of(changed), rows_of(len(changed), 100 * count), ids_of(gone))
            new = {number: 100 * count + place for place, number in enumerate(changed)}
            held.append((after, {number: row for number, row in known.items() if number not in gone} | new))
            if len(held) > 4:
                del held[of % len(held)]
            for one, expected in held:
                assert one.find(ids_of(range(41))).tolist() == [expected.get(number, -1) for number in range(41)]


@pytest.mark.parametrize("told", [True, False], ids=["all that changed", "twin"])
def test_only_what_changed_since_is_copied(monkeypatch, told):
    """Two steps behind; whoever leaves out the first of them finds old rows."""
    since = IdIndex._changed_since
    if not told:
        monkeypatch.setattr(IdIndex, "_changed_since", lambda index, mark: (since(index, mark) or [])[-1:] or None)
    monkeypatch.setattr(idindex.np, "copyto", None)
    index = IdIndex.empty(10_000)
    index.put(np.arange(10_000), rows_of(10_000))
    old = index.updated(np.arange(100), rows_of(100, 20_000))
    middle = old.updated(np.arange(200, 300), rows_of(100, 30_000))
    newest = middle.updated(np.arange(400, 500), rows_of(100, 40_000), gone=np.arange(9_000, 9_010))
    memory = old._rows
    del old
    after = newest.updated(np.arange(600, 700), rows_of(100, 50_000))
    assert after._rows is memory
    expected = np.arange(10_000)
    for low, row in ((0, 20_000), (200, 30_000), (400, 40_000), (600, 50_000)):
        expected[low : low + 100] = row + np.arange(100)
    expected[9_000:9_010] = -1
    assert (after.find(np.arange(10_000)) == expected).all() == told
