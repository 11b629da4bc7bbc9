"""Features and drift of `headrace inspect`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from headrace.cli.inspect.events import Sample
from headrace.cli.inspect.values import days_of, values_of
from headrace.features import Feature
from headrace.schema import Schema

SCHEMA = Schema(
    (
        Feature("item", "id", ("item",)),
        Feature("price", "number", ("price",)),
        Feature("tags", "ids", ("tags",), max=4),
    )
)
DAY_US = 86_400_000_000


def sample(items, prices, days=5):
    rows = len(items)
    raw = pa.table({"item": items, "price": prices, "tags": [["a", "b"]] * (rows - 1) + [[]]})
    return Sample(
        id=np.arange(rows, dtype=np.uint64),
        ts_us=np.arange(rows) * (days * DAY_US // rows) + 20_000 * DAY_US,
        features=SCHEMA.encode(raw),
        duplicates=0,
        feedback_id=np.zeros(0, np.uint64),
        feedback_us=np.zeros(0, np.int64),
        label=np.zeros(0, np.float32),
        whole=True,
        trials={},
    )


def test_values():
    item, price, tags = values_of(SCHEMA, sample(["a", "a", None, "b"], [1.0, None, 3.0, 5.0]).features)
    assert (item.distinct, item.once, item.most, item.missing) == (3, 2, 0.5, 0.25)
    assert (price.mean, price.low, price.high, price.missing) == (3.0, 1.0, 5.0, 0.25)
    assert (tags.distinct, tags.missing) == (2, 0.25 * 4 / 6)


def test_drift_is_of_the_feature_that_changed_on_the_day_it_changed():
    rng = np.random.default_rng(3)
    items = [f"i{k}" for k in rng.integers(0, 3_000, 10_000)]  # many ids, few events of each: no drift
    prices = np.r_[rng.random(6_000), rng.random(4_000) + 1]
    days = days_of(SCHEMA, sample(items, prices), np.r_[np.zeros(6_000), np.ones(4_000)])
    assert [day.events for day in days] == [2_000] * 5
    assert [day.positive_rate for day in days] == [0, 0, 0, 1, 1]
    assert days[0].drift == {}
    assert [day.drift["price"] > 0.5 for day in days[1:]] == [False, False, True, True]
    assert max(day.drift["item"] for day in days[1:]) < 0.1


def test_hours_and_what_is_crossed_with_them_do_not_drift():
    schema = Schema(
        (
            Feature("item", "id", ("item",)),
            Feature("hour", "time", ("at",), part="hour", time_zone="UTC"),
            Feature("item_x_hour", "cross", (), of=("item", "hour")),
            Feature("user", "id", ("user",)),
            Feature("item_x_user", "cross", (), of=("item", "user")),
        )
    )
    features = pa.table({name: pa.array([k % 5 for k in range(100)], pa.uint64()) for name in schema.arrow().names})
    days = days_of(schema, replace(sample(["a"] * 100, [1.0] * 100), features=features), np.zeros(100))
    assert set(days[1].drift) == {"item", "user", "item_x_user"}


def test_what_takes_turns_in_the_log_does_not_drift():
    items = [f"i{k % 120}" for k in range(60_000)]
    days = days_of(SCHEMA, sample(items, [1.0] * 60_000), np.zeros(60_000))
    assert max(day.drift["item"] for day in days[1:]) < 0.02


def test_twin_without_the_random_split_many_ids_look_like_drift(monkeypatch):
    rng = np.random.default_rng(3)
    items = [f"i{k}" for k in rng.integers(0, 3_000, 10_000)]
    from headrace.cli.inspect import values

    monkeypatch.setattr(values, "_drift", values._distance)
    days = days_of(SCHEMA, sample(items, rng.random(10_000)), np.zeros(10_000))
    assert max(day.drift["item"] for day in days[1:]) > 0.3


def test_a_short_log_is_told_by_the_hour():
    days = days_of(SCHEMA, sample(["a"] * 100, [1.0] * 100, days=1), np.full(100, np.nan))
    assert len(days) == 24
    assert {day.span_s for day in days} == {3_600}
    assert days[0].positive_rate is None
