"""Blocks of a source -> events: the one entry to parsing, whatever the format.

The byte cap comes first, then the parser of the format, then the checks that all formats share (`pipelines.check`).
The result is a pure function of the block, the stream and the limits.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipelines.check import check
from pipelines.csvlines import parse_csv
from pipelines.events import RAW_BYTES, UNATTRIBUTED, Columns, Limits, Parsed, Refused, Stream
from pipelines.jsonlines import parse_json
from pipelines.lines import LineIndex
from pipelines.rows import parse_rows
from pipelines.sources.base import Block, Broken, Lines, Rows

if TYPE_CHECKING:
    import numpy as np

__all__ = ["parse"]


def parse(stream: Stream, limits: Limits, block: Block) -> Parsed:
    """Accepted and refused events of one block."""
    if isinstance(block, Broken):  # one refused event stands for all that it may have held
        reason = "broken_piece" if block.piece else "broken_file"
        refused = (Refused(block.start, reason, block.raw[:RAW_BYTES], block.size),) if stream.first else ()
        return Parsed((), refused)
    if isinstance(block, Rows):
        return parse_rows(stream, limits, block)
    return _lines(stream, limits, block)


def _lines(stream: Stream, limits: Limits, block: Lines) -> Parsed:
    index = LineIndex.of(block)
    pieces, refused = (parse_json if block.header is None else parse_csv)(stream, limits, index)
    parts = [_checked(stream, limits, columns, index, lines) for columns, lines in pieces]
    if not stream.first:
        refused = [one for one in refused if one.reason not in UNATTRIBUTED]
    every = sorted([*refused, *(one for part in parts for one in part.refused)], key=lambda one: one.offset)
    unseen = frozenset.intersection(*(part.unseen for part in parts)) if parts else frozenset()
    return Parsed(
        events=tuple(table for part in parts for table in part.events if table.num_rows),
        refused=tuple(every),
        passed=sum(part.passed for part in parts),
        unseen=frozenset(name for name in unseen if not _named(stream, name, block)),
    )


def _checked(stream: Stream, limits: Limits, columns: Columns, index: LineIndex, lines: np.ndarray) -> Parsed:
    def raw(row: int) -> tuple[bytes, int]:
        line = index.line(int(lines[row]))
        return line, len(line)

    return check(stream, limits, columns, index.offsets[lines], raw)


def _named(stream: Stream, feature: str, block: Lines) -> bool:
    """Whether the key of a feature stands in the block at all, if only with null."""
    path = next(f.path for f in stream.features if f.name == feature)
    return block.header is not None or json.dumps(path[-1]).encode() in block.data
