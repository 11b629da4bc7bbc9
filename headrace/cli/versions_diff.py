"""`headrace versions diff`: what lies between the published tables of two versions.

A row has moved by |b - a|_2, both decoded (`headrace.delta.decode_rows`). Ids are hashes: they name a row, not a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.cli import terminal
from headrace.delta import decode_rows
from headrace.errors import NotFound
from headrace.ids import null_id, unknown_id
from headrace.published import folded
from headrace.version import VersionRecord, path_to

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headrace.delta import Change, Floats, Ids
    from headrace.loop import Loop
    from headrace.published import PublishedTable

MEASURED = ("log_loss", "auc", "calibration")


@dataclass(frozen=True)
class TableDiff:
    """One table. changed: rows of both versions whose bytes differ; most: (id, distance moved), farthest first."""

    name: str
    added: int
    removed: int
    changed: int
    same: int
    norm: float  # of all distances moved together
    most: tuple[tuple[int, float], ...]


def diff(loop: Loop, one: int, other: int, *, most: int) -> dict[str, Any]:
    """What `--json` prints. NotFound if a version does not exist or cannot be built any more."""
    log = loop.version_log()
    head = log.head()

    def read(version: int) -> VersionRecord:
        try:
            return VersionRecord.from_entry(log.read(version))
        except NotFound as gone:
            hint = "choose one of `headrace versions list`"
            raise NotFound(f"there is no version {version}", hint=hint, version=version) from gone

    records = [read(one), read(other)]
    known = [VersionRecord.from_entry(head).snapshot] if head is not None else []
    tables = [folded(loop.store, path_to(record.version, read, known)) for record in records]
    differences = tables_diff(*tables, most=most)
    return {
        "versions": [one, other],
        "tables": [vars(found) for found in differences],
        "tower": {
            "changed": records[0].digest.get("tower") != records[1].digest.get("tower"),
            "norm": [_norm_of(record, read) for record in records],
        },
        "ids": _names(records, [id_ for found in differences for id_, _ in found.most]),
        "numbers_changed": tables[0].numbers != tables[1].numbers,
        "offset": [record.offset for record in records],
        "evaluation": [dict(record.evaluation) for record in records],
    }


def as_text(found: dict[str, Any]) -> str:
    """The same for people."""
    one, other = found["versions"]
    counts = ("added", "removed", "changed", "same")
    rows = [(table["name"], *(table[name] for name in counts), f"{table['norm']:.4g}") for table in found["tables"]]
    farthest = [
        (table["name"], id_, f"{moved:.4g}", found["ids"].get(str(id_), ""))
        for table in found["tables"]
        for id_, moved in table["most"]
    ]
    parts = [
        terminal.table(rows, ("table", *counts, "moved by")) if rows else "no rows",
        terminal.table(farthest, ("table", "id", "moved by", "which")),
        f"tower: {_tower(**found['tower'])}\n"
        f"number statistics: {'changed' if found['numbers_changed'] else 'the same'}\n"
        "offset: {:.4f} -> {:.4f}".format(*found["offset"]),
        terminal.table(
            _measured(found["evaluation"]),
            ("measured", f"{one} live", f"{one} frozen", f"{other} live", f"{other} frozen"),
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def _norm_of(record: VersionRecord, read: Callable[[int], VersionRecord]) -> float | None:
    """Of the tower that the version has: what a hold refused, and what came before a rollback, is none of it."""
    while record.delta is None and record.table_of is not None:
        try:
            record = read(record.table_of)
        except NotFound:  # collected: a snapshot led past it
            return None
    return record.gate.get("norm") if record.delta is not None else None


def _names(records: Sequence[VersionRecord], ids: Sequence[int]) -> dict[str, str]:
    """What is known of ids: which stand for a missing value, and which for all ids without a row."""
    features = {feature["name"] for record in records for feature in record.schema["features"]}
    known = {null_id(name): f"{name}, missing" for name in features}
    known |= {unknown_id(name): f"{name}, all ids without a row" for name in features}
    return {str(id_): known[id_] for id_ in ids if id_ in known}


def _tower(changed: bool, norm: Sequence[float | None]) -> str:
    before, after = (f"{one:.4g}" if one is not None else "-" for one in norm)
    return f"changed, norm {before} -> {after}" if changed else f"the same, norm {after}"


def _measured(evaluations: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    sides = [evaluation.get(who, {}) for evaluation in evaluations for who in ("live", "frozen")]
    return [(name, *(terminal.figure(side.get(name)) for side in sides)) for name in MEASURED]


def tables_diff(before: PublishedTable, after: PublishedTable, *, most: int) -> list[TableDiff]:
    """Table by table, in the order of `after`; a table that only one of them has is all removed or all added."""
    ours = {change.spec.name: change for change in before.snapshot(0).changes}
    theirs = {change.spec.name: change for change in after.snapshot(0).changes}
    return [_table_diff(name, ours.get(name), theirs.get(name), most) for name in {**theirs, **ours}]


def _table_diff(name: str, before: Change | None, after: Change | None, most: int) -> TableDiff:
    if before is None or after is None or before.spec != after.spec:
        return TableDiff(name, len(after.ids) if after else 0, len(before.ids) if before else 0, 0, 0, 0.0, ())
    ids, at, to = np.intersect1d(before.ids, after.ids, assume_unique=True, return_indices=True)
    differ = (before.rows[at] != after.rows[to]).any(axis=1) | (before.scale[at] != after.scale[to])
    moved = _decoded(after, to[differ]) - _decoded(before, at[differ])
    distance = np.sqrt((moved.astype(np.float64) ** 2).sum(axis=1))
    return TableDiff(
        name=name,
        added=len(after.ids) - len(ids),
        removed=len(before.ids) - len(ids),
        changed=int(differ.sum()),
        same=int(len(ids) - differ.sum()),
        norm=float(np.sqrt((distance**2).sum())),
        most=_farthest(ids[differ], distance, most),
    )


def _farthest(ids: Ids, distance: np.ndarray, most: int) -> tuple[tuple[int, float], ...]:
    order = np.argsort(-distance, kind="stable")[:most]
    return tuple((int(ids[at]), float(distance[at])) for at in order)


def _decoded(change: Change, at: np.ndarray) -> Floats:
    return decode_rows(change.scale[at], change.rows[at], change.spec)
