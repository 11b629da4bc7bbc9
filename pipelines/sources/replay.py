"""A recorded stream, revealed as its time comes: what the backtest reads instead of a live source.

An Arrow IPC file whose rows are sorted by an arrival column (int64 microseconds); the position is a row number. Rows
with `arrival <= revealed` are there, the others not yet. Reading needs no clock, so a replay of a record is exact.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.errors import SourceVanished
from pipelines.sources.base import Reach, Rows, Span

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["ReplaySource"]

PARTITION = "replay"
SPAN_ROWS = 1 << 16


class ReplaySource:
    """`path`: the Arrow IPC file; `arrival`: its column of arrival times. `reveal(until_us)` lets time pass."""

    def __init__(self, path: str | Path, arrival: str) -> None:
        self.url = str(path)
        self.arrival = arrival
        self.revealed_us = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return ReplaySource, (self.url, self.arrival)

    def reveal(self, until_us: int) -> None:
        self.revealed_us = max(self.revealed_us, until_us)

    @cached_property
    def _table(self) -> pa.Table:
        try:
            return pa.ipc.open_file(pa.memory_map(self.url)).read_all()
        except FileNotFoundError as error:
            raise SourceVanished(f"{self.url} is not there", hint="run the backtest again from its start") from error

    @cached_property
    def _arrivals(self) -> Any:
        return self._table.column(self.arrival).to_numpy()

    def partitions(self) -> Sequence[str]:
        return [PARTITION]

    def first(self, partition: str) -> int:  # noqa: ARG002  (there is one)
        return 0

    def reach(
        self, partition: str, committed: Any, identity: Any, *, max_bytes: int, drain: bool, aside: Any = None
    ) -> Reach:
        del partition, identity, aside  # there is one, and its file does not change
        table = self._table
        end = table.num_rows if drain else int(self._arrivals.searchsorted(self.revealed_us, side="right"))
        per_row = max(1, table.nbytes // max(1, table.num_rows))
        to = max(committed, min(end, committed + max(1, max_bytes // per_row)))
        return Reach(to, {"file": Path(self.url).name, "rows": table.num_rows}, (to - committed) * per_row, to >= end)

    def spans(self, partition: str, start: Any, end: Any, identity: Any) -> list[Span]:  # noqa: ARG002
        return [Span(self.url, at, min(at + SPAN_ROWS, end), start, end) for at in range(start, end, SPAN_ROWS)]

    def read(self, span: Span, columns: Collection[str] | None = None) -> Rows:
        table = (
            self._table
            if columns is None
            else self._table.select([n for n in self._table.column_names if n in columns])
        )
        return Rows(table.slice(span.start, span.end - span.start), span.file, span.start)

    def rest(self, file: str, start: int) -> list[Span]:
        return [Span(file, start, self._table.num_rows, start, self._table.num_rows)]

    def at(
        self, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None = None
    ) -> Rows:
        del raws  # rows have their types in the file
        rows = self.read(Span(file, 0, self._table.num_rows, 0, 0), columns)
        return Rows(rows.table.take(pa.array(offsets, pa.int64())), file, 0, tuple(offsets))
