"""An earlier published table, seen through the present one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.delta import Change, Delta, Numbers, TableSpec
from headrace.published import PublishedTable
from training.before import Before

SPEC = TableSpec("linear", 1, "f32", ("user",))
IDS = np.arange(30, dtype=np.int64)
steps = st.lists(st.dictionaries(st.integers(0, 29), st.none() | st.floats(-9, 9, width=32), max_size=12), min_size=1)


def delta_of(version, rows):
    kept = {id_: value for id_, value in rows.items() if value is not None}
    gone = np.array([id_ for id_, value in rows.items() if value is None], np.int64)
    values = np.array(list(kept.values()), np.float32).reshape(-1, 1)
    change = Change.of_rows(SPEC, np.array(list(kept), np.int64), values, gone)
    return Delta(version, version - 1, (change,), b"tower%d" % version, Numbers((float(version),), (1.0,)))


def looked_up(table):
    return [part.tolist() for part in table.lookup("linear", IDS)]


@given(steps)
@settings(deadline=None, max_examples=60)
def test_every_earlier_table_is_seen_as_it_was(history):
    table = PublishedTable((SPEC,))
    table.apply(delta_of(0, {1: 1.0}))
    inverses, seen = [], [(looked_up(table), table.tower, table.numbers)]
    for version, rows in enumerate(history, 1):
        delta = delta_of(version, rows)
        inverses.append(table.inverse(delta))
        table.apply(delta)
        seen.append((looked_up(table), table.tower, table.numbers))
    for since, expected in enumerate(seen):
        before = Before(table, tuple(inverses[since:]))
        assert (looked_up(before), before.tower, before.numbers) == expected
