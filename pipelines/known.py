"""The places that events have, for messages that name the nearest one to a place that none of them has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.errors import HeadraceError
from headrace.place import nearest_place
from pipelines.check import paths_in
from pipelines.jsonrecord import Refusal, load
from pipelines.lines import LineIndex
from pipelines.sources.base import Lines, Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from headrace.place import Path
    from headrace.shard import Range
    from pipelines.sources.base import Block, Source

__all__ = ["hint_for", "known_places"]

LOOKED = 100  # records


def hint_for(path: Path, source: Source, read: Range, *, feature: bool = False) -> str:
    """Of a place that no event of a range has: what they have that is called much like it; nothing if that is unknown.

    Reads the first piece of the range once more; used only on the way to an error.
    """
    try:
        spans = source.spans(read.partition, read.start, read.end, read.identity)
        return nearest_place(path, known_places(source.read(spans[0])), feature=feature) if spans else ""
    except (HeadraceError, OSError):
        return ""


def known_places(block: Block) -> set[Path]:
    """Every place that the first events of a block have."""
    if isinstance(block, Rows):
        return set(paths_in(block.table.schema))
    if not isinstance(block, Lines):
        return set()
    if block.header is not None:
        return {(name,) for name in block.header}
    index, found = LineIndex.of(block), set()
    for number in range(min(len(index), LOOKED)):
        try:
            found |= set(_inside(load(index.line(number))))
        except Refusal:
            continue
    return found


def _inside(record: Mapping[str, Any]) -> Iterator[Path]:
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield from ((name, *path) for path in _inside(value))
        else:
            yield (name,)
