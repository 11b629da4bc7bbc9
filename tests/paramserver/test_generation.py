"""Tables of a generation: copy on write, compaction, digests."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.delta import Change, Delta, TableSpec
from headrace.published import PublishedTable
from paramserver.generation import Tables

SPEC = TableSpec("linear", 1, "f32", ("user",))
WIDE = TableSpec("embedding", 2, "f32", ("user",))

ids = st.integers(0, 40)
steps = st.lists(st.dictionaries(ids, st.none() | st.floats(-9, 9, width=32), max_size=20), max_size=8)


def delta_of(version: int, rows: dict[int, float | None]) -> Delta:
    kept = {id_: value for id_, value in rows.items() if value is not None}
    gone = np.array([id_ for id_, value in rows.items() if value is None], np.int64)
    values = np.array(list(kept.values()), np.float32).reshape(-1, 1)
    return Delta(version, version - 1, (Change.of_rows(SPEC, np.array(list(kept), np.int64), values, gone),))


def values(tables: Tables) -> dict[int, float]:
    view = tables.tables[0].view()
    found, lines = view.index.items()
    return dict(zip(found.tolist(), view.values[lines, 0].tolist(), strict=True))


@given(steps)
@settings(deadline=None, max_examples=40)
def test_every_generation_stays_what_it_was_and_has_the_published_digest(history):
    tables, published, plain, kept = Tables(), PublishedTable((SPEC,)), {}, []
    for version, rows in enumerate(history, 1):
        tables = tables.changed(delta_of(version, rows))
        published.apply(delta_of(version, rows))
        assert tables.digest() == published.digest()
        plain = {id_: value for id_, value in (plain | rows).items() if value is not None}
        kept.append((tables, plain))
    for generation, expected in kept:
        assert values(generation) == expected


def all_of(value: float) -> dict[int, float | None]:
    return dict.fromkeys(range(2_000), value)


def test_lines_are_used_again_once_no_generation_names_them():
    tables = Tables().changed(delta_of(1, all_of(1.0)))
    slab = tables.tables[0].slab
    for version in range(2, 200):
        tables = tables.changed(delta_of(version, all_of(float(version))))
    assert set(values(tables).values()) == {199.0}
    assert tables.tables[0].slab is slab
    assert slab.used <= 2 * 2_000 + 1


def test_a_generation_that_somebody_holds_keeps_its_lines():
    tables = Tables().changed(delta_of(1, all_of(1.0)))
    held = {}
    for version in range(2, 60):
        tables = tables.changed(delta_of(version, all_of(float(version))))
        if version % 20 == 0:
            held[version] = tables
    assert [set(values(held[version]).values()) for version in held] == [{float(version)} for version in held]
    assert len(tables.tables[0].slab.hashes) <= 4 * 2_000 + 1


def test_without_looking_at_who_names_a_line_a_held_generation_changes(monkeypatch):
    """The twin: what `Slab.hold` is for."""
    monkeypatch.setattr("paramserver.generation.Slab.hold", lambda *_: None)
    tables = held = Tables().changed(delta_of(1, all_of(1.0)))
    for version in range(2, 9):
        tables = tables.changed(delta_of(version, all_of(float(version))))
    assert set(values(held).values()) != {1.0}


def test_a_branch_leaves_the_other_branch_alone():
    base = Tables().changed(delta_of(1, {1: 1.0, 2: 2.0}))
    one, other = base.changed(delta_of(2, {1: 5.0, 3: 3.0})), base.changed(delta_of(2, {2: None, 4: 4.0}))
    assert values(base) == {1: 1.0, 2: 2.0}
    assert values(one) == {1: 5.0, 2: 2.0, 3: 3.0}
    assert values(other) == {1: 1.0, 4: 4.0}
    assert values(other.changed(delta_of(3, {3: 7.0}))) == {1: 1.0, 3: 7.0, 4: 4.0}


pairs = st.lists(
    st.tuples(*[st.dictionaries(st.integers(0, 400), st.none() | st.just(1.0), max_size=150)] * 2), max_size=8
)


@given(pairs)
@settings(deadline=None, max_examples=40)
def test_tables_with_the_same_features_each_hold_what_they_were_given(history):
    tables, plain = Tables(), ({}, {})
    for version, both in enumerate(history, 1):
        changes = []
        for spec, rows, known in zip((SPEC, WIDE), both, plain, strict=True):
            kept = [id_ for id_, value in rows.items() if value is not None]
            gone = np.array([id_ for id_, value in rows.items() if value is None], np.int64)
            new = np.full((len(kept), spec.width), version, np.float32)
            changes.append(Change.of_rows(spec, np.array(kept, np.int64), new, gone))
            known.update(dict.fromkeys(kept, version))
            for id_ in gone.tolist():
                known.pop(id_, None)
        tables = tables.changed(Delta(version, version - 1, tuple(changes)))
        for table, known in zip(tables.tables, plain, strict=True):
            ids, lines = table.index.items()
            assert dict(zip(ids.tolist(), table.slab.values[lines, 0].tolist(), strict=True)) == known


def test_tables_with_the_same_ids_are_looked_up_once_however_they_grow():
    tables, ids = Tables(), np.empty(0, np.int64)
    for version in range(1, 12):
        ids = np.arange(4**version % 50_000 + version)
        rows = [np.ones((len(ids), spec.width), np.float32) for spec in (SPEC, WIDE)]
        changes = tuple(Change.of_rows(spec, ids, part) for spec, part in zip((SPEC, WIDE), rows, strict=True))
        tables = tables.changed(Delta(version, version - 1, changes))
        one, other = (table.index for table in tables.tables)
        assert one.shares(other)
        assert (other.at(one.slots(ids)) == other.find(ids)).all()
