"""Rows of a shard record as the arrays that a training step takes.

The order of training is fixed here, since it is part of the bits: all shards of a record, sorted by emit time (when the
label was decided), ties in the order of parts and rows. Each feature column is dictionary-encoded once, so that an id
is looked up once per record and not once per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.schema import Schema

Floats = npt.NDArray[np.float32]

COLUMNS = ("label", "emit_time_us", "row_kind", "event_time_us", "delay_us")
"""What is read of a shard beside the features."""


@dataclass(frozen=True)
class Column:
    """One id feature. ids: int64 [u], each once; codes: int32 [m], positions in ids.

    offsets: int32 [n + 1] for a feature with several ids per row (row i has codes[offsets[i]:offsets[i + 1]]), else
    None, and m = n.
    """

    ids: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int32] | None = None

    def events(self) -> npt.NDArray[np.int64]:
        """int64 [u]: how many rows have each id. A row that has one several times is one."""
        codes, ids = self.codes, len(self.ids)
        if self.offsets is not None:
            rows = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
            codes = np.unique(rows * ids + codes) % max(ids, 1)
        return np.bincount(codes, minlength=ids)


@dataclass(frozen=True)
class Positives:
    """Of a record, observed and corrections. event_us, delay_us: int64 [p]; newest_us: of all its decisions."""

    event_us: npt.NDArray[np.int64]
    delay_us: npt.NDArray[np.int64]
    newest_us: int


@dataclass(frozen=True)
class Examples:
    """labels: float32 [n]; columns: feature -> Column; numbers: float32 [n, k], missing = NaN; encoded: the same.

    event_us: int64 [n], None where the shards were read without their times.
    """

    labels: Floats
    columns: Mapping[str, Column]
    numbers: Floats
    encoded: pa.Table
    positives: Positives | None = None
    event_us: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def newest_us(self, feature: str) -> npt.NDArray[np.int64]:
        """int64 [u]: the time of the newest event with each id of a feature's column."""
        column, times = self.columns[feature], self.event_us
        newest = np.zeros(len(column.ids), np.int64)
        if times is not None:
            each = times if column.offsets is None else np.repeat(times, np.diff(column.offsets))
            np.maximum.at(newest, column.codes, each)
        return newest


def examples_of(shards: Sequence[pa.Table], schema: Schema) -> Examples:
    """The rows of one record in training order. shards: tables with `COLUMNS` and the feature columns.

    Corrections are left out but for `positives`: a row is learned once, with the label that was observed.
    """
    if not shards:
        return Examples(np.empty(0, np.float32), {}, np.empty((0, len(schema.numbers)), np.float32), pa.table({}))
    table = pa.concat_tables(shards).combine_chunks()
    emitted = table.column("emit_time_us").to_numpy()
    observed = pc.equal(table.column("row_kind"), "observed").to_numpy()
    positives = _positives(table, emitted)
    order = np.argsort(emitted, kind="stable")
    table = table.take(order[observed[order]])
    columns = {name: _column(table.column(name)) for name in (*schema.sparse, *schema.lists)}
    numbers = [table.column(name).to_numpy(zero_copy_only=False).astype(np.float32) for name in schema.numbers]
    stacked = np.stack(numbers, 1) if numbers else np.empty((table.num_rows, 0), np.float32)
    names = [feature.name for feature in schema.features]
    labels = table.column("label").to_numpy().astype(np.float32)
    event_us = table.column("event_time_us").to_numpy() if "event_time_us" in table.column_names else None
    return Examples(labels, columns, stacked, table.select(names), positives, event_us)


def _positives(table: pa.Table, emitted: npt.NDArray[np.int64]) -> Positives | None:
    """None where the shards were read without their times."""
    if not len(emitted) or not {"event_time_us", "delay_us"} <= set(table.column_names):
        return None
    delay = table.column("delay_us")
    positive = (table.column("label").to_numpy() > 0) & pc.is_valid(delay).to_numpy()
    event_us = table.column("event_time_us").to_numpy()[positive]
    return Positives(event_us, pc.fill_null(delay, 0).to_numpy()[positive], int(emitted.max()))


def _column(values: pa.ChunkedArray) -> Column:
    array = values.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], values.type)
    if not pa.types.is_list(array.type):
        return Column(*_encoded(array))
    lengths = np.diff(array.offsets.to_numpy())
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return Column(*_encoded(array.flatten()), offsets)


def _encoded(ids: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    encoded = ids.dictionary_encode()
    return encoded.dictionary.to_numpy(zero_copy_only=False), encoded.indices.to_numpy(zero_copy_only=False)
