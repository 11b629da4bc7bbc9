"""What the simulated examples share: `events.py` of an example says what happens, this says when, and writes it down.

    events(until) -> {file: table}     until: a midnight UTC, where the log ends

What happens follows from the seed in `events.py`, dates from `until`: two runs of one day write the same bytes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from headrace import clock
from headrace.feed.world import HOURS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DAY: Final = np.timedelta64(1, "D")
UTC_MS: Final = pa.timestamp("ms", "UTC")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Times = npt.NDArray[np.datetime64]


def midnight() -> np.datetime64:
    """The beginning of this day, UTC."""
    day: np.datetime64 = np.datetime64(clock.now_us(), "us").astype("datetime64[D]")
    return day


def moments(draw: np.random.Generator, until: np.datetime64, days: int, per_day: float) -> tuple[Times, Ints]:
    """Times of about `per_day` events on each day before `until`, most in the evening: datetime64[ms] [n], sorted.
    And the hour of each, counted from the first one: int64 [n].
    """
    counts = draw.poisson(per_day / 24 * np.tile(HOURS, days))
    hour = np.repeat(np.arange(24 * days), counts)
    ms = np.sort(hour * 3_600_000 + draw.integers(0, 3_600_000, len(hour)))
    return (until - days * DAY).astype("datetime64[ms]") + ms, hour


def after(at: Times, seconds: Floats) -> Times:
    """So many seconds later, to the millisecond."""
    later: Times = at + (seconds * 1_000).astype("timedelta64[ms]")
    return later


def wander(draw: np.random.Generator, steps: int, n: int, *, sd: float, tau: float) -> Floats:
    """n values that drift around 0 and forget where they were in about `tau` steps: float64 [steps, n].

    An Ornstein-Uhlenbeck process: x' = k x + sqrt(1 - k^2) sd N(0, 1), k = exp(-1 / tau).
    """
    keep = np.exp(-1 / tau)
    x = np.empty((steps, n))
    x[0] = draw.normal(0, sd, n)
    for i in range(1, steps):
        x[i] = keep * x[i - 1] + np.sqrt(1 - keep * keep) * draw.normal(0, sd, n)
    return x


def happens(draw: np.random.Generator, logit: Floats) -> npt.NDArray[np.bool_]:
    """Whether each thing happens that has the probability 1 / (1 + e^-logit)."""
    yes: npt.NDArray[np.bool_] = draw.random(len(logit)) < 1 / (1 + np.exp(-logit))
    return yes


def named(letter: str, numbers: Ints) -> npt.NDArray[np.str_]:
    """Ids as text.

    >>> named("u", np.array([3, 17])).tolist()
    ['u3', 'u17']
    """
    return np.char.add(letter, numbers.astype(str))


def write(tables: Mapping[str, pa.Table], until: np.datetime64, folder: Path) -> dict[str, int]:
    """Writes each table as the ending of its file says (.jsonl, .csv, .parquet), in the order of its first column of
    times, without what comes after `until`: that is not known yet. The rows of each file.
    """
    rows = {}
    for file, table in tables.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        known = _known(table, until)
        {".jsonl": _write_json, ".csv": pacsv.write_csv, ".parquet": pq.write_table}[path.suffix](known, path)
        rows[file] = known.num_rows
    return rows


def _known(table: pa.Table, until: np.datetime64) -> pa.Table:
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz is None:
            utc = table.column(i).cast(pa.timestamp("ms")).cast(UTC_MS)
            table = table.set_column(i, field.name, utc)
    time = next(field.name for field in table.schema if pa.types.is_timestamp(field.type))
    end = pa.scalar(int(until.astype("datetime64[ms]").astype(np.int64)), UTC_MS)
    return table.filter(pc.less(table.column(time), end)).sort_by(time)


def _write_json(table: pa.Table, path: Path) -> None:
    """One object a line, times in milliseconds, without what is missing."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(pa.int64()))
    with path.open("w", encoding="utf-8") as lines:
        for row in table.to_pylist():
            lines.write(json.dumps({name: value for name, value in row.items() if value is not None}) + "\n")
