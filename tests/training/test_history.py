"""Earlier versions, read back from the newest."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from handmade import BLANK

from headrace.errors import NotFound
from headrace.loop import open_loop
from headrace.store import open_store
from headrace.version import Kept, NamedFile, VersionRecord
from training.history import History

START = replace(BLANK, requests={"cursor": None, "outcomes": []})
FILE = NamedFile("d.arrow", "", 0)
numbers = count()


def history_of(*records: VersionRecord) -> History:
    log = open_loop(open_store(f"memory://history-{next(numbers)}"), "test").version_log()
    head = None
    for record in records:
        head = log.append(record.kind, record.to_body(), head)
    return History(log)


def after(base: VersionRecord, kind: str = "delta", **changes: object) -> VersionRecord:
    version = base.version + 1
    return replace(base, version=version, kind=kind, base=base.version, created_at_us=10 * version, **changes)


def test_the_newest_of_a_lineage_oldest_first() -> None:
    one = after(START, delta=FILE)
    begun = replace(START, version=2, lineage=2)
    three, four = after(begun), after(after(begun))
    history = history_of(START, one, begun, three, four)
    assert history.newest(four, 99) == [begun, three, four]
    assert history.newest(four, 1) == [three, four]
    assert history.newest(one, 99) == [START, one]
    with pytest.raises(NotFound):
        history(5)


def test_the_offset_is_that_of_the_table_without_what_late_positives_add() -> None:
    one = after(START, delta=FILE, offset=0.75, gate={"correction": 0.5})
    held = after(one, "hold", delta=None, offset=0.75, gate={})
    assert history_of(START, one, held).offset(2) == 0.25


def test_when_the_version_of_a_file_was_made() -> None:
    one = after(START)
    history = history_of(START, one)
    assert history.made_us(None) is None
    assert history.made_us(Kept(1, "c.npz", "", 0)) == 10
