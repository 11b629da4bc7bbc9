from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import MissingFeature, NewerFormat, SettingsError, WrongType
from headrace.schema import Feature, Schema, encode_values, id_of, misfits, null_id

HOUR_MS = 3_600_000

SCHEMA = Schema(
    (
        Feature("user", "id", ("user",)),
        Feature("surface", "category", ("context", "surface")),
        Feature("price", "number", ("price",), transform="log1p"),
        Feature("age", "bucket", ("age_h",), edges=(1.0, 6.0)),
        Feature("hour", "time", ("ts",), part="hour", time_zone="Asia/Shanghai", time_unit="ms"),
        Feature("tags", "ids", ("tags",), max=2),
        Feature("u_x_s", "cross", of=("user", "surface")),
    )
)

EVENTS = st.fixed_dictionaries(
    {
        "user": st.none() | st.text(max_size=3),
        "context": st.none() | st.fixed_dictionaries({"surface": st.none() | st.integers(0, 3)}),
        "price": st.none() | st.floats(-0.9, 1e30) | st.just(math.nan),
        "age_h": st.none() | st.integers(-5, 10),
        "ts": st.none() | st.integers(0, 10**12),
        "tags": st.none() | st.lists(st.none() | st.sampled_from("abc"), max_size=4),
    }
)

TYPES = pa.schema(
    {
        "user": pa.string(),
        "context": pa.struct({"surface": pa.int64()}),
        "price": pa.float64(),
        "age_h": pa.int64(),
        "ts": pa.int64(),
        "tags": pa.list_(pa.string()),
    }
)


def one(name: str, value: Any) -> int:
    return null_id(name) if value is None else id_of(name, str(value))


def reference(event: dict[str, Any]) -> dict[str, Any]:
    """Row by row, in plain Python."""
    price, age, ts, tags = (event[key] for key in ("price", "age_h", "ts", "tags"))
    user = one("user", event["user"])
    surface = one("surface", (event["context"] or {}).get("surface"))
    return {
        "user": user,
        "surface": surface,
        "price": None if price is None or math.isnan(price) else float(np.float32(np.log1p(price))),
        "age": one("age", None if age is None else (age >= 1) + (age >= 6)),
        "hour": one("hour", None if ts is None else (ts // HOUR_MS + 8) % 24),
        "tags": [one("tags", tag) for tag in (tags or [])[:2]],
        "u_x_s": id_of("u_x_s", f"{user},{surface}"),
    }


@given(st.lists(EVENTS, max_size=6))
def test_encoding_is_the_reference_row_by_row(events: list[dict[str, Any]]) -> None:
    encoded = SCHEMA.encode(pa.Table.from_pylist(events, TYPES))
    assert encoded.to_pylist() == [reference(event) for event in events]
    assert encoded.schema == SCHEMA.arrow()


@given(st.lists(EVENTS, min_size=2, max_size=6), st.integers(1, 5))
def test_encoding_does_not_depend_on_neighbours(events: list[dict[str, Any]], cut: int) -> None:
    table = pa.Table.from_pylist(events, TYPES)
    halves = [SCHEMA.encode(table.slice(0, cut)), SCHEMA.encode(table.slice(cut))]
    assert pa.concat_tables(halves).to_pylist() == SCHEMA.encode(table).to_pylist()
    assert SCHEMA.encode(pa.concat_tables([table.slice(0, cut), table.slice(cut)])).equals(SCHEMA.encode(table))


def test_a_request_gives_values_under_the_names_of_features() -> None:
    values = {
        "user": pa.array(["u1"]),
        "surface": pa.array([3]),
        "price": pa.array([0]),
        "age": pa.array([6.0]),
        "hour": pa.array([0]),
        "tags": pa.array([["a"]]),
    }
    event = {"user": "u1", "context": {"surface": 3}, "price": 0.0, "age_h": 6, "ts": 0, "tags": ["a"]}
    assert SCHEMA.encode_features(values).to_pylist() == [reference(event)]
    with pytest.raises(MissingFeature, match="feature 'tags' is missing"):
        SCHEMA.encode_features({name: value for name, value in values.items() if name != "tags"})


def test_bucket_edges_belong_to_the_bucket_above() -> None:
    feature = Feature("age", "bucket", ("age",), edges=(1.0, 6.0))
    encoded = encode_values(feature, pa.array([0.9, 1.0, 5.9, 6.0, None]))
    assert encoded.to_pylist() == [id_of("age", k) for k in "0112"] + [null_id("age")]


def test_views_by_shape() -> None:
    assert SCHEMA.sparse == ("user", "surface", "age", "hour", "u_x_s")
    assert SCHEMA.lists == ("tags",)
    assert SCHEMA.numbers == ("price",)
    assert SCHEMA["age"].edges == (1.0, 6.0)


def test_known_fingerprint() -> None:
    assert SCHEMA.fingerprint == "9f8ad0d86737b1c4"


def test_fingerprint_changes_with_meaning_only() -> None:
    def changed(**fields: Any) -> str:
        return Schema((Feature(**{"name": "a", "kind": "ids", "path": ("a",), "max": 4, **fields}),)).fingerprint

    assert changed() == changed(path=("b",))
    assert len({changed(), changed(name="b"), changed(kind="id"), changed(max=5)}) == 4
    assert Schema(SCHEMA.features[::-1]).fingerprint != SCHEMA.fingerprint


def test_json_round_trip() -> None:
    assert Schema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA
    with pytest.raises(NewerFormat, match="has format 2"):
        Schema.from_json({"format": 2, "features": []})


def test_a_missing_column_is_named_with_the_nearest() -> None:
    events = pa.table({"usr": ["a"], "context": [{"surfaces": 1}]})
    with pytest.raises(MissingFeature, match="feature 'user' reads 'user', but the events have no 'user'") as error:
        SCHEMA.encode(events)
    assert error.value.hint == "did you mean 'usr'?"
    with pytest.raises(MissingFeature, match=r"reads 'context\.surface', but the events have no 'surface'") as error:
        SCHEMA.encode(events.append_column("user", pa.array(["a"])))
    assert error.value.hint == "did you mean 'surfaces'?"


@pytest.mark.parametrize(
    ("feature", "values", "reason", "rows"),
    [
        (Feature("f", "number", ("f",)), pa.array(["1", None]), "wrong_type", [0]),
        (Feature("f", "number", ("f",)), pa.array([True]), "wrong_type", [0]),
        (Feature("f", "number", ("f",)), pa.array([1.0, math.inf, math.nan, -math.inf]), "infinite", [1, 3]),
        (Feature("f", "number", ("f",)), pa.array([1e39, 1.0]), "out_of_range", [0]),
        (Feature("f", "number", ("f",), transform="log1p"), pa.array([-1.0, -0.5, -2.0]), "out_of_range", [0, 2]),
        (Feature("f", "bucket", ("f",), edges=(1.0,)), pa.array(["a"]), "wrong_type", [0]),
        (Feature("f", "id", ("f",)), pa.array([["a"], None]), "wrong_type", [0]),
        (Feature("f", "id", ("f",)), pa.array([1.0, math.inf]), "infinite", [1]),
        (Feature("f", "ids", ("f",), max=3), pa.array(["a", "b"]), "wrong_type", [0, 1]),
        (Feature("f", "ids", ("f",), max=3), pa.array([[1.0], None, [2.0, math.inf]]), "infinite", [2]),
        (Feature("f", "time", ("f",)), pa.array(["2013-01-01T00:00:00Z", "x", None]), "bad_time", [1]),
        (Feature("f", "time", ("f",)), pa.array([True]), "wrong_type", [0]),
    ],
)  # fmt: skip
def test_misfits_are_found_and_refused(feature: Feature, values: pa.Array, reason: str, rows: list[int]) -> None:
    found = misfits(feature, values)
    assert found is not None
    assert (found[0], np.flatnonzero(found[1]).tolist()) == (reason, rows)
    with pytest.raises(WrongType, match=f"feature 'f' \\({feature.kind}, from 'f'\\) cannot take") as error:
        encode_values(feature, values)
    assert error.value.context["row"] == rows[0]
    keep = np.ones(len(values), bool)
    keep[rows] = False
    if reason != "wrong_type":
        assert misfits(feature, values.filter(pa.array(keep))) is None


def test_a_column_of_nulls_fits_every_feature() -> None:
    for feature in SCHEMA.features:
        if feature.kind != "cross":
            assert misfits(feature, pa.nulls(2)) is None
            assert len(encode_values(feature, pa.nulls(2))) == 2


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "no features are defined"),
        ([Feature("a b", "id", ("a",))], "'a b' cannot name a feature"),
        ([Feature("_a", "id", ("a",))], "'_a' cannot name a feature"),
        ([Feature("label", "id", ("a",))], "cannot be called 'label'"),
        ([Feature("a", "id", ("a",)), Feature("a", "id", ("b",))], "'a' is defined twice"),
        ([Feature("a", "id")], "does not say where its value stands"),
        ([Feature("a", "bucket", ("a",), edges=(2.0, 1.0))], "edges of bucket 'a' must be numbers that grow"),
        ([Feature("a", "time", ("a",), time_zone="Mars/Base")], "feature 'a': 'Mars/Base' is not a time zone"),
        ([Feature("a", "ids", ("a",))], "needs max >= 1"),
        ([Feature("a", "cross", of=("a",))], "needs two or more different members"),
        ([Feature("a", "id", ("a",)), Feature("x", "cross", of=("a", "bb"))], "made of 'bb', which is not a feature"),
        ([Feature("a", "id", ("a",)), Feature("n", "number", ("n",)), Feature("x", "cross", of=("a", "n"))],
         "cannot be made of 'n': its kind is number"),
    ],
)  # fmt: skip
def test_rules_of_features(features: list[Feature], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Schema(tuple(features))
