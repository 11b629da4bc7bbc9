"""Control records: going back to an earlier version, and keeping replicas at one. Appended to the version log itself.

A control record comes from the CLI or a server, at any time, from any host: the log is the lock. If another writer has
the number, the record is planned anew on top of that one's. Its `gate` says who asked, and why:

    {"action": "rollback" | "pin", "by": "ada@host", "reason": "…"}

Refused before anything is written: a version that does not exist, is no longer kept, or cannot be built any more; one
of another lineage; one that a trainer cannot go back to, since its way there (the newest checkpoint at or before it,
and the shards learned since) is not kept whole. A rollback changes what is served and what is learned from; a pin only
what is served.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headrace import __version__
from headrace.errors import HeadraceError, InvalidTarget, LostRace, NotFound
from headrace.version import VersionRecord, path_to, pin_of, rollback_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.log import Entry, Log
    from headrace.loop import Loop

    Read = Callable[[int], VersionRecord]

MODEL = "default"
MOST_SHOWN = 5


def rollback(loop: Loop, to: int, *, by: str, reason: str, now_us: int, model: str = MODEL) -> Entry:
    """Appends the record that goes back to version `to`. NotFound, InvalidTarget; each says which versions can be."""

    def planned(head: VersionRecord, read: Read) -> VersionRecord:
        return planned_rollback(loop, head, to, read, now_us=now_us)

    return _append(loop, model, planned, {"action": "rollback", "by": by, "reason": reason})


def planned_rollback(loop: Loop, head: VersionRecord, to: int, read: Read, *, now_us: int) -> VersionRecord:
    """The record that goes back to version `to`, not yet appended. NotFound, InvalidTarget."""
    _check_rollback(loop, head, to, read)
    return rollback_of(head, to, read, now_us=now_us, code=__version__)


def pin(loop: Loop, to: int | None, *, by: str, reason: str, now_us: int, model: str = MODEL) -> Entry:
    """Appends the record that keeps replicas at version `to`, or (None) ends that. NotFound, InvalidTarget."""

    def planned(head: VersionRecord, read: Read) -> VersionRecord:
        if to is None and head.pinned is None:
            raise InvalidTarget("no version is pinned", hint="nothing to do: replicas serve the newest version")
        if to is not None:
            _read(read, to, head)
            path_to(to, read)  # what is kept for it while it is pinned; a snapshot that a later one names is not
        return pin_of(head, to, now_us=now_us, code=__version__)

    return _append(loop, model, planned, {"action": "pin", "by": by, "reason": reason})


def reachable(loop: Loop, model: str = MODEL) -> Iterator[int]:
    """Versions that can be gone back to, newest first; the one that is served now is left out."""
    log = loop.version_log(model)
    entry = log.head()
    if entry is None:
        return
    head, read = VersionRecord.from_entry(entry), _reader(log)
    for version in reversed(log.seqs()):
        try:
            _check_rollback(loop, head, version, read)
        except HeadraceError:
            continue
        yield version


def _append(
    loop: Loop, model: str, planned: Callable[[VersionRecord, Read], VersionRecord], gate: dict[str, str]
) -> Entry:
    log = loop.version_log(model)
    head = log.head()
    while True:
        if head is None:
            raise NotFound("there is no version yet", hint="start `headrace train` or `headrace serve` first")
        record = planned(VersionRecord.from_entry(head), _reader(log))
        record = replace(record, gate={**record.gate, **gate})
        try:
            return log.append(record.kind, record.to_body(), head)
        except LostRace as lost:
            head = lost.context["winner"]


def _reader(log: Log) -> Read:
    return lambda version: VersionRecord.from_entry(log.read(version))


def _read(read: Read, version: int, head: VersionRecord) -> VersionRecord:
    """The record of `version`, or NotFound with a hint."""
    if version > head.version or version < 0:
        raise NotFound(
            f"there is no version {version}: the newest is {head.version}",
            hint="choose one of `headrace versions list`",
            version=version,
        )
    try:
        return read(version)
    except NotFound as gone:
        raise NotFound(
            f"version {version} is no longer kept",
            hint="choose one of `headrace versions list`; [retention] rollback_s says how long versions are kept",
            version=version,
        ) from gone


def _check_rollback(loop: Loop, head: VersionRecord, to: int, read: Read) -> None:
    target = _read(read, to, head)
    if target.lineage != head.lineage:
        raise InvalidTarget(
            f"version {to} belongs to the lineage of version {target.lineage}, not to that of {head.lineage}: "
            "its features or its model are other ones",
            hint="restore the settings of that time and start the trainer: it begins a lineage with them",
            version=to,
        )
    if to == head.version or _table(head, read) == _table(target, read):
        raise InvalidTarget(
            f"version {to} has the parameters that version {head.version} has",
            hint="nothing to do; choose an earlier one of `headrace versions list`",
            version=to,
        )
    path_to(to, read, [head.snapshot])
    _check_trainer(loop, to, read)


def _table(record: VersionRecord, read: Read) -> int:
    """The version that made the table which `record` has."""
    while record.kind in ("hold", "pin", "rollback") or (record.kind == "delta" and record.delta is None):
        base = record.table_of
        if base is None:
            break
        record = read(base)
    return record.version


def _check_trainer(loop: Loop, to: int, read: Read) -> None:
    """InvalidTarget unless a trainer can restore version `to`: a checkpoint or the start, and the shards since."""
    shards = loop.shard_log()
    at: int | None = to
    known: set[int] = set()
    try:
        while at is not None:
            record = read(at)
            if record.checkpoint is not None:
                known.add(record.checkpoint.of)
            if at in known:
                return
            for low, high in record.trained if record.kind == "delta" else ():
                for seq in range(low, high):
                    shards.read(seq)
            at = record.table_of
    except NotFound as gone:
        raise InvalidTarget(
            f"version {to} cannot be gone back to: what its trainer would need is no longer kept ({gone.message})",
            hint="choose a later one of `headrace versions list`; `headrace pin` can still serve it",
            version=to,
        ) from gone
