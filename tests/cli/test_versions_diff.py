"""`headrace versions diff` against versions made by hand, whose distances are known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from handmade import Publisher
from settings import settings_text

from headrace.cli.app import run
from headrace.cli.versions_diff import as_text, diff, tables_diff
from headrace.delta import Change, Delta, TableSpec, write_delta
from headrace.errors import NotFound
from headrace.ids import null_id, unknown_id
from headrace.loop import Loop, open_loop
from headrace.record import sha256_of
from headrace.store import open_store
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from pathlib import Path

SPECS = (TableSpec("linear", 1, "f32", ("user",)), TableSpec("embedding", 4, "int8", ("user",)))
SETTINGS = settings_text(streams={"source": "e.jsonl", "time": "at", "time_unit": "s"})


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """Version 1 has the linear rows 1, 2, 3; version 2 moves 2 by 3 and 3 by 4, takes 1 and adds 4 and an embedding."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    loop = open_loop(open_store("./loop"), "feed")
    publisher = Publisher(loop.store, specs=SPECS)
    publisher.start()
    publisher.delta({"linear": {1: [1], 2: [2], 3: [3]}, "embedding": {7: [1, 0, 0, 0]}})
    publisher.delta(
        {"linear": {1: None, 2: [5], 3: [-1], 4: [9]}, "embedding": {8: [127, 0, 0, 0]}}, tower=b"tower",
    )  # fmt: skip
    publisher.hold()
    return loop


def test_rows_are_counted_and_measured(loop: Loop) -> None:
    found = diff(loop, 1, 2, most=1)
    linear, embedding = found["tables"]
    assert linear == {
        "name": "linear",
        "added": 1,
        "removed": 1,
        "changed": 2,
        "same": 0,
        "norm": 5.0,
        "most": ((3, 4.0),),
    }
    assert (embedding["added"], embedding["changed"], embedding["same"]) == (1, 0, 1)
    assert found["tower"]["changed"]


def test_a_version_does_not_differ_from_itself_nor_from_a_hold_on_it(loop: Loop) -> None:
    for other in (2, 3):
        found = diff(loop, 2, other, most=5)
        assert all(table["added"] == table["removed"] == table["changed"] == 0 for table in found["tables"])
        assert not found["tower"]["changed"]


def test_the_start_has_no_rows(loop: Loop) -> None:
    assert [table["added"] for table in diff(loop, 0, 1, most=5)["tables"]] == [3, 1]
    assert [table["removed"] for table in diff(loop, 1, 0, most=5)["tables"]] == [3, 1]


def test_against_plain_python(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    publisher = Publisher(open_store(f"file://{tmp_path}"), specs=SPECS)
    publisher.start()
    for _ in range(6):
        ids = rng.choice(40, 15, replace=False)
        rows = {int(id_): None if rng.random() < 0.3 else rng.normal(size=4) for id_ in ids}
        publisher.delta({"embedding": rows})
    before, after = publisher.table(2), publisher.table(6)
    found = tables_diff(before, after, most=40)[1]
    old, new = (
        dict(zip(change.ids.tolist(), change.decoded(), strict=True))
        for change in (table.snapshot(0).changes[1] for table in (before, after))
    )
    moved = {id_: float(np.linalg.norm(new[id_] - old[id_])) for id_ in old.keys() & new.keys()}
    expected = {id_: distance for id_, distance in moved.items() if distance > 0}
    assert (found.added, found.removed) == (len(new.keys() - old.keys()), len(old.keys() - new.keys()))
    assert dict(found.most) == pytest.approx(expected, rel=1e-5)
    assert [distance for _, distance in found.most] == sorted((d for _, d in found.most), reverse=True)


def test_the_norm_is_that_of_the_tower_which_a_version_has(loop: Loop) -> None:
    log = loop.version_log()

    def append(kind: str, **changes: Any) -> None:
        head = log.head()
        assert head is not None
        body = VersionRecord.from_entry(head).to_body() | {"base": head.seq, "delta": None} | changes
        log.append(kind, body, head)

    kept = VersionRecord.from_entry(log.read(2)).to_body()
    digest = kept["digest"]
    delta = Delta(4, 3, tuple(Change.nothing(spec) for spec in SPECS), b"tower")
    data = write_delta(delta)
    loop.store.write("models/default/params/4.arrow", data)
    named = {"path": "models/default/params/4.arrow", "sha256": sha256_of(data), "bytes": len(data)}
    append("delta", delta=named, digest=digest, gate={"norm": 2.5})
    append("hold", digest=digest, gate={"norm": 99.0})  # of what was refused
    assert diff(loop, 2, 4, most=1)["tower"]["norm"] == [None, 2.5]
    assert diff(loop, 4, 5, most=1)["tower"] == {"changed": False, "norm": [2.5, 2.5]}


def test_rows_that_stand_for_no_value_are_named(loop: Loop) -> None:
    publisher = Publisher(open_store("memory://named"), specs=SPECS)
    publisher.start()
    ids = {null_id("user"): [1.0], unknown_id("user"): [2.0], 5: [1.0]}
    publisher.delta({"linear": ids})
    publisher.delta({"linear": {id_: [9.0] for id_ in ids}})
    found = diff(open_loop(publisher.store, "feed"), 1, 2, most=5)
    names = {str(null_id("user")): "user, missing", str(unknown_id("user")): "user, all ids without a row"}
    assert found["ids"] == names
    assert "user, missing" in as_text(found)


def test_the_command(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["versions", "diff", "1", "2"]) == 0
    text = capsys.readouterr().out
    assert "linear" in text
    assert "tower: changed" in text
    assert run(["versions", "diff", "1", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == [1, 2]
    assert run(["versions", "diff", "1", "99"]) == 1
    assert "there is no version 99" in capsys.readouterr().err
    with pytest.raises(NotFound):
        diff(loop, 99, 1, most=1)
