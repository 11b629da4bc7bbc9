"""Tables of a generation: copy on write, compaction, digests."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.delta import Change, Delta, TableSpec
from headrace.published import PublishedTable
from paramserver.generation import Tables

SPEC = TableSpec("linear", 1, "f32", ("user",))

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


def test_a_table_that_changes_for_ever_stays_small():
    random = np.random.default_rng(2)
    all_ids = np.unique(random.integers(0, 2**62, 700)).tolist()
    tables, kept = Tables(), []
    for version in range(1, 30):
        tables = tables.changed(delta_of(version, dict.fromkeys(all_ids, float(version))))
        kept.append(tables)
    assert [set(values(tables).values()) for tables in kept] == [{float(version)} for version in range(1, 30)]
    assert len(tables.tables[0].slab.hashes) <= 4 * len(all_ids) + 1


def test_a_branch_leaves_the_other_branch_alone():
    base = Tables().changed(delta_of(1, {1: 1.0, 2: 2.0}))
    one, other = base.changed(delta_of(2, {1: 5.0, 3: 3.0})), base.changed(delta_of(2, {2: None, 4: 4.0}))
    assert values(base) == {1: 1.0, 2: 2.0}
    assert values(one) == {1: 5.0, 2: 2.0, 3: 3.0}
    assert values(other) == {1: 1.0, 4: 4.0}
    assert values(other.changed(delta_of(3, {3: 7.0}))) == {1: 1.0, 3: 7.0, 4: 4.0}
