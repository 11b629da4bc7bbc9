"""A request is encoded as the same values are in events."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import InvalidRequest
from headrace.features import Feature
from headrace.ids import id_of
from headrace.schema import Schema
from headrace.scoring import Inputs
from paramserver import convert
from paramserver.client import Ids, values_of
from paramserver.packed import parsed
from protos import headrace_pb2 as wire

SCHEMA = Schema(
    (
        Feature("user", "id", ("user",)),
        Feature("level", "category", ("level",)),
        Feature("member", "category", ("member",)),
        Feature("age", "bucket", ("age",), edges=(1.0, 6.0)),
        Feature("hour", "time", ("at",), time_unit="s"),
        Feature("price", "number", ("price",), transform="log1p"),
        Feature("tags", "ids", ("tags",), max=2),
        Feature("u_x_h", "cross", of=("user", "hour")),
    )
)
TYPES = {
    "user": pa.string(),
    "level": pa.int64(),
    "member": pa.bool_(),
    "age": pa.float64(),
    "hour": pa.int64(),
    "price": pa.float64(),
    "tags": pa.list_(pa.string()),
}
BASE = {"user": "u", "level": 1, "member": True, "age": 1, "hour": 0, "price": 1}
VALUES = {
    "user": st.text(max_size=5),
    "level": st.integers(-(2**63), 2**63 - 1),
    "member": st.booleans(),
    "age": st.floats(-1e6, 1e6),
    "hour": st.integers(0, 2**32),
    "price": st.floats(0, 1e9),
    "tags": st.lists(st.text(max_size=3), max_size=4),
}


def request_of(features, schema=""):
    values = {name: values_of(name, value) for name, value in features.items()}
    return wire.PredictRequest(features=values, schema_fingerprint=schema)


def inputs_of(request: wire.PredictRequest, schema: Schema, max_candidates: int) -> Inputs:
    return convert.inputs_of(parsed(request.SerializeToString()), schema, max_candidates)


def same(one: Inputs, other: Inputs) -> bool:
    """Whether both say the same of every candidate."""
    for name in SCHEMA.sparse:
        assert np.broadcast_to(one.ids[name], one.n).tolist() == np.broadcast_to(other.ids[name], one.n).tolist(), name
    for name in SCHEMA.numbers:
        mine, theirs = np.broadcast_to(one.numbers[name], one.n), np.broadcast_to(other.numbers[name], one.n)
        assert np.array_equal(mine, theirs, equal_nan=True), name
    for name in SCHEMA.lists:
        assert one.lists[name].values.tolist() == other.lists[name].values.tolist(), name
        assert one.lists[name].offsets.tolist() == other.lists[name].offsets.tolist(), name
    return one.n == other.n


@st.composite
def candidates(draw):
    """Columns of 2 to 4 candidates, with missing values; lists are never shared, the rest may be."""
    n = draw(st.integers(2, 4))
    columns = {}
    for name, value in VALUES.items():
        some = value if name == "tags" else st.none() | value
        columns[name] = draw(st.lists(some, min_size=n, max_size=n))
    return columns


@given(candidates())
@settings(deadline=None, max_examples=40)
def test_raw_values_are_encoded_as_events_are(columns):
    expected = Inputs.of(SCHEMA.encode_features({name: pa.array(columns[name], TYPES[name]) for name in columns}))
    assert same(inputs_of(request_of(columns), SCHEMA, 10), expected)


@given(candidates())
@settings(deadline=None, max_examples=40)
def test_ids_are_taken_as_they_are(columns):
    encoded = SCHEMA.encode_features({name: pa.array(columns[name], TYPES[name]) for name in columns})
    features = {name: Ids(encoded[name].to_pylist()) for name in (*SCHEMA.sparse, *SCHEMA.lists)}
    features["price"] = columns["price"]
    assert same(inputs_of(request_of(features, SCHEMA.fingerprint), SCHEMA, 10), Inputs.of(encoded))


@given(candidates())
@settings(deadline=None, max_examples=40)
def test_shared_values_are_those_of_every_candidate(columns):
    shared = {name: columns[name][0] for name in ("user", "level", "age", "price")}
    repeated = columns | {name: [value] * len(columns[name]) for name, value in shared.items()}
    given_ = inputs_of(request_of(columns | shared), SCHEMA, 10)
    assert same(given_, inputs_of(request_of(repeated), SCHEMA, 10))
    assert len(given_.ids["user"]) == 1


def test_a_cross_is_as_long_as_its_widest_member():
    base = {"user": "u", "level": 1, "member": True, "age": 1, "hour": 3600, "price": 1, "tags": []}
    assert len(inputs_of(request_of(base | {"level": [1, 2, 3]}), SCHEMA, 10).ids["u_x_h"]) == 1
    assert len(inputs_of(request_of(base | {"hour": [0, 3600]}), SCHEMA, 10).ids["u_x_h"]) == 2


def test_of_long_lists_the_first_count_also_as_ids():
    base = {"user": "u", "level": 1, "member": True, "age": 1, "hour": 0, "price": 1}
    inputs = inputs_of(request_of(base | {"tags": Ids([[1, 2, 3], [], [4]])}, SCHEMA.fingerprint), SCHEMA, 10)
    assert (inputs.lists["tags"].values.tolist(), inputs.lists["tags"].offsets.tolist()) == ([1, 2, 4], [0, 2, 2, 3])


def hashed_of(values):
    """Ids instead of texts."""
    return Ids(None if values is None else [one and [id_of("tags", text) for text in one] for one in values])


@pytest.mark.parametrize("hashed", [False, True])
def test_a_missing_list_is_an_empty_one(hashed):
    def lists(values):
        values = hashed_of(values) if hashed else values
        features = BASE | {"tags": values}
        found = inputs_of(request_of(features, SCHEMA.fingerprint), SCHEMA, 10).lists["tags"]
        return [len(found.values), found.offsets.tolist()]

    assert lists(None) == lists([[]]) == [0, [0, 0]]
    assert lists([None, None]) == lists([[], []]) == [0, [0, 0, 0]]
    assert lists([["a"], None]) == [1, [0, 1, 1]]
    ignored = values_of("tags", [["a", "b"], ["c"]])
    ignored.missing.append(0)  # another client may leave there what it likes
    request = request_of(BASE)
    request.features["tags"].CopyFrom(ignored)
    found = inputs_of(request, SCHEMA, 10).lists["tags"]
    assert (found.values.tolist(), found.offsets.tolist()) == ([id_of("tags", "c")], [0, 0, 1])


@pytest.mark.parametrize("values", [["a", None], [None, "a"], Ids([None, 3])])
def test_inside_a_shared_list_nothing_may_be_missing(values):
    with pytest.raises(InvalidRequest, match="'tags' has a missing value inside a list"):
        inputs_of(request_of(BASE | {"tags": values}, SCHEMA.fingerprint), SCHEMA, 10)


def test_a_time_whose_form_the_schema_does_not_say_is_sent_as_text():
    schema = Schema((Feature("hour", "time", ("at",)),))
    with pytest.raises(InvalidRequest, match="'hour' wants a time") as caught:
        inputs_of(request_of({"hour": 5}), schema, 10)
    assert "ISO 8601" in caught.value.hint
    assert inputs_of(request_of({"hour": "2013-01-01T05:00:00Z"}), schema, 10).n == 1
