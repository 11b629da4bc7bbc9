"""What a record of the version log says, and how the log folds into published tables.

A version is one committed change of a model. Its record (log `models/<model>/log/`, `seq` = the version's number) has

    kind          start | delta | hold | rollback | pin
    base          the version whose published table this one changes; null for start
    to            rollback, pin: the version gone back to, or pinned (pin with null = unpinned)
    pinned        the version that replicas serve whatever comes after; null = the newest. Repeated in every record
    meanwhile     the version of an earlier lineage that replicas serve as long as this one has learned nothing,
                  repeated till then; else not there
    model         {"kind", "tables": [{"name", "width", "encoding", "features"}], …}: what a server needs to score
    schema        the features, whole (`Schema.to_json`)
    lineage       version of the `start` record of the history that this one belongs to
    cursor        {"seq", "sha256"} of the newest shard record that was trained or held; null = none yet
    trained, held, released   numbers of shard records whose state this record changes: half-open ranges [from, to)
    held_now      all that are held after this record
    batch         rows of a step, where the clock chose them (training/pace.py); else not there
    due_until     number of the newest shard record that a trigger or a request said to learn, while one up to it waits;
                  else not there. The rest of a due backlog is learned after a restart, too
    watermark_us  of the newest shard record trained
    max_emit_us   greatest emit time among all rows in the lineage: no label that came later was learned from
    delta         {"path", "sha256", "bytes"} of the change (headrace/delta.py), null where the table is that of `base`
    digest        of the published table after this version
    prior, offset probability answered before anything is learned; added to every logit (calibration)
    evaluation, gate, verdicts   what was measured, what was decided, and later decisions on earlier versions
    checkpoint, snapshot         the newest of each {"of", "path", "sha256", "bytes"}; every record repeats both. The
                  checkpoint of a start holds the rows that the lineage begins with (`headrace import`), else null;
                  its gate says then from what they were taken
    requests      {"cursor", "outcomes": [{"seq", "outcome"}]}
    created_at_us, code

A control record (`rollback_of`, `pin_of`) repeats the head but for what it changes. A rollback takes from its target
all that says what is served: model, schema, prior, offset, digest, lineage, meanwhile, watermark_us, max_emit_us; it
keeps the cursor, holds every shard record that the head had learned and the target had not, and releases every one that
the target had learned and the head had not: one that goes forward again, over an earlier rollback, brings those back.

The table of a version is

    table(start) = empty      table(delta) = table(base) + delta      table(hold) = table(pin) = table(base)
    table(rollback) = table(to)

so each is reached from any snapshot on that path (`path_to`). Versions only grow; going back is a new version.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from headrace.errors import DamagedFile, NewerFormat, NotFound
from headrace.log import Cursor, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

KINDS = ("start", "delta", "hold", "rollback", "pin")

OPTIONAL = ("batch", "due_until", "meanwhile")
"""Fields that are not there where they are None."""

Ranges = tuple[tuple[int, int], ...]
"""Sets of record numbers as sorted, disjoint, half-open ranges."""


@dataclass(frozen=True)
class NamedFile:
    """A file that a record vouches for. `path` is relative to the root of the loop."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Kept:
    """A checkpoint or snapshot: written aside, real from the record on that names it. `of` is the version it holds."""

    of: int
    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class VersionRecord:
    """One version; the module's text describes the fields."""

    version: int
    kind: str
    base: int | None
    lineage: int
    model: Mapping[str, Any]
    schema: Mapping[str, Any]
    prior: float
    digest: Mapping[str, Any]
    created_at_us: int
    code: str
    to: int | None = None
    pinned: int | None = None
    cursor: Cursor | None = None
    trained: Ranges = ()
    held: Ranges = ()
    released: Ranges = ()
    batch: int | None = None
    due_until: int | None = None
    meanwhile: int | None = None
    held_now: Ranges = ()
    watermark_us: int | None = None
    max_emit_us: int | None = None
    delta: NamedFile | None = None
    offset: float = 0.0
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, Any] = field(default_factory=dict)
    verdicts: tuple[Mapping[str, Any], ...] = ()
    checkpoint: Kept | None = None
    snapshot: Kept | None = None
    requests: Mapping[str, Any] = field(default_factory=dict)

    @property
    def table_of(self) -> int | None:
        """The version whose table this one starts from; None = the empty table."""
        return self.to if self.kind == "rollback" else self.base

    @property
    def served(self) -> int:
        """The version that a replica answers from once it has folded this record."""
        return next(one for one in (self.pinned, self.meanwhile, self.version) if one is not None)

    def to_body(self) -> dict[str, Any]:
        """The JSON body of the record; `version` and `kind` are the log's `seq` and `kind`."""
        body = asdict(self)
        del body["version"], body["kind"]
        for name in OPTIONAL:
            if body[name] is None:
                del body[name]
        body["cursor"] = self.cursor.to_json() if self.cursor else None
        for name in ("trained", "held", "released", "held_now"):
            body[name] = [list(pair) for pair in getattr(self, name)]
        body["verdicts"] = [dict(verdict) for verdict in self.verdicts]
        return body

    @classmethod
    def from_entry(cls, entry: Entry) -> VersionRecord:
        """Reads an entry of the version log. NewerFormat for a kind this code does not know."""
        if entry.kind not in KINDS:
            raise NewerFormat(
                f"version {entry.seq} is of the unknown kind {entry.kind!r}",
                hint="this log was written by a newer headrace: upgrade this one",
                version=entry.seq,
            )
        try:
            names = cls.__dataclass_fields__.keys() - {"version", "kind", *OPTIONAL}
            body = {name: entry.body[name] for name in sorted(names)}
            body |= {name: entry.body.get(name) for name in OPTIONAL}
        except KeyError as missing:
            raise DamagedFile(
                f"version {entry.seq} has no field {missing}",
                hint="run `headrace log verify --deep`",
                version=entry.seq,
            ) from None
        for name in ("trained", "held", "released", "held_now"):
            body[name] = tuple((int(low), int(high)) for low, high in body[name])
        body["cursor"] = Cursor.from_json(body["cursor"]) if body["cursor"] else None
        body["delta"] = NamedFile(**body["delta"]) if body["delta"] else None
        for name in ("checkpoint", "snapshot"):
            body[name] = Kept(**body[name]) if body[name] else None
        body["verdicts"] = tuple(body["verdicts"])
        return cls(version=entry.seq, kind=entry.kind, **body)


@dataclass(frozen=True)
class Path:
    """How to build a table: load `snapshot` (None = start empty), then apply the deltas of `deltas` in order."""

    target: int
    snapshot: Kept | None
    deltas: tuple[VersionRecord, ...]


def path_to(version: int, read: Callable[[int], VersionRecord], known: Iterable[Kept | None] = ()) -> Path:
    """The shortest way to the table of `version`, walking back to a snapshot or to the empty table.

    read: the record of a version; NotFound when it is no longer retained.
    known: snapshots named by other records, usually the newest record's.
    Raises NotFound when neither a snapshot nor the start can be reached.
    """
    snapshots = {kept.of: kept for kept in known if kept is not None}
    deltas: list[VersionRecord] = []
    at: int | None = version
    while at is not None:
        if at in snapshots:
            return Path(version, snapshots[at], tuple(reversed(deltas)))
        try:
            record = read(at)
        except NotFound as gone:
            raise NotFound(
                f"version {version} cannot be reached: version {at} is no longer kept and no snapshot lies between",
                hint="choose a version from `headrace versions list`",
                version=version,
            ) from gone
        if record.snapshot is not None:
            snapshots.setdefault(record.snapshot.of, record.snapshot)
            if record.snapshot.of == at:
                continue
        if record.delta is not None:
            deltas.append(record)
        at = record.table_of
    return Path(version, None, tuple(reversed(deltas)))


def rollback_of(
    head: VersionRecord, to: int, read: Callable[[int], VersionRecord], *, now_us: int, code: str
) -> VersionRecord:
    """The record that goes back to version `to`. NotFound if its table cannot be reached any more."""
    target = read(to)
    path_to(to, read, [head.snapshot])
    forgotten, again = learned_apart(head, target, read)
    return replace(
        following(head, "rollback", now_us=now_us, code=code),
        to=to,
        model=target.model,
        schema=target.schema,
        prior=target.prior,
        offset=target.offset,
        digest=target.digest,
        lineage=target.lineage,
        meanwhile=target.meanwhile,
        watermark_us=target.watermark_us,
        max_emit_us=target.max_emit_us,
        held=forgotten,
        released=again,
        held_now=difference(union(head.held_now, forgotten), again),
    )


def pin_of(head: VersionRecord, to: int | None, *, now_us: int, code: str) -> VersionRecord:
    """The record that keeps replicas at version `to`; None = they follow the newest again. The trial goes on."""
    trial = {"trial": head.gate["trial"]} if "trial" in head.gate else {}
    return replace(following(head, "pin", now_us=now_us, code=code), to=to, pinned=to, gate=trial)


def following(head: VersionRecord, kind: str, *, now_us: int, code: str) -> VersionRecord:
    """The next record, as far as it repeats what `head` says."""
    return replace(
        head,
        version=head.version + 1,
        kind=kind,
        base=head.version,
        to=None,
        trained=(),
        held=(),
        released=(),
        batch=None,
        delta=None,
        evaluation={},
        gate={},
        verdicts=(),
        requests={"cursor": head.requests.get("cursor"), "outcomes": []},
        created_at_us=now_us,
        code=code,
    )


def union(*sets: Iterable[tuple[int, int]]) -> Ranges:
    """Set union.

    >>> union([(0, 3), (5, 6)], [(3, 5), (9, 10)])
    ((0, 6), (9, 10))
    """
    merged: list[tuple[int, int]] = []
    for low, high in sorted(pair for ranges in sets for pair in ranges):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def difference(ranges: Iterable[tuple[int, int]], minus: Iterable[tuple[int, int]]) -> Ranges:
    """Set difference.

    >>> difference([(0, 10)], [(2, 3), (8, 20)])
    ((0, 2), (3, 8))
    """
    left = list(union(ranges))
    for low, high in minus:
        pieces = [[(a, min(b, low)), (max(a, high), b)] for a, b in left]
        left = [(a, b) for pair in pieces for a, b in pair if a < b]
    return tuple(left)


def contains(ranges: Ranges, seq: int) -> bool:
    """Whether the set has `seq`."""
    return any(low <= seq < high for low, high in ranges)


def learned_apart(
    head: VersionRecord, target: VersionRecord, read: Callable[[int], VersionRecord]
) -> tuple[Ranges, Ranges]:
    """Shard records that the table of `head` has learned from and that of `target` has not; and the other way round.

    Up to its cursor, a version of a lineage has learned a shard record or holds it. So nothing between the two is
    looked at, and may be collected. A target that has no cursor has learned nothing.
    """
    if target.cursor is None or head.cursor is None:
        return trained_in(head.version, read), ()
    new = ((target.cursor.seq + 1, head.cursor.seq + 1),) if target.cursor.seq < head.cursor.seq else ()
    forgotten = difference(union(new, target.held_now), head.held_now)
    return forgotten, difference(head.held_now, union(new, target.held_now))


def tried(version: int, later: Iterable[VersionRecord]) -> str:
    """What trials found of a version: good | worse, or "" as long as no verdict in `later` is about it."""
    for record in later:
        for verdict in record.verdicts:
            if verdict["anchor"] < version <= verdict["version"] < record.version:
                return str(verdict["result"])
    return ""


def trained_in(version: int, read: Callable[[int], VersionRecord]) -> Ranges:
    """Shard records in the lineage of a version's weights: what its table has learned from, each once."""
    found: Ranges = ()
    at: int | None = version
    while at is not None:
        record = read(at)
        if record.kind == "delta":
            found = union(found, record.trained)
        at = record.table_of
    return found
