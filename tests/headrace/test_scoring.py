"""Scores against a plain Python reference; towers, batches, pooling, missing numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from handmade import SCHEMA, SPECS, linear_tower
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.delta import Numbers, TableSpec
from headrace.ids import unknown_id
from headrace.scoring import Inputs, Ragged, Scorer, TableView
from headrace.tower import Tower

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


def test_filled_up_lines_hold_nothing_of_an_earlier_call():
    scorer = scorer_of({1: 1.0, 2: 2.0})
    many = [{"user": 1, "item": 2, "u_x_i": 1, "tags": [1], "price": None}] * 8
    few = [{"user": 7, "item": 7, "u_x_i": 7, "tags": [], "price": 10.0}] * 5
    scorer.logits(inputs_of(many))
    assert scorer.logits(inputs_of(few)).tolist() == [-0.25] * 5
