"""Collecting what `headrace.retention` lets go: the thin shell, run by the stage that writes the log.

One pass (`Collector.run`), called between two commits, at most once in `EVERY_S` and with bounded work:

1. Read records that are new (at the start: all that are retained, some per pass), and decide     collect.planned
   the oldest one to keep. A record that cannot be read stops the pass: nothing is deleted on a guess.
2. Delete records before it, oldest first. Dies here: the log begins later, files that no          collect.records
   record names are left over.
3. Delete the files that only those records named, then what a listing, made in the background     collect.files
   at the start and after every `LISTED` passes, shows to be garbage, temporary files included.
   Dies here: the rest is garbage by the same rule, and the next process lists it.

A reader whose place is deleted finds that out as rule 5 of logs says, and starts again from the newest state. No clock
decides about a file: its number is committed, and no retained record names it. A checkpoint or snapshot carries the
version it holds and is named later: one that no record names goes when a newer one is named.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headrace import failpoints, lines, status
from headrace.errors import HeadraceError, NotFound
from headrace.log import garbage
from headrace.record import decode, name_of, with_details
from headrace.retention import (
    VersionFact,
    fact_of,
    files_named,
    oldest_request,
    oldest_shard,
    oldest_version,
    terms_of,
)
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.config import Settings
    from headrace.log import Entry, Log
    from headrace.loop import Loop
    from headrace.store import Store

EVERY_S = 60.0
READ = 250  # records a pass; until all are read, a pass is due every second
DELETED = 1_000  # files a pass
LISTED = 60  # passes between two listings

Fact = TypeVar("Fact")


@dataclass(frozen=True)
class Collected:
    """What one pass did. `from_seq`: the oldest record that is left."""

    from_seq: int
    records: int = 0
    files: int = 0


class Index(Generic[Fact]):
    """What the retained records of a log say: a fact of each, and by file the newest record that names it."""

    def __init__(self, of: Log, fact: Callable[[Entry], Fact]) -> None:
        self.log = of
        self.facts: dict[int, Fact] = {}
        self.named: dict[str, int] = {}
        self._fact = fact
        self._next: int | None = None

    def advance(self, most: int = READ) -> bool:
        """Read up to `most` records that are new; whether the head is reached. `DamagedFile`, `NewerFormat`."""
        if self._next is None:
            seqs = self.log.seqs()
            if not seqs:
                return False
            self._next = seqs[0]
        for _ in range(most):
            path = name_of(self.log.prefix, self._next)
            try:
                raw = decode(self.log.store.read(path), path, self._next)
                entry = with_details(self.log.store, raw)
            except NotFound:
                return self._at_head(self._next)
            for body in (raw.body, entry.body):
                self.named.update(dict.fromkeys(files_named(body), self._next))
            self.facts[self._next] = self._fact(entry)
            self._next += 1
        return False

    def _at_head(self, following: int) -> bool:
        """Whether nothing follows; what another process collected meanwhile is forgotten."""
        if not self._gone(following - 1) and self.facts and not self._gone(min(self.facts)):
            return True
        seqs = self.log.seqs()
        if not seqs:
            return False
        self.drop_before(seqs[0])
        self._next = max(following, seqs[0])
        return self._next > seqs[-1]

    def _gone(self, seq: int) -> bool:
        try:
            self.log.store.read(name_of(self.log.prefix, seq))
        except NotFound:
            return True
        return False

    def drop_before(self, seq: int) -> list[str]:
        """Forget records before `seq`; the files that no later one names."""
        self.facts = {at: fact for at, fact in self.facts.items() if at >= seq}
        gone = sorted(path for path, newest in self.named.items() if newest < seq)
        for path in gone:
            del self.named[path]
        return gone


class Collector:
    """Keeps one log and the folders that its records name files in; a subclass says what to keep.

    folders: as the store lists them. A pass is due every `every_s`; `run(force=True)` does one now.
    """

    def __init__(self, of: Log, folders: tuple[str, ...], *, every_s: float = EVERY_S) -> None:
        self.store: Store = of.store
        self.log = of
        self._folders = folders
        self._every_s = every_s
        self._due_s = 0.0
        self._files: list[str] = []
        self._passes = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="retention")
        self._listing: Future[list[str]] | None = None

    def run(self, now_us: int, *, force: bool = False) -> Collected | None:
        """One pass, if one is due; None if nothing was decided. What goes wrong is logged and tried again later."""
        if not force and time.monotonic() < self._due_s:
            return None
        try:
            found = self._pass(now_us)
        except HeadraceError as error:
            lines.RETENTION_FAILED(str(error), log=self.log.prefix)
            self._due_s = time.monotonic() + self._every_s
            return None
        self._due_s = time.monotonic() + (self._every_s if found is not None else min(1.0, self._every_s))
        if found is not None and (found.records or found.files):
            lines.RETENTION_COLLECTED(log=self.log.prefix, records=found.records, files=found.files)
        return found

    def settled(self) -> bool:
        """Wait for a listing that is under way; whether there was one."""
        if self._listing is None:
            return False
        self._listing.exception()
        return True

    def index(self) -> Index[Any]:
        raise NotImplementedError

    def oldest(self, now_us: int) -> int | None:
        """The oldest record to keep; None while that is not known."""
        raise NotImplementedError

    def committed(self, path: str) -> int:
        """The number up to which an unnamed file at `path` is garbage."""
        del path
        return max(self.index().facts)

    def _pass(self, now_us: int) -> Collected | None:
        index = self.index()
        oldest = self.oldest(now_us)
        if oldest is None:
            return None
        failpoints.hit("collect.planned")
        first = min(index.facts)
        until = min(oldest, first + DELETED)
        for seq in range(first, until):
            self.store.delete(name_of(self.log.prefix, seq))
            failpoints.hit("collect.records")
        self._files += index.drop_before(until)
        self._files += self._left_over(index)
        files, self._files = self._files[:DELETED], self._files[DELETED:]
        for path in files:
            self.store.delete(path)
            failpoints.hit("collect.files")
        return Collected(until, until - first, len(files))

    def _left_over(self, index: Index[Any]) -> list[str]:
        """Garbage that an earlier process left, from the newest listing."""
        found: list[str] = []
        if self._listing is not None and self._listing.done():
            listing, self._listing = self._listing.result(), None
            unnamed = [path for path in listing if path not in index.named]
            waiting = set(self._files)
            found = [path for path in unnamed if garbage([path], self.committed(path), waiting)]
        if self._listing is None and self._passes % LISTED == 0:
            self._listing = self._pool.submit(self._list)
        self._passes += 1
        return found

    def _list(self) -> list[str]:
        return [path for folder in self._folders for path in (*self.store.list(folder), *self.store.left_over(folder))]


class ShardCollector(Collector):
    """Keeps the shard log; run by the pipeline. It reads the version logs of every registered model."""

    def __init__(self, loop: Loop, settings: Settings, *, every_s: float = EVERY_S) -> None:
        folders = ("shards/data", "shards/state", "shards/quarantine", "shards/detail")
        super().__init__(loop.shard_log(), folders, every_s=every_s)
        self._loop = loop
        self._terms = terms_of(settings)
        self._index = Index(self.log, lambda entry: int(entry.body["committed_at_us"]))
        self._models: dict[str, Index[VersionFact]] = {}

    def index(self) -> Index[int]:
        return self._index

    def oldest(self, now_us: int) -> int | None:
        for model in models_of(self.store):
            self._models.setdefault(model, _versions(self._loop, model))
        complete = [self._index.advance(), *(index.advance() for index in self._models.values())]
        if not all(complete):
            return None
        oldest = oldest_shard(self._index.facts, [index.facts for index in self._models.values()], now_us, self._terms)
        self._say_expired(oldest)
        return oldest

    def _say_expired(self, oldest: int) -> None:
        first = min(self._index.facts)
        for model, index in self._models.items():
            held = index.facts[max(index.facts)].held_now
            count = sum(max(0, min(high, oldest) - max(low, first)) for low, high in held)
            if count:
                lines.SHARDS_EXPIRED("held too long, they cannot be released", model=model, count=count)


class VersionCollector(Collector):
    """Keeps the version log of a model, and the requests it has answered; run by the trainer."""

    def __init__(self, loop: Loop, settings: Settings, *, model: str = "default", every_s: float = EVERY_S) -> None:
        self._folder = f"models/{model}"
        folders = tuple(f"{self._folder}/{name}" for name in ("params", "checkpoints", "detail"))
        super().__init__(loop.version_log(model), folders, every_s=every_s)
        self._terms = terms_of(settings)
        self._index = _versions(loop, model)
        self._shards = loop.shard_log()
        self._requests = Index(loop.requests(), lambda entry: int(entry.body["at_us"]))

    def index(self) -> Index[VersionFact]:
        return self._index

    def oldest(self, now_us: int) -> int | None:
        if not self._index.advance():
            return None
        self._answered(now_us)
        status.forget(self.store, now_us)
        return oldest_version(self._index.facts, now_us, self._terms)

    def committed(self, path: str) -> int:
        newest = self._index.facts[max(self._index.facts)]
        if path.startswith(f"{self._folder}/checkpoints/"):
            return -1 if newest.checkpoint is None else newest.checkpoint - 1
        if "-snapshot-" in path:
            return -1 if newest.snapshot is None else newest.snapshot - 1
        return super().committed(path)

    def _answered(self, now_us: int) -> None:
        """Requests that were answered go too, with their details."""
        if len(models_of(self.store)) > 1 or not self._requests.advance():
            return
        first = min(self._requests.facts)
        answered = [self._index.facts[max(self._index.facts)].answered, *self._by_pipeline()]
        oldest = oldest_request(self._requests.facts, answered, now_us, self._terms)
        for seq in range(first, min(oldest, first + DELETED)):
            self.store.delete(name_of(self._requests.log.prefix, seq))
        self._files += self._requests.drop_before(min(oldest, first + DELETED))

    def _by_pipeline(self) -> list[int | None]:
        """The newest request that the pipeline has answered or passed over; nothing where there was no pipeline yet."""
        head = self._shards.head()
        cursor = head.body["requests"]["cursor"] if head is not None else None
        return [] if head is None else [None if cursor is None else int(cursor["seq"])]


def models_of(store: Store) -> list[str]:
    """Models that have a version log."""
    return store.folders("models")


def _versions(loop: Loop, model: str) -> Index[VersionFact]:
    return Index(loop.version_log(model), lambda entry: fact_of(VersionRecord.from_entry(entry)))
