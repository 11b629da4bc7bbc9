"""The first version of a lineage: answers the prior, has no parameters, needs no TensorFlow to make."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace import __version__, clock, lines
from headrace.delta import Digest
from headrace.errors import Busy, ImportRefused, LostRace
from headrace.version import VersionRecord
from training.recipe import Design, design_of

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.log import Entry
    from headrace.loop import Loop
    from headrace.schema import Schema
    from headrace.status import Claim


def write_start(loop: Loop, settings: Settings, *, now_us: clock.Now = clock.now_us) -> Entry:
    """Appends a `start` record: a new loop, or other features or another model than before. LostRace.

    What operators said outlives the lineage: the pin, and the requests that were answered. What the lineage before has
    learned answers until this one has learned something.
    """
    log = loop.version_log()
    head = log.head()
    record = start_after(head, settings, now_us=now_us())
    return log.append(record.kind, record.to_body(), head)


def begin_lineage(loop: Loop, settings: Settings, claim: Claim, *, now_us: clock.Now) -> None:
    """A `start` record, if the log is empty or its head has another model or other features. Busy beside a living
    holder of `claim`."""
    head = loop.version_log().head()
    schema = settings.schema()
    if head is not None and continues(VersionRecord.from_entry(head), design_of(settings, schema), schema):
        return
    claim.check()
    with contextlib.suppress(LostRace):  # to one that began at the same time: `check_continues` looks whether it fits
        begun = VersionRecord.from_entry(write_start(loop, settings, now_us=now_us))
        if head is not None:
            until = f"; version {begun.served} answers till then" if begun.served != begun.version else ""
            lines.LINEAGE_BEGUN(f"other features or another model; it learns anew{until}", after=head.seq)


def start_after(head: Entry | None, settings: Settings, *, now_us: int) -> VersionRecord:
    """The `start` record that follows `head`, the newest of the version log."""
    record = start_record(
        design_of(settings, settings.schema()),
        settings.schema(),
        version=0 if head is None else head.seq + 1,
        prior=settings.loop.prior,
        now_us=now_us,
    )
    if head is None:
        return record
    before = VersionRecord.from_entry(head)
    requests: dict[str, Any] = {"cursor": before.requests.get("cursor"), "outcomes": []}
    return replace(record, pinned=before.pinned, meanwhile=_learned(before), requests=requests)


def _learned(before: VersionRecord) -> int | None:
    """The version that answers as long as the lineage after `before` has learned nothing; None if none has learned."""
    if before.meanwhile is not None:
        return before.meanwhile
    return before.version if before.cursor is not None else None


def start_record(design: Design, schema: Schema, *, version: int, prior: float, now_us: int) -> VersionRecord:
    """Version `version`: nothing trained, an empty published table."""
    return VersionRecord(
        version=version,
        kind="start",
        base=None,
        lineage=version,
        model=design.to_json(),
        schema=schema.to_json(),
        prior=prior,
        digest=Digest().to_json(),
        created_at_us=now_us,
        code=__version__,
        requests={"cursor": None, "outcomes": []},
    )


def check_begun(head: Entry | None) -> None:
    """ImportRefused if the loop has begun to learn: what it learned from would not be what it began with."""
    if head is not None and head.kind != "start":
        raise ImportRefused(
            f"the loop has learned already: it is at version {head.seq}",
            hint="import into a new loop: another `root` in [loop]",
            version=head.seq,
        )


def continues(record: VersionRecord, design: Design, schema: Schema) -> bool:
    """Whether a trainer with this design goes on from `record`, or must begin a new lineage."""
    return record.model == design.to_json() and record.schema == schema.to_json()


def check_continues(record: VersionRecord, design: Design, schema: Schema) -> None:
    """Busy if `record` is of a lineage that this trainer cannot go on from: another trainer began it."""
    if not continues(record, design, schema):
        raise Busy(
            f"version {record.version} belongs to another model ({record.model.get('kind')}) or has other features",
            hint="another trainer began a new lineage; start this one again with the settings that are wanted",
            version=record.version,
        )
