"""The delta and snapshot written by the first version of their format are read for ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.delta import Numbers, TableSpec, read_delta
from headrace.published import PublishedTable
from headrace.tower import Tower

GOLDEN = Path(__file__).parents[1] / "golden"


TOWER = "dcfd2e50231ed8ba568b950b04dd7d56e415b6337dfcb5981b42c963a6a53d54"
SNAPSHOT_DIGEST = {"rows": 4, "sum": "1fa0737589d8184d", "tower": TOWER, "numbers": "7beb678821e63f61"}
DELTA_DIGEST = {"rows": 4, "sum": "eaca47afc9903182", "tower": TOWER, "numbers": "a0924ae431774e72"}


def golden(name: str):
    return read_delta((GOLDEN / name).read_bytes(), name=name)


def test_the_snapshot_of_format_1():
    snapshot = golden("snapshot-format1.arrow")
    assert (snapshot.of, snapshot.base, snapshot.numbers) == (3, None, Numbers((10.0,), (0.5,)))
    assert [change.spec for change in snapshot.changes] == [
        TableSpec("linear", 1, "f32", ("user", "item")),
        TableSpec("embedding", 4, "int8", ("user",)),
        TableSpec("wide", 2, "f16", ("item",)),
    ]
    linear, embedding, wide = snapshot.changes
    assert (linear.ids.tolist(), linear.decoded().tolist()) == ([1, 2**62], [[0.5], [-2.0]])
    assert embedding.decoded()[0].tolist() == pytest.approx([1.27, -0.5, 0.0, 0.01])
    assert wide.decoded().tolist() == [[0.25, -0.75]]
    logits = Tower(snapshot.tower).logits(np.ones((2, 1, 4), np.float32), np.zeros((2, 2), np.float32))
    assert logits.tolist() == [2.125, 2.125]


def test_the_delta_of_format_1():
    delta = golden("delta-format1.arrow")
    assert (delta.of, delta.base, delta.tower, delta.numbers) == (4, 3, None, Numbers((11.0,), (0.25,)))
    assert (delta.changes[0].ids.tolist(), delta.changes[0].tombstones.tolist()) == ([1, 2], [2**62])


def test_their_digests():
    table = PublishedTable()
    table.apply(golden("snapshot-format1.arrow"))
    assert table.digest().to_json() == SNAPSHOT_DIGEST
    table.apply(golden("delta-format1.arrow"))
    assert table.digest().to_json() == DELTA_DIGEST
