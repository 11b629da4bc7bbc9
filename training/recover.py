"""Recovery: the newest checkpoint, and the shards since then with the decisions that the log recorded.

What was learned is learned again, in the same batches, from the records that each version names as trained; what was
held is left out; a rollback leads to the version that it names. Nothing is published: the published table is the fold
of the committed deltas. What was learned again counts as touched, so that a difference between the two (other rates,
another machine) goes out with the next version. On the machine and TensorFlow that wrote the checkpoint, with the same
settings, the result is bit-equal to a run that was never interrupted (training/runtime.py has the conditions);
elsewhere it is valid training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace import lines
from headrace.delta import Digest, load_delta
from headrace.errors import DamagedFile, NotFound
from headrace.published import PublishedTable
from headrace.version import Kept, VersionRecord, path_to
from training.checkpoint import read_checkpoint, same_machine
from training.state import State

if TYPE_CHECKING:
    from headrace.delta import Delta
    from headrace.store import Store
    from training.examples import Examples
    from training.recipe import Design

Read = Callable[[int], VersionRecord]


@dataclass(frozen=True)
class Plan:
    """Load `checkpoint` (None = begin anew), then learn what the versions of `replay` learned, oldest first."""

    checkpoint: Kept | None
    replay: tuple[VersionRecord, ...]


def plan_of(version: int, read: Read) -> Plan:
    """The shortest way to the state of `version`, walking back over bases to a checkpoint or to the start."""
    known: dict[int, Kept] = {}
    replay: list[VersionRecord] = []
    at: int | None = version
    while at is not None:
        record = read(at)
        if record.checkpoint is not None:
            known.setdefault(record.checkpoint.of, record.checkpoint)
        if at in known:
            return Plan(known[at], tuple(reversed(replay)))
        if record.kind == "delta" and record.trained:
            replay.append(record)
        at = record.table_of
    return Plan(None, tuple(reversed(replay)))


def recovered(store: Store, design: Design, plan: Plan, examples_of: Callable[[int], Examples]) -> State:
    """The state that `plan` leads to. examples_of: the rows of a shard record, by its number."""
    state = State(design)
    if plan.checkpoint is not None:
        meta = read_checkpoint(store, plan.checkpoint, state)
        if not same_machine(meta):
            lines.TRAINER_OTHER_MACHINE("valid training, perhaps other bits", checkpoint=plan.checkpoint.path)
    for record in plan.replay:
        for low, high in record.trained:
            for seq in range(low, high):
                state.learn(examples_of(seq), record.batch)
        if state.frozen_of is None and record.delta is not None:
            state.frozen_of = record.version
    return state


def published_at(store: Store, design: Design, version: int, read: Read) -> PublishedTable:
    """The published table of a version: the fold of snapshot and deltas. DamagedFile if its digest is another one."""
    table = PublishedTable(design.tables)
    path = path_to(version, read)
    named = [path.snapshot] if path.snapshot else []
    for file in [*named, *(record.delta for record in path.deltas)]:
        assert file is not None
        table.apply(load_delta(store, file.path, file.sha256))
    _check_digest(table, read(version))
    return table


def _check_digest(table: PublishedTable, record: VersionRecord) -> None:
    if table.digest() != Digest.from_json(record.digest):
        raise DamagedFile(
            f"the deltas up to version {record.version} do not give the digest that its record names",
            hint="run `headrace log verify --deep`",
            version=record.version,
        )


def published_since(
    store: Store, design: Design, anchor: int, version: int, read: Read
) -> tuple[PublishedTable, list[Delta]]:
    """The published table of `version`, and the inverses of the deltas that lead to it from `anchor`.

    NotFound if `anchor` cannot be reached, or is not on the way. DamagedFile as `published_at`.
    """
    deltas: list[VersionRecord] = []
    at: int | None = version
    while at != anchor:
        if at is None or at < anchor:
            raise NotFound(f"version {anchor} is not among those that version {version} comes from")
        record = read(at)
        deltas += [record] if record.delta is not None else []
        at = record.table_of
    table, inverses = published_at(store, design, anchor, read), []
    for record in reversed(deltas):
        assert record.delta is not None
        delta = load_delta(store, record.delta.path, record.delta.sha256)
        inverses.append(table.inverse(delta))
        if inverses[-1].is_snapshot:
            raise NotFound(f"version {version} has other parts than version {anchor}")
        table.apply(delta)
    _check_digest(table, read(version))
    return table, inverses
