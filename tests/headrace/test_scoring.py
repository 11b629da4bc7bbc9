"""Scores against a plain Python reference; towers, batches, pooling, missing numbers."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pytest
from handmade import SCHEMA, SPECS, linear_tower
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.delta import Numbers, TableSpec
from headrace.errors import TowerRefused
from headrace.ids import unknown_id
from headrace.scoring import LARGEST_BATCH, Inputs, Ragged, Scorer, TableView, Tower, bucket_of

EMBEDDING = TableSpec("embedding", 4, "f32", SPECS[1].features)
TOWER = Tower(linear_tower(4, 4, 2, weight=0.5, bias=0.25))


def tables(rows: dict[int, float]) -> list[TableView]:
    """Id i has the linear row [v] and the embedding row [v, 2 v, 3 v, 4 v]."""
    ids = np.array(list(rows), np.int64)
    values = np.array(list(rows.values()), np.float32)[:, None]
    return [
        TableView.of(SPECS[0], ids, values),
        TableView.of(EMBEDDING, ids, values * np.arange(1, 5, dtype=np.float32)),
    ]


def reference_logit(rows: dict[int, float], candidate: dict) -> float:
    """The formula of the module's docstring, one candidate, plain Python."""

    def row(feature: str, id_: int) -> float:
        return rows.get(id_, rows.get(unknown_id(feature), 0.0))

    def value(feature: str) -> float:
        given_ = candidate[feature]
        if isinstance(given_, list):
            return sum(row(feature, id_) for id_ in given_) / len(given_) if given_ else 0.0
        return row(feature, given_)

    fields = [value(feature) for feature in SPECS[0].features]
    number = candidate["price"]
    z, missing = (0.0, 1.0) if number is None else (min(max((number - 10) * 0.5, -5), 5), 0.0)
    return -0.5 + sum(fields) + 0.5 * (sum(10 * f for f in fields) + z + missing) + 0.25


ids = st.integers(0, 9)
candidates = st.fixed_dictionaries(
    {
        "user": ids,
        "item": ids,
        "u_x_i": ids,
        "tags": st.lists(ids, max_size=4),
        "price": st.none() | st.floats(-50, 50, width=32),
    }
)
some_rows = st.dictionaries(
    ids | st.sampled_from([unknown_id(name) for name in SPECS[0].features]), st.floats(-1, 1, width=32), max_size=8
)


def inputs_of(given_: list[dict]) -> Inputs:
    columns = {name: pa.array([c[name] for c in given_], pa.int64()) for name in ("user", "item", "u_x_i")}
    columns["tags"] = pa.array([c["tags"] for c in given_], pa.list_(pa.int64()))
    columns["price"] = pa.array([c["price"] for c in given_], pa.float32())
    return Inputs.of(pa.table({feature.name: columns[feature.name] for feature in SCHEMA.features}))


def scorer_of(rows, tower=TOWER):
    return Scorer(
        tables(rows), tower, prior=0.2, offset=-0.5, numbers=Numbers((10.0,), (0.5,)), number_names=SCHEMA.numbers
    )


@given(some_rows, st.lists(candidates, min_size=1, max_size=6))
@settings(deadline=None)
def test_scores_are_the_documented_formula(rows, given_):
    scorer = scorer_of(rows)
    expected = np.array([reference_logit(rows, candidate) for candidate in given_])
    assert scorer.logits(inputs_of(given_)) == pytest.approx(expected, abs=1e-4)
    assert scorer.score(inputs_of(given_)) == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-4)


def test_shared_features_score_as_repeated_ones():
    one = {"user": 1, "item": 2, "u_x_i": 3, "tags": [1, 5], "price": None}
    repeated = inputs_of([one | {"item": item} for item in range(5)])
    shared = Inputs(
        5,
        {"user": np.array([1]), "item": np.arange(5), "u_x_i": np.array([3])},
        {"tags": Ragged(np.array([1, 5]), np.array([0, 2]))},
        {"price": np.array([np.nan], np.float32)},
    )
    scorer = scorer_of({1: 0.5, 2: 0.25, unknown_id("tags"): 0.125})
    assert scorer.logits(shared).tolist() == scorer.logits(repeated).tolist()


def test_the_prior_until_something_is_learned():
    inputs = inputs_of([{"user": 1, "item": 2, "u_x_i": 3, "tags": [], "price": 1.0}])
    assert scorer_of({}, tower=None).score(inputs).tolist() == pytest.approx([0.2])
    assert scorer_of({1: 0.0}, tower=None).logits(inputs).tolist() == [-0.5]


@pytest.mark.parametrize("n", [1, 3, 64, 100, LARGEST_BATCH, LARGEST_BATCH + 1, 2500])
def test_batches_of_any_size(n):
    random = np.random.default_rng(n)
    embeddings = random.normal(size=(n, 4, 4)).astype(np.float32)
    numbers = random.normal(size=(n, 2)).astype(np.float32)
    expected = 0.5 * (embeddings.sum(axis=(1, 2)) + numbers.sum(axis=1)) + 0.25
    assert TOWER.logits(embeddings, numbers) == pytest.approx(expected, abs=1e-4)


def test_a_tower_of_numbers_only_and_one_of_embeddings_only():
    numbers = Tower(linear_tower(0, 0, 6)).logits(None, np.ones((3, 6), np.float32))
    assert numbers.tolist() == [6.0] * 3
    assert Tower(linear_tower(2, 3, 0)).logits(np.ones((3, 2, 3), np.float32), None).tolist() == [6.0] * 3


def test_filled_up_lines_hold_nothing_of_an_earlier_call():
    scorer = scorer_of({1: 1.0, 2: 2.0})
    many = [{"user": 1, "item": 2, "u_x_i": 1, "tags": [1], "price": None}] * 8
    few = [{"user": 7, "item": 7, "u_x_i": 7, "tags": [], "price": 10.0}] * 5
    scorer.logits(inputs_of(many))
    assert scorer.logits(inputs_of(few)).tolist() == [-0.25] * 5


def test_one_tower_for_many_threads():
    embeddings = np.ones((64, 4, 4), np.float32)
    results = []

    def call(value: float) -> None:
        numbers = np.zeros((64, 2), np.float32)
        results.extend(TOWER.logits(embeddings * value, numbers) == 8 * value + 0.25 for _ in range(200))

    threads = [threading.Thread(target=call, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.all(results)
    assert len(results) == 800


def test_a_new_tower_starts_with_the_interpreters_of_its_predecessor():
    first = Tower(linear_tower(4, 4, 2))
    first.logits(np.ones((50, 4, 4), np.float32), np.ones((50, 2), np.float32))
    second = Tower(linear_tower(4, 4, 2, bias=1.0), like=first)
    assert second.in_use() == first.in_use() == {1: 1, 64: 1}
    second.logits(np.ones((50, 4, 4), np.float32), np.ones((50, 2), np.float32))
    assert second.in_use() == {1: 1, 64: 1}


@pytest.mark.parametrize("content", [b"", b"TFL3 nothing of the kind"])
def test_a_tower_that_litert_cannot_run_is_refused(content):
    with pytest.raises(TowerRefused, match="LiteRT cannot run this tower"):
        Tower(content)


def test_litert_writes_nothing_to_stderr():
    code = "from handmade import linear_tower; from headrace.scoring import Tower; Tower(linear_tower(1, 2, 0))"
    environment = {"PYTHONPATH": "tests/support", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stderr == ""


def test_sizes_of_batches():
    assert [bucket_of(n) for n in (1, 2, 3, 1023, 1024)] == [1, 2, 4, 1024, 1024]
