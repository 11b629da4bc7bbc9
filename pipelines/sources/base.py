"""What a source is: partitions with positions, read in bounded, repeatable pieces.

A position is a JSON value that only its source understands; the core compares positions for equality. An identity is a
JSON value that says what a position lies in (file name, size, hash), so that a replaced source is noticed. What it must
remember of all its past is an `aside`: a JSON value in a file that records share, so that no record grows with it.

    partitions   may list; must not read events
    reach        how far a tick may read from a committed position. Checks the identity first and raises SourceVanished,
                 SourceChanged or SourceTruncated; None = the end is not known at present (an outage, not idleness)
    spans        cuts a committed or planned range into pieces of one parse each; same range, same pieces, for ever
    read         one piece; may block, has no side effects, returns the same block every time
    rest         all pieces of one file from a unit on; SourceVanished, SourceError where it is not whole
    at           the events at some offsets of a file, in this order, as one block; `raws`: the bytes of those that are
                 known whole, which a source of lines need not read again. SourceVanished, SourceError

A source is picklable: a URL and options. Reading happens in workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pyarrow as pa

__all__ = ["Block", "Broken", "Extent", "Gap", "Lines", "Reach", "Rows", "Source", "Span"]

SPAN_BYTES = 4 << 20


@dataclass(frozen=True)
class Reach:
    """How far to read: `[committed, position)` holds about `size` bytes; `caught_up`: nothing lies behind it.

    `aside`: to be given to `reach` from the next record on; None = what was given before. `awaited`: the file that is
    not whole as it is, and may become so.
    """

    position: Any
    identity: Any
    size: int
    caught_up: bool
    aside: Any = None
    awaited: str = ""


@dataclass(frozen=True)
class Extent:
    """What of a file can be read: its first `units` (rows, or bytes of text).

    `torn`: something lies behind them, which (`hopeless`) no further bytes can make whole.
    """

    units: int
    torn: bool = False
    hopeless: bool = False


@dataclass(frozen=True)
class Gap:
    """Bytes `[start, end)` of a file that can never be read, though what follows can; `unit`: the first behind them."""

    unit: int
    start: int
    end: int


@dataclass(frozen=True)
class Span:
    """One piece of a range: `[start, end)` of `file`, in bytes or rows; the range itself is `[low, high)` there.

    `torn`: size in bytes that the file had when what lies behind `start` could not be read; the piece is all of that.
    `gap`: the piece is that. `gaps`: those before `end`, which are passed over on the way to the piece.
    """

    file: str
    start: int
    end: int
    low: int
    high: int
    torn: int | None = None
    gap: Gap | None = None
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True)
class Lines:
    """Whole lines of text; `start` is the offset of the first byte. `header`: column names of CSV, None for JSON.

    `separator`: what stands between the fields of CSV. `offsets`: of each line, where they do not follow each other in
    the file.
    """

    data: bytes
    file: str
    start: int
    header: tuple[str, ...] | None = None
    offsets: tuple[int, ...] | None = None
    separator: str = ","


@dataclass(frozen=True)
class Rows:
    """Typed rows; `start` is the number of the first. `offsets`: of each, where they do not follow each other."""

    table: pa.Table
    file: str
    start: int
    offsets: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Broken:
    """A file, or (`piece`) some of it from `start`, that its format cannot read. raw: first bytes; size: its own."""

    file: str
    start: int
    raw: bytes
    size: int
    piece: bool = False


Block = Lines | Rows | Broken


class Source(Protocol):
    url: str

    def partitions(self) -> Sequence[str]: ...
    def first(self, partition: str) -> Any: ...
    def reach(
        self, partition: str, committed: Any, identity: Any, *, max_bytes: int, drain: bool, aside: Any = None
    ) -> Reach | None: ...
    def spans(self, partition: str, start: Any, end: Any, identity: Any) -> list[Span]: ...
    def read(self, span: Span, columns: Collection[str] | None = None) -> Block: ...
    def rest(self, file: str, start: int) -> list[Span]: ...
    def at(
        self,
        file: str,
        offsets: Sequence[int],
        raws: Mapping[int, bytes],
        columns: Collection[str] | None = None,
    ) -> Lines | Rows: ...
