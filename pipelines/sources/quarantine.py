"""A source, and beside its own partitions the refused events of it that are read again: partition `_quarantine`.

No partition of a pattern has a name that begins with `_`. A position is how many events were read again so far; it
moves only when an operator asks (`pipelines.retry`), so that `reach` never finds anything.

    identity   {"request": seq, "picks": [{"path", "sha256": of a file of refused events, "rows": [[low, high), …]}]}
               of the events that the range reads, None of a range that reads none. A record that names a file keeps it
    aside      {path of a file of refused events: [[low, high), …]}: all rows that were read again

A file that was broken, and can be read now, counts as one in the position, and is read from where it was broken.
An event is read where it stands in its source. What quarantine has of a line is as good if it is the whole line,
so that they can be read again when their file is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from headrace.quarantine import read_quarantine
from headrace.shard import Quarantine
from headrace.store import open_store
from pipelines.sources.base import Block, Reach, Span

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import pyarrow as pa

    from pipelines.sources.base import Lines, Rows, Source

__all__ = ["BROKEN", "BROKEN_PIECE", "RETRIED", "Picked", "QuarantineSource", "kept_events", "places", "rows_in"]

RETRIED = "_quarantine"
BROKEN = "broken_file"  # one refused event that stands for all of a file
BROKEN_PIECE = "broken_piece"  # or for some of it, which stays so
PIECE = 4_096  # events


@dataclass(frozen=True)
class Picked(Span):
    """Events of one file of a source; rows: where they stand in a file of refused events; start, end: count them."""

    path: str = ""
    sha256: str = ""
    rows: tuple[int, ...] = ()


class QuarantineSource:
    """`source`, with the partition of what is read again; `store_url`: of the loop."""

    def __init__(self, store_url: str, source: Source) -> None:
        self.url = source.url
        self._store_url, self._source = store_url, source

    def __reduce__(self) -> tuple[Any, ...]:
        return QuarantineSource, (self._store_url, self._source)

    def partitions(self) -> Sequence[str]:
        return self._source.partitions()

    def first(self, partition: str) -> Any:
        return 0 if partition == RETRIED else self._source.first(partition)

    def reach(
        self, partition: str, committed: Any, identity: Any, *, max_bytes: int, drain: bool, aside: Any = None
    ) -> Reach | None:
        if partition == RETRIED:
            return Reach(committed, None, 0, caught_up=True)
        return self._source.reach(partition, committed, identity, max_bytes=max_bytes, drain=drain, aside=aside)

    def spans(self, partition: str, start: Any, end: Any, identity: Any) -> list[Span]:
        if partition != RETRIED:
            return self._source.spans(partition, start, end, identity)
        found: list[Span] = []
        for pick in identity["picks"]:
            table, rows = kept_events(self._store_url, pick["path"], pick["sha256"]), rows_in(pick["rows"])
            files = [row for row in rows if table["reason"][row].as_py() == BROKEN]
            found += self.pieces(pick["path"], pick["sha256"], [row for row in rows if row not in set(files)])
            found += [span for file, start in places(table, files) for span in self.rest(file, start)]
        return found

    def rest(self, file: str, start: int) -> list[Span]:
        return self._source.rest(file, start)

    def pieces(self, path: str, sha256: str, rows: Sequence[int]) -> list[Span]:
        """Rows of a file of refused events as pieces, each of events of one file, which is needed for all or none."""
        table = kept_events(self._store_url, path, sha256)
        groups: dict[tuple[str, bool], list[int]] = {}
        for row, (file, _) in zip(rows, places(table, rows), strict=True):
            groups.setdefault((file, _whole(table, row) is None), []).append(row)
        return [
            Picked(file, at, at + len(some), 0, len(mine), path=path, sha256=sha256, rows=some)
            for (file, _), mine in groups.items()
            for at in range(0, len(mine), PIECE)
            for some in [tuple(mine[at : at + PIECE])]
        ]

    def read(self, span: Span, columns: Collection[str] | None = None) -> Block:
        if not isinstance(span, Picked):
            return self._source.read(span, columns)
        table = kept_events(self._store_url, span.path, span.sha256)
        offsets = [offset for _, offset in places(table, span.rows)]
        raws = {offset: _whole(table, row) for offset, row in zip(offsets, span.rows, strict=True)}
        known = {offset: raw for offset, raw in raws.items() if raw is not None}
        return self._source.at(span.file, offsets, known, columns)

    def at(
        self, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None = None
    ) -> Lines | Rows:
        return self._source.at(file, offsets, raws, columns)


@lru_cache(maxsize=16)
def kept_events(store_url: str, path: str, sha256: str) -> pa.Table:
    """A file of refused events, once per process. `DamagedFile`, `NewerFormat`, `NotFound`."""
    return read_quarantine(open_store(store_url), Quarantine(path, sha256, 0, {}))


def _whole(table: pa.Table, row: int) -> bytes | None:
    """The bytes of an event, if quarantine has all of them."""
    raw: bytes | None = table["raw"][row].as_py()
    return raw if raw is not None and len(raw) == table["size"][row].as_py() else None


def places(table: pa.Table, rows: Iterable[int]) -> list[tuple[str, int]]:
    """(file, offset) of rows of a file of refused events."""
    column = table["offset"]
    return [(file, int(offset)) for file, _, offset in (column[row].as_py().rpartition(":") for row in rows)]


def rows_in(ranges: Iterable[Sequence[int]]) -> list[int]:
    """
    >>> rows_in([[0, 2], [5, 6]])
    [0, 1, 5]
    """
    return [row for low, high in ranges for row in range(low, high)]
