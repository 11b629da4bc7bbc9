"""The assertion of a backtest: it holds on honest shards and trips on leaked ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.cli.freshness.lineage import Lineage, Truth
from headrace.errors import LineageError
from headrace.log import Cursor, Log
from headrace.shard import ShardRecord, arrange, write_shard
from headrace.store import Store, open_store
from headrace.version import VersionRecord

HOUR = 3_600_000_000


def truth_of(labels: dict[str, list[tuple[int, float]]], wait_us: int | None = None) -> Truth:
    rows = [(event, time, label) for event, found in labels.items() for time, label in found]
    return Truth.of(
        pa.chunked_array([pa.array([row[0] for row in rows], pa.string())]),
        np.array([row[2] for row in rows], np.float32),
        np.array([row[1] for row in rows], np.int64),
        wait_us,
    )


def rows_of(rows: list[tuple[str, int, int, float]]) -> pa.Table:
    """(event id, event time, emit time, label) -> shard rows."""
    ids, times, emits, labels = zip(*rows, strict=True)
    return pa.table(
        {
            "impression_id": pa.array(ids, pa.string()),
            "event_time_us": pa.array(times, pa.int64()),
            "emit_time_us": pa.array(emits, pa.int64()),
            "label": pa.array(labels, pa.float32()),
            "row_kind": pa.array(["observed"] * len(rows)),
            "delay_us": pa.array([e - t for t, e in zip(times, emits, strict=True)], pa.int64()),
            "sample_rate": pa.array([1.0] * len(rows), pa.float32()),
        }
    )


def lineage_of(name: str, truth: Truth, *records: list[tuple[str, int, int, float]]) -> Lineage:
    store: Store = open_store(f"memory://lineage-{name}")
    log = Log(store, "shards/log")
    for seq, rows in enumerate(records):
        shard = write_shard(
            store, arrange(rows_of(rows), HOUR), path=f"shards/data/{seq:012d}-0-aa.parquet", part=0, fingerprint="f"
        )
        record = ShardRecord(seq, (), 0, 0, 0, 0, (shard,), (), {}, "f", "0", 0)
        log.append("shard", record.to_body(), log.head())
    return Lineage(store, log, truth)


def version(cursor: int, max_emit_us: int) -> VersionRecord:
    more: dict[str, Any] = {"cursor": Cursor(cursor, ""), "max_emit_us": max_emit_us}
    return VersionRecord(7, "delta", 6, 0, {}, {}, 0.1, {}, 0, "0", **more)


HONEST = {"a": [(500, 1.0)], "b": [(900, 0.0)], "c": [(1_500, 1.0)]}


def test_honest_shards_pass_and_the_latest_label_is_cumulative() -> None:
    lineage = lineage_of(
        "honest", truth_of(HONEST), [("a", 100, 500, 1.0), ("b", 200, 900, 0.0)], [("c", 300, 1_500, 1.0)]
    )
    assert [lineage.latest_us(0), lineage.latest_us(1)] == [900, 1_500]
    lineage.check(version(0, 900), np.array([900, 950], np.int64), str)
    with pytest.raises(LineageError, match="version 7 had learned a label of 1500 us") as leak:
        lineage.check(version(1, 1_500), np.array([1_499, 1_600], np.int64), lambda i: "xy"[i])
    assert leak.value.context["events"] == ["x"]


def test_a_pipeline_that_lies_about_label_times_is_found_out() -> None:
    lying = [("c", 300, 300, 1.0)]  # the label let out at the time of its impression
    lineage = lineage_of("lying", truth_of(HONEST), lying)
    with pytest.raises(LineageError, match="1500 us"):
        lineage.check(version(0, 300), np.array([1_000], np.int64), str)


def test_twin_with_the_pipelines_word_alone_the_lie_passes() -> None:
    lying = [("c", 300, 300, 1.0)]
    lineage = lineage_of("twin", truth_of({"c": [(300, 1.0)]}), lying)
    lineage.check(version(0, 300), np.array([1_000], np.int64), str)


def test_a_label_that_no_feedback_carries_is_found_out() -> None:
    lineage = lineage_of("invented", truth_of(HONEST), [("b", 200, 900, 1.0)])
    with pytest.raises(LineageError, match="never had"):
        lineage.latest_us(0)


def test_implicit_negatives_are_known_when_the_wait_is_over() -> None:
    lineage = lineage_of(
        "implicit", truth_of({"a": [(500, 1.0)]}, wait_us=600), [("a", 100, 700, 1.0), ("b", 200, 800, 0.0)]
    )
    assert lineage.latest_us(0) == 800


def test_a_version_that_learned_nothing_passes() -> None:
    lineage = lineage_of("nothing", truth_of(HONEST))
    nothing = VersionRecord(0, "start", None, 0, {}, {}, 0.1, {}, 0, "0")
    lineage.check(nothing, np.array([0], np.int64), str)
