from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace import config, guess
from headrace.errors import SettingsError
from headrace.place import path_of

START = datetime(2024, 5, 1, tzinfo=UTC)


def outcomes(rows: int = 2_000) -> pa.Table:
    """One event with its label; columns that tell the label; a column of every kind."""
    rng = random.Random(3)
    events = []
    for number in range(rows):
        label = rng.random() < 0.3
        shown = START + timedelta(seconds=number)
        events.append(
            {
                "order_id": 10_000 + number,
                "created": shown.isoformat(),
                "result_at": (shown + timedelta(hours=rng.uniform(1, 40))).isoformat(),
                "y": int(label),
                "country": rng.choice(["de", "fr", "cn"]),
                "shop": f"shop {rng.randrange(300)}",
                "customer_id": rng.randrange(900),
                "weekpart": rng.randrange(3),
                "amount": round(rng.lognormvariate(3, 2), 2),
                "basket": [rng.choice("abcd") for _ in range(rng.randrange(6))],
                "first": rng.random() < 0.5,
                "refund": rng.uniform(1, 9) if label else 0.0,
                "complaint": 1 if label and rng.random() < 0.5 else 0,
                "delivery_days": None if label else rng.random(),
                "currency": "EUR",
                "session": f"{number:032x}",
                "address": {"city": "x"},
                "window": rng.randrange(4),
            }
        )
    return pa.Table.from_pylist(events)


def feed(rows: int = 2_000) -> pa.Table:
    """Impressions and clicks in one stream."""
    rng = random.Random(4)
    events: list[dict[str, Any]] = []
    for number in range(rows):
        at = 1_700_000_000_000 + number * 500
        shown = {"action": "impression", "request": f"r{number}", "request_id": f"r{number}", "ts": at,
                 "user": f"u{rng.randrange(400)}", "item": rng.randrange(5_000)}  # fmt: skip
        events.append(shown)
        if rng.random() < 0.1:
            events.append({"action": "click", "request_id": f"r{number}", "ts": at + rng.randrange(20_000)})
    return pa.Table.from_pylist(events)


def test_outcomes_become_explicit_settings() -> None:
    guessed = guess.guess(outcomes(), "orders.parquet")
    settings = config.parse(guessed.text)
    assert (settings.impression.id, settings.impression.time) == ("order_id", "created")
    assert (settings.feedback.time, settings.feedback.label) == ("result_at", "y")
    assert settings.label.mode == "explicit"
    assert settings.label.attribution_s >= 40 * 3600
    assert settings.loop.prior == pytest.approx(0.3, abs=0.05)
    kinds = {feature.name: feature.kind for feature in settings.schema().features}
    assert kinds == {
        "country": "category", "shop": "id", "customer_id": "id", "weekpart": "category", "amount": "number",
        "basket": "ids", "first": "category", "my_window": "category", "hour": "time", "weekday": "time",
    }  # fmt: skip
    features = settings.schema()
    assert features["amount"].transform == "log1p"
    assert features["basket"].max == 5
    assert features["my_window"].column == "window"
    assert features.encode(outcomes()).num_rows == 2_000


def test_outcomes_are_left_out_and_said() -> None:
    guessed = guess.guess(outcomes(), "orders.parquet")
    assert "# left out, tells the label almost alone: an outcome?: refund, complaint, delivery_days" in guessed.text
    assert "# left out, the same in every event: currency, address.city" in guessed.text
    assert "# left out, differs in every event: session" in guessed.text
    assert [note.split()[0] for note in guessed.notes] == ["refund", "complaint", "delivery_days"]


def test_two_types_of_events_become_implicit_settings() -> None:
    settings = config.parse(guess.guess(feed(), "logs/feed.jsonl").text)
    assert settings.impression.where == {"action": "impression"}
    assert (settings.feedback_name, settings.feedback.where) == ("click", {"action": "click"})
    assert (settings.impression.id, settings.impression.time_unit) == ("request_id", "ms")
    assert (settings.label.mode, settings.label.wait_s, settings.label.attribution_s) == ("implicit", 30, 30)
    assert {feature.name for feature in settings.schema().features} == {"user", "item", "hour", "weekday"}


@pytest.mark.parametrize(("divisor", "unit"), [(1, "us"), (1_000, "ms"), (1_000_000, "s")])
def test_units_of_integer_times(divisor: int, unit: str) -> None:
    times = [1_700_000_000_000_000 // divisor + i for i in range(100)]
    events = pa.table({"id": range(100), "ts": times, "label": [0, 1] * 50, "x": ["a", "b"] * 50})
    guessed = guess.guess(events, "e.csv")
    assert config.parse(guessed.text).impression.time_unit == unit
    assert guessed.notes[-1] == "no time of the label was found: labels count as known at 'ts' itself"


def test_naive_times_are_said() -> None:
    events = pa.table(
        {"id": range(9), "time": ["2024-05-01T10:00:00"] * 9, "label": [0, 1, 0] * 3, "x": list("abc") * 3}
    )
    guessed = guess.guess(events, "e.csv")
    assert config.parse(guessed.text).impression.time_zone == "UTC"
    assert "'time' has no time zone: UTC is assumed" in guessed.notes


def test_many_columns_stay_within_forty_lines() -> None:
    wide = {f"column {i}": [f"{i}-{j % 7}" for j in range(200)] for i in range(80)}
    events = pa.table({"id": range(200), "ts": range(1_700_000_000, 1_700_000_200), "label": [0, 1] * 100, **wide})
    text = guess.guess(events, 'odd "name".csv').text
    assert len(text.splitlines()) <= 40
    assert "# left out for brevity" in text
    assert config.parse(text).schema().features[0].column == "column 0"


@pytest.mark.parametrize(
    ("columns", "role"),
    [
        ({"id": [1, 2], "label": [0, 1]}, "time"),
        ({"id": [1, 2], "ts": [1_700_000_000, 1_700_000_001]}, "label"),
        ({"ts": [1_700_000_000, 1_700_000_001] * 2, "label": [0, 1] * 2, "x": ["a"] * 4}, "id"),
    ],
)
def test_what_cannot_be_guessed_is_named(columns: dict[str, list[Any]], role: str) -> None:
    with pytest.raises(SettingsError, match=f"no column that could be the {role}") as error:
        guess.guess(pa.table(columns), "e.csv")
    assert "without --from" in error.value.hint


def test_a_column_without_a_name_is_left_out_and_said() -> None:
    events = outcomes()
    unnamed = events.append_column("", events["shop"]).append_column(" ", events["order_id"])
    found, wanted = guess.guess(unnamed, "events.csv"), guess.guess(events, "events.csv")
    assert found.text == wanted.text
    assert found.notes == (*wanted.notes, "a column without a name is left out: settings cannot name it")


def test_no_events_no_guess() -> None:
    with pytest.raises(SettingsError, match="no events to look at"):
        guess.guess(pa.table({"a": pa.array([], pa.int64())}), "e.csv")


def test_fields_of_objects_are_features_by_their_path() -> None:
    events = feed()
    n = events.num_rows
    events = events.append_column("who", pa.array([{"age": i % 60, "home": {"zip": f"z{i % 9}"}} for i in range(n)]))
    events = events.append_column("a.b", pa.array([{"c": i % 7} for i in range(n)]))
    schema = config.parse(guess.guess(events, "feed.jsonl").text).schema()
    assert (schema["who_age"].path, schema["who_age"].kind) == (("who", "age"), "number")
    assert (schema["who_home_zip"].path, schema["who_home_zip"].kind) == (("who", "home", "zip"), "category")
    assert "a_b_c" not in {feature.name for feature in schema.features}  # `a.b.c` would mean something else


def test_a_few_odd_labels_times_and_ids_do_not_hide_a_column() -> None:
    n = 200
    events = pa.table(
        {
            "id": [None, *range(1, n)],
            "ts": [7, *range(1_700_000_001, 1_700_000_000 + n)],
            "label": [3, *[0, 1] * (n // 2 - 1), 1],
            "x": ["a", "b"] * (n // 2),
        }
    )
    settings = config.parse(guess.guess(events, "e.csv").text)
    assert (settings.impression.id, settings.impression.time_unit, settings.feedback.label) == ("id", "s", "label")
    assert settings.loop.prior == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("column", "near"),
    [
        ({"returned": ["yes", "no"]}, "'returned' says 'no', 'yes': write 1 and 0, or true and false"),
        ({"fraud": ["Y", "N"]}, 'feedback is what says Y: where = { fraud = "Y" } and mode = "implicit"'),
        ({"label": ["good", "bad"]}, "'label' is called so, but holds 'good', 'bad'"),
    ],
)
def test_what_could_almost_be_the_label_is_named(column: dict[str, list[str]], near: str) -> None:
    events = pa.table(
        {"id": range(20), "ts": range(1_700_000_000, 1_700_000_020), **{k: v * 10 for k, v in column.items()}}
    )
    with pytest.raises(SettingsError) as error:
        guess.guess(events, "e.csv")
    assert near in error.value.message.replace("'yes', 'no'", "'no', 'yes'")


def test_the_other_sections_stand_there_with_their_defaults() -> None:
    for text in (guess.TEMPLATE, guess.guess(feed(), "feed.jsonl").text):
        assert 'root = "./loop"' in text
        open_ = text.replace("# [", "[").replace("# port", "port").replace("# on", "on")
        assert config.parse(open_) == config.parse(text)


def test_the_template_is_a_feed_on_one_page() -> None:
    settings = config.parse(guess.TEMPLATE)
    assert settings.label.mode == "implicit"
    assert len(settings.schema().features) == 5
    assert len(guess.TEMPLATE.splitlines()) <= 40


def test_a_time_that_only_some_events_have_is_the_feedback() -> None:
    rng = np.random.default_rng(2)
    at = 1_700_000_000 + np.arange(2_000) * 60
    clicked = [
        int(t + d) if yes else None
        for t, d, yes in zip(at, rng.exponential(90, 2_000), rng.random(2_000) < 0.2, strict=True)
    ]
    place = [None if c is None else int(rng.integers(0, 9)) for c in clicked]  # known only after a click
    table = pa.table(
        {
            "request_id": [f"r{i}" for i in range(2_000)],
            "shown_at": at,
            "clicked_at": pa.array(clicked, pa.int64()),
            "click_place": pa.array(place, pa.int64()),
            "user_id": rng.integers(0, 500, 2_000),
        }
    )
    found = guess.guess(table, "ads.csv")
    settings = config.parse(found.text, file="t.toml")
    assert settings.label.mode == "implicit"
    assert {name: one.time for name, one in settings.streams.items()} == {
        "impression": "shown_at",
        "feedback": "clicked_at",
    }
    assert set(settings.features) == {"user_id", "hour", "weekday"}
    assert any("click_place is left out" in note for note in found.notes)
    assert 0.15 < settings.loop.prior < 0.25


def test_decimals_are_numbers() -> None:
    events = feed()
    price = pa.array([i % 300 / 4 for i in range(events.num_rows)]).cast(pa.decimal128(9, 2))
    schema = config.parse(guess.guess(events.append_column("price", price), "feed.parquet").text).schema()
    assert schema["price"].kind == "number"


def nested(table: pa.Table) -> pa.Table:
    """The same events, with id and type in `event`, times in `meta`, the rest in `body`."""
    homes = {"order_id": ("event", "id"), "request_id": ("event", "id"), "action": ("event", "type")}
    homes |= {"created": ("meta", "time"), "ts": ("meta", "ts"), "result_at": ("meta", "result_at"), "y": ("out", "y")}
    rows = []
    for row in table.to_pylist():
        made: dict[str, Any] = {}
        for name, value in row.items():
            home, field = homes.get(name, ("body", name))
            made.setdefault(home, {})[field] = value
        rows.append(made)
    return pa.Table.from_pylist(rows)


def test_roles_are_found_inside_objects() -> None:
    settings = config.parse(guess.guess(nested(outcomes()), "orders.parquet").text)
    assert (settings.impression.id, settings.impression.time) == ("event.id", "meta.time")
    assert (settings.feedback.time, settings.feedback.label) == ("meta.result_at", "out.y")
    assert settings.schema()["body_customer_id"].path == ("body", "customer_id")
    assert settings.schema().encode(nested(outcomes())).num_rows == 2_000
    text = guess.guess(nested(feed()), "feed.jsonl").text
    assert 'where = { event.type = "impression" }' in text
    settings = config.parse(text)
    assert settings.impression.where == {"event.type": "impression"}
    assert (settings.impression.id, settings.feedback.time) == ("event.id", "meta.ts")


def test_columns_with_dots_in_their_names_are_named_so_that_they_are_found() -> None:
    names = {"action": "event.type", "request_id": "event.id", "ts": "meta.ts"}
    table = feed().drop_columns(["request"]).rename_columns(names | {"user": "e.user", "item": "item"})
    settings = config.parse(guess.guess(table, "feed.csv").text)
    assert path_of(settings.impression.id) == ("event.id",)
    assert path_of(settings.impression.time) == ("meta.ts",)
    assert [path_of(place) for place in settings.impression.where] == [("event.type",)]
    assert settings.schema()["e_user"].path == ("e.user",)
