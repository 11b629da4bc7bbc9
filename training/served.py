"""A version whole, as it is served: what an export is made of. Read from the log, without settings.

Its features, sizes and rows are those that the record and the files say, so that a version of an earlier lineage can be
exported like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.delta import Digest, decode_rows
from headrace.errors import DamagedFile, ExportRefused, NotFound, TowerRefused
from headrace.published import folded
from headrace.schema import Schema
from headrace.scoring import Scorer, TableView
from headrace.tower import Tower
from headrace.version import VersionRecord, path_to
from training.models import weight_shapes
from training.recipe import EMBEDDING, Architecture
from training.tower import has_tower, template_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.delta import TableSpec
    from headrace.loop import Loop
    from headrace.published import PublishedTable

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Say = Callable[[str], None]

BLOCK = 65_536


@dataclass(frozen=True)
class Served:
    """record, schema: of the version; weights: of its tower, as `training.models` names them, empty without one."""

    record: VersionRecord
    schema: Schema
    shape: Architecture
    table: PublishedTable
    weights: Mapping[str, Floats]

    @property
    def specs(self) -> tuple[TableSpec, ...]:
        return self.table.specs

    @property
    def standard(self) -> tuple[Floats, Floats]:
        """(mean float32 [k], scale float32 [k]) of the number features."""
        numbers, k = self.table.numbers, len(self.schema.numbers)
        return np.array(numbers.mean or [0.0] * k, np.float32), np.array(numbers.scale or [1.0] * k, np.float32)

    def blocks(self, spec: TableSpec, ids: Ids) -> Iterator[tuple[int, Floats]]:
        """(place of the first, rows float32 [up to BLOCK, width]) of `ids`, all of which have a row."""
        for start in range(0, len(ids), BLOCK):
            scale, rows, _ = self.table.lookup(spec.name, ids[start : start + BLOCK])
            yield start, decode_rows(scale, rows, spec)

    def scorer(self, ids: Mapping[str, Ids]) -> Scorer:
        """The server's scorer over the rows of some ids of each table; others count as unknown."""
        views = []
        for spec in self.specs:
            scale, rows, found = self.table.lookup(spec.name, ids[spec.name])
            views.append(TableView.of(spec, ids[spec.name][found], decode_rows(scale[found], rows[found], spec)))
        return Scorer(
            views,
            Tower(self.table.tower) if self.table.tower is not None else None,
            prior=self.record.prior,
            offset=self.record.offset,
            numbers=self.table.numbers,
            number_names=self.schema.numbers,
        )


def served(loop: Loop, version: int | None, say: Say) -> Served:
    """Version `version`; None: the one that replicas answer from. ExportRefused, DamagedFile, TowerRefused."""
    log = loop.version_log()
    head = log.head()
    if head is None:
        raise ExportRefused("the loop has no version yet", hint="run `headrace train`, then export")
    newest = VersionRecord.from_entry(head)
    number = newest.served if version is None else version

    def read(at: int) -> VersionRecord:
        return VersionRecord.from_entry(log.read(at))

    try:
        record = read(number)
        path = path_to(number, read, [newest.snapshot])
    except NotFound as gone:
        hint = "choose one of `headrace versions list`"
        raise ExportRefused(f"version {number} is not there, or not whole", hint=hint, version=number) from gone
    table = folded(loop.store, path, lambda files, of: say(f"version {number}: {files:,} of {of:,} files read"))
    if table.digest() != Digest.from_json(record.digest):
        raise DamagedFile(
            f"the files of version {number} do not give the digest that its record names",
            hint="run `headrace log verify --deep`",
            version=number,
        )
    if not table.digest().rows and table.tower is None:
        raise ExportRefused(
            f"version {number} has learned nothing: all that it could answer is the prior",
            hint="run `headrace train`, or choose one of `headrace versions list` with --version",
            version=number,
        )
    schema = Schema.from_json(record.schema)
    shape = _shape_of(record, schema)
    return Served(record, schema, shape, table, _weights_of(shape, table, number))


def _shape_of(record: VersionRecord, schema: Schema) -> Architecture:
    model: Mapping[str, Any] = record.model
    embedding = next((table for table in model["tables"] if table["name"] == EMBEDDING), None)
    sizes = {name: model[name] for name in ("cross_layers", "cross_rank") if name in model}
    if "hidden" in model:
        sizes["hidden"] = tuple(model["hidden"])
    if embedding is not None:
        sizes["dim"] = embedding["width"]
    fields = len(embedding["features"]) if embedding is not None else 0
    return Architecture(kind=model["kind"], fields=fields, numbers=len(schema.numbers), **sizes)


def _weights_of(shape: Architecture, table: PublishedTable, number: int) -> dict[str, Floats]:
    if not has_tower(shape):
        return {}
    if table.tower is None:
        raise DamagedFile(f"version {number} has no tower", hint="run `headrace log verify --deep`", version=number)
    sizes = weight_shapes(shape)
    try:
        return template_of(shape, sizes).weights_of(table.tower, sizes)
    except TowerRefused as refused:
        raise TowerRefused(f"version {number}: {refused.message}", hint=refused.hint, version=number) from None
