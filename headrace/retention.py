"""What may go: pure rules over what the records of the logs say (DESIGN.md, rule 6; deciding only, nothing is deleted).

A log loses its oldest records first, so that one number per log says it all: the oldest record to keep. A file goes
when no retained record names it (`headrace.log.garbage`).

**Version log.** Every version of the last `max(versions_s, rollback_s, followers)` seconds can be built and gone back
to; so can the newest, the pinned one, and the one that answers meanwhile. For each, the way back to a checkpoint (its
record, and those between) and to a snapshot is kept, which keeps the newest checkpoint and snapshot, too.

**Shard log.** Kept are: the newest record; what a trainer learns again from any retained version on (from the cursor of
the oldest one, and whatever was released and learned later); what a model has not learned yet; held records until
`held_s` after their commit (`expired`); what the followers may have missed. Without a model, or while one has a version
with no cursor, nothing goes: somebody will want to begin with the first record.

**Requests.** What every model and the pipeline have answered goes after `versions_s`, but for the record under the
oldest cursor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.clock import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headrace.config import Settings
    from headrace.version import Ranges, VersionRecord

__all__ = [
    "Terms",
    "VersionFact",
    "expired",
    "fact_of",
    "files_named",
    "oldest_request",
    "oldest_shard",
    "oldest_version",
    "terms_of",
]


@dataclass(frozen=True)
class Terms:
    """How long things are kept, in microseconds since the commit of a record; `followers_us`: the longest absence."""

    versions_us: int
    rollback_us: int
    held_us: int
    followers_us: int = 0

    @property
    def reach_us(self) -> int:
        """For how long a version can be built and gone back to."""
        return max(self.versions_us, self.rollback_us, self.followers_us)


@dataclass(frozen=True)
class VersionFact:
    """What retention asks of a version record; checkpoint, snapshot: the versions that the newest of each hold."""

    table_of: int | None
    created_us: int
    checkpoint: int | None
    snapshot: int | None
    cursor: int | None
    oldest_trained: int | None
    held_now: Ranges
    pinned: int | None
    meanwhile: int | None
    answered: int | None  # the newest request


def terms_of(settings: Settings) -> Terms:
    """`[retention]` and `[followers]`."""
    kept = settings.retention
    times = (kept.versions_s, kept.rollback_s, kept.held_s, max(settings.followers.values(), default=0.0))
    return Terms(*(round(seconds * SECOND_US) for seconds in times))


def fact_of(record: VersionRecord) -> VersionFact:
    asked = record.requests.get("cursor")
    return VersionFact(
        table_of=record.table_of,
        created_us=record.created_at_us,
        checkpoint=record.checkpoint.of if record.checkpoint else None,
        snapshot=record.snapshot.of if record.snapshot else None,
        cursor=record.cursor.seq if record.cursor else None,
        oldest_trained=min((low for low, _ in record.trained), default=None),
        held_now=record.held_now,
        pinned=record.pinned,
        meanwhile=record.meanwhile,
        answered=int(asked["seq"]) if asked else None,
    )


def expired(committed_at_us: int, now_us: int, held_us: int) -> bool:
    """Whether a held shard record that was committed then can no longer be released.

    >>> expired(1_000, 1_500, 500), expired(1_000, 1_501, 500)
    (False, True)
    """
    return now_us - committed_at_us > held_us


def oldest_version(facts: Mapping[int, VersionFact], now_us: int, terms: Terms) -> int:
    """The oldest version record to keep. facts: of every retained version, at least one."""
    head = max(facts)
    within = [version for version, fact in facts.items() if now_us - fact.created_us <= terms.reach_us]
    first = min([*within, head])
    if first - 1 in facts:  # was the newest when the time that counts began
        first -= 1
    starts = {first}
    for version, fact in facts.items():
        if version >= first and fact.table_of is not None and fact.table_of < first:
            starts.add(version)
    newest = facts[head]
    named = (newest.pinned, newest.meanwhile, newest.checkpoint)
    starts.update(one for one in named if one is not None and one in facts)
    return min(
        low for start in starts for low in (_way_back(facts, start, "checkpoint"), _way_back(facts, start, "snapshot"))
    )


def _way_back(facts: Mapping[int, VersionFact], version: int, to: str) -> int:
    """The lowest version on the way from `version` to a checkpoint or snapshot that a record on the way names."""
    named: set[int] = set()
    low = version
    at: int | None = version
    while at is not None and at in facts:
        low = min(low, at)
        of = getattr(facts[at], to)
        if of is not None:
            named.add(of)
        if at in named:
            break
        at = facts[at].table_of
    return low


def oldest_shard(
    committed_us: Mapping[int, int], models: Sequence[Mapping[int, VersionFact]], now_us: int, terms: Terms
) -> int:
    """The oldest shard record to keep. committed_us: of every retained one; models: the versions retained of each."""
    first, head = min(committed_us), max(committed_us)
    if not models:
        return first
    needed = [head]
    needed += [seq for seq, at_us in committed_us.items() if now_us - at_us <= terms.followers_us]
    for facts in models:
        for version, fact in facts.items():
            needed.append(first if fact.cursor is None else fact.cursor)
            if version > min(facts) and fact.oldest_trained is not None:
                needed.append(fact.oldest_trained)
        for low, high in facts[max(facts)].held_now:
            held = (seq for seq in range(max(low, first), min(high, head + 1)) if seq in committed_us)
            needed += [seq for seq in held if not expired(committed_us[seq], now_us, terms.held_us)]
    return max(first, min(needed))


def oldest_request(asked_us: Mapping[int, int], answered: Sequence[int | None], now_us: int, terms: Terms) -> int:
    """The oldest request to keep. asked_us: of every retained one; answered: the newest that each stage answered."""
    young = [seq for seq, at_us in asked_us.items() if now_us - at_us <= terms.versions_us]
    known = [seq for seq in answered if seq is not None]
    if not known or len(known) < len(answered):
        return min(asked_us)
    return max(min(asked_us), min([*known, *young]))


def files_named(body: Any) -> Iterator[str]:
    """Path of every `{"path", "sha256", …}` in a record's body, details included."""
    if isinstance(body, dict):
        if isinstance(body.get("path"), str) and isinstance(body.get("sha256"), str):
            yield body["path"]
        for value in body.values():
            yield from files_named(value)
    elif isinstance(body, list | tuple):
        for value in body:
            yield from files_named(value)
