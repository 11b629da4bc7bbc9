"""What simulated logs are made of: times with a rhythm, values that drift, files that end where the log ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from headrace import simulate

if TYPE_CHECKING:
    from pathlib import Path

UNTIL = np.datetime64("2026-01-05")


def test_moments_fill_the_days_before_the_end_and_follow_the_clock() -> None:
    at, hour = simulate.moments(np.random.default_rng(0), UNTIL, 3, 20_000)
    assert (np.diff(at) >= np.timedelta64(0)).all()
    assert np.datetime64("2026-01-02") <= at[0]
    assert at[-1] < UNTIL
    assert ((at - np.datetime64("2026-01-02")) // np.timedelta64(1, "h") == hour).all()
    assert len(at) == pytest.approx(60_000, rel=0.03)
    by_hour = np.bincount(hour % 24)
    assert by_hour[22] > 4 * by_hour[4]


def test_what_wanders_keeps_its_spread_and_forgets() -> None:
    x = simulate.wander(np.random.default_rng(0), 400, 2_000, sd=0.5, tau=20)
    assert x.std(axis=1) == pytest.approx(0.5, rel=0.06)
    alike = [float(np.corrcoef(x[100], x[100 + steps])[0, 1]) for steps in (1, 20, 200)]
    assert alike == pytest.approx([np.exp(-1 / 20), np.exp(-1), 0], abs=0.07)


def test_what_happens_has_its_probability() -> None:
    happened = simulate.happens(np.random.default_rng(0), np.repeat([-3.0, 0.0, 2.0], 40_000))
    assert happened.reshape(3, -1).mean(axis=1) == pytest.approx([0.0474, 0.5, 0.8808], abs=0.006)


def test_files_are_sorted_and_end_where_the_log_ends(tmp_path: Path) -> None:
    at = simulate.after(np.full(4, UNTIL.astype("datetime64[ms]")), np.array([-1.5, -60.0, 0.0, -0.001]))
    table = pa.table({"id": ["a", "b", "later", "c"], "at": at, "x": pa.array([1, None, 3, 4])})
    rows = simulate.write({f"events/e.{end}": table for end in ("jsonl", "csv", "parquet")}, UNTIL, tmp_path)
    assert rows == {"events/e.jsonl": 3, "events/e.csv": 3, "events/e.parquet": 3}
    end_ms = 1_767_571_200_000
    lines = [json.loads(line) for line in (tmp_path / "events/e.jsonl").read_text().splitlines()]
    assert lines == [
        {"id": "b", "at": end_ms - 60_000},
        {"id": "a", "at": end_ms - 1_500, "x": 1},
        {"id": "c", "at": end_ms - 1, "x": 4},
    ]
    for found in (pacsv.read_csv(tmp_path / "events/e.csv"), pq.read_table(tmp_path / "events/e.parquet")):
        times = found.column("at").cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_pylist()
        assert times == [line["at"] for line in lines]
        assert found.column("x").to_pylist() == [None, 1, 4]
