"""Tables: rows in the order of first sight, growth, starts that depend on the id alone."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]


def test_rows_are_given_at_first_sight_and_kept_through_growth() -> None:
    from training.table import FIRST_CAPACITY, RowIndex

    random = np.random.default_rng(0)
    ids = random.choice(2**62, 5 * FIRST_CAPACITY, replace=False)
    index, seen = RowIndex(), {}
    for part in np.array_split(ids, 7):
        mixed = np.unique(np.concatenate([part, ids[:3]]))
        for id_, row in zip(mixed.tolist(), index.admit(mixed).tolist(), strict=True):
            assert seen.setdefault(id_, row) == row
    assert sorted(seen.values()) == list(range(len(ids)))
    assert index.ids[index.find(ids)].tolist() == ids.tolist()
    assert index.find(np.array([2**62 + 1])).tolist() == [-1]


def test_a_new_row_starts_from_its_id_whatever_came_before() -> None:
    from training.table import INIT_SCALE, Table, init_rows

    ids = np.arange(3000, dtype=np.int64) * 7919
    one, other = (Table("t", 4, seed=3, scale=INIT_SCALE) for _ in range(2))
    one.rows_of(ids)
    for part in np.array_split(ids[::-1], 5):
        other.rows_of(part)
    rows = one.read(one.index.find(ids))
    np.testing.assert_array_equal(rows, other.read(other.index.find(ids)))
    assert abs(float(rows.std()) / INIT_SCALE - 1) < 0.02
    assert abs(float(rows.mean())) < INIT_SCALE / 50
    assert not np.array_equal(rows, init_rows(ids, 4, seed=4))


def test_starts_are_golden() -> None:
    """These numbers are part of every replay: they must never change."""
    from training.table import init_rows

    rows = init_rows(np.array([0, 2**63 - 1], np.int64), 3, seed=7)
    np.testing.assert_array_equal(
        rows,
        np.array([[0.006225615, -0.014068156, 0.0005513089], [-0.032397196, -0.023261746, -0.032642454]], np.float32),
    )


def test_state_restores_in_row_order() -> None:
    from training.table import INIT_SCALE, Table

    table, copy = (Table("t", 2, seed=0, scale=INIT_SCALE) for _ in range(2))
    ids = np.random.default_rng(0).permutation(4000).astype(np.int64)
    table.rows_of(ids)
    copy.restore(table.state())
    more = np.arange(3990, 4020, dtype=np.int64)
    np.testing.assert_array_equal(table.rows_of(more), copy.rows_of(more))
    for part, value in table.state().items():
        np.testing.assert_array_equal(value, copy.state()[part])


def test_dropped_rows_are_taken_again_and_the_map_is_that_of_a_dictionary() -> None:
    from training.table import FREE, RowIndex

    random = np.random.default_rng(1)
    names = np.sort(random.choice(2**62, 400, replace=False))
    index, plain = RowIndex(), {}
    for _ in range(300):
        if random.random() < 0.3:
            index.begin()
            before = (index.ids.copy(), index.newest_us.copy(), index.feature.copy(), dict(plain))
        known = random.choice(names, random.integers(1, 40), replace=False)
        for id_, row in zip(known.tolist(), index.admit(known).tolist(), strict=True):
            assert plain.setdefault(id_, row) == row
        index.see(index.find(known), random.integers(0, 1000, len(known)), int(random.integers(0, 3)))
        gone = random.choice(list(plain), min(len(plain), int(random.integers(0, 30))), replace=False)
        index.drop(np.sort(index.find(gone)))
        plain = {id_: row for id_, row in plain.items() if id_ not in set(gone.tolist())}
        if index.kept is not None and random.random() < 0.5:
            index.undo()
            ids, newest_us, feature, plain = before
            np.testing.assert_array_equal(index.ids, ids)
            np.testing.assert_array_equal(index.newest_us, newest_us)
            np.testing.assert_array_equal(index.feature, feature)
        assert (index.live, len(set(plain.values()))) == (len(plain), len(plain))
        assert index.find(names).tolist() == [plain.get(id_, -1) for id_ in names.tolist()]
        again = RowIndex()
        again.restore(index.ids.copy(), index.newest_us.copy(), index.feature.copy())
        assert again.find(names).tolist() == index.find(names).tolist()
        new = np.array([2**62 + 1, 2**62 + 2])
        assert again.admit(new).tolist() == [*np.flatnonzero(index.ids == FREE), index.used, index.used + 1][:2]
    assert index.used <= 80 + max(len(plain), 400)


def test_a_table_that_always_has_new_ids_and_drops_the_old_ones_does_not_grow() -> None:
    from training.table import RowIndex

    index = RowIndex()
    for start in range(0, 200_000, 500):
        rows = index.admit(np.arange(start, start + 500))
        index.drop(np.sort(rows))
        index.publish()
    assert (index.used, index.live) == (500, 0)
    assert index._index.size <= 4096
