"""A replica follows the version log of one model: what is committed is applied, what may be served is served.

One pass (`poll`), called every 20 ms (every 50 ms where the store is not local):

    1  read the records after the cursor, verified              the log is unreadable: keep serving, say so, try again;
                                                                one record is damaged or missing: say so, go on after it
    2  apply each: the tables of the version it starts from,    a damaged or missing file, a digest that differs: keep
       then its delta, checked against the digest in the        serving, say so; built from the newest snapshot as soon
       record                                                   as a later version, or a healed file, allows it
    3  score one candidate                                      not finite: applied but not served; tried again with the
                                                                next version
    4  swap: one assignment

Nothing is written, so a replica that dies at any step starts again from the newest snapshot that verifies. Tables that
are not in memory any more (paramserver/history.py), at the start, after a rewritten log or a rollback, are built by the
shortest way from a snapshot, or from tables in memory (`headrace.version.path_to`), without those snapshots that turn
out to be damaged. What was replaced is freed by the thread that polls, once no call has it: freeing takes long.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from headrace import clock
from headrace.delta import load_delta
from headrace.errors import DamagedFile, HeadraceError, LogRewritten, NewerFormat, NotFound, NotReady
from headrace.ids import null_id
from headrace.log import Entry, Follower, Log
from headrace.schema import Schema
from headrace.scoring import Inputs, Ragged
from headrace.version import Kept, VersionRecord, path_to
from paramserver.generation import Generation, Tables
from paramserver.history import History

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.clock import Now
    from headrace.store import Store

RETRY_S = 1.0
RETRY_AT_MOST_S = 60.0
_OURS = 3  # references to a generation that only `_leaving` has: the list's, the loop's, the question's

_NOTHING_YET = NotReady(
    "the version log is empty", hint="start `headrace train`: it writes the first version at once, and this follows"
)


@dataclass(frozen=True)
class Retry:
    """When to apply and serve next: at once after something was read, ever more rarely while something is wrong."""

    at: float | None = 0.0
    wait_s: float = RETRY_S

    def due(self, now: float) -> bool:
        return self.at is not None and now >= self.at

    def after(self, succeeded: bool, now: float) -> Retry:
        if succeeded:
            return Retry(at=None)
        return Retry(now + self.wait_s, min(2 * self.wait_s, RETRY_AT_MOST_S))


class Replica:
    """The served generation of one model. `poll` may be called from any thread, as may everything else."""

    def __init__(
        self,
        store: Store,
        log: Log,
        *,
        now_us: Now = clock.now_us,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.swapped_at_us = 0  # when the served generation was swapped in
        self._store = store
        self._log = log
        self._now_us = now_us
        self._monotonic = monotonic
        self._follower: Follower | None = None
        self._waiting: deque[Entry] = deque()  # read, not yet applied
        self._applied: Generation | None = None
        self._served: Generation | None = None
        self._history = History()  # the tables of `_applied`, and earlier ones
        self._leaving: list[Generation] = []  # not served any more, perhaps still in use by a call
        self._stuck: HeadraceError | None = None  # why the newest version is not served
        self._retry = Retry()
        self._problem: HeadraceError | None = None
        self.last_problem: tuple[int, HeadraceError] | None = None  # since when (us), which; also once it is over
        self._polling = threading.Lock()
        self._changed = threading.Condition()
        self._changes = 0
        self._watchers: list[Callable[[], None]] = []

    @property
    def problem(self) -> HeadraceError | None:
        """What keeps this replica from the newest version, or from any; None if nothing does."""
        return self._problem or (_NOTHING_YET if self._served is None else None)

    @property
    def applied_version(self) -> int | None:
        return self._applied.version if self._applied else None

    @property
    def served(self) -> Generation | None:
        return self._served

    def generation(self) -> Generation:
        """The generation to answer from. NotReady as long as there is none."""
        served = self._served
        if served is None:
            problem = self.problem or _NOTHING_YET
            raise NotReady(f"nothing can be served yet: {problem.message}", hint=problem.hint)
        return served

    @property
    def changes(self) -> int:
        """Grows with every swap and every other problem."""
        return self._changes

    def wait(self, seen: int, timeout_s: float) -> int:
        """Returns `changes` once it differs from `seen`, or after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen, timeout_s)
            return self._changes

    def poll(self) -> bool:
        """One pass. True if another generation is served than before."""
        with self._polling:
            before = self._served
            unread = _caught(self._read)
            if self._retry.due(self._monotonic()):
                unapplied = _caught(self._apply)
                self._stuck = _caught(self._serve) or unapplied
                self._retry = self._retry.after(self._stuck is None, self._monotonic())
            problem, swapped = unread or self._stuck, before is not self._served
            if swapped or str(problem) != str(self._problem):
                self.report(problem)
            self._free()
            return swapped

    def watch(self, tell: Callable[[], None]) -> None:
        """Call `tell` now and after every change."""
        self._watchers.append(tell)
        tell()

    def report(self, problem: HeadraceError | None) -> None:
        """Say what is wrong, or that nothing is any more."""
        with self._changed:
            self._problem = problem
            if problem is not None:
                self.last_problem = (self._now_us(), problem)
            self._changes += 1
            self._changed.notify_all()
        for tell in self._watchers:
            tell()

    def _read(self) -> None:
        """Step 1."""
        if self._follower is None:
            head = self._newest()
            if head is None:
                return
            self._follower, self._applied = Follower(self._log, head.cursor(), now=self._monotonic), None
            self._history.clear()
            self._waiting = deque([head])
            self._retry = Retry()
        try:
            entries = self._follower.poll()
        except LogRewritten:
            self._follower = None  # start again at the next pass, and serve on meanwhile
            self._log = Log(self._store, self._log.prefix)
            raise
        except DamagedFile:
            self._step_over(self._follower)
            raise
        if entries:
            self._waiting.extend(entries)
            self._retry = Retry()

    def _step_over(self, follower: Follower) -> None:
        """Goes on from the newest record that can be read, if that is after the one that cannot."""
        newest = self._readable()
        if newest is not None and follower.cursor is not None and newest.seq > follower.cursor.seq:
            self._follower = Follower(self._log, newest.cursor(), now=self._monotonic)
            self._waiting.append(newest)
            self._retry = Retry()

    def _newest(self) -> Entry | None:
        """The newest record that can be read: where to start. What is wrong with a later one shows in following."""
        try:
            return self._log.head()
        except (DamagedFile, NewerFormat):
            newest = self._readable()
            if newest is None:
                raise
            return newest

    def _readable(self) -> Entry | None:
        for seq in reversed(self._log.seqs()):
            with contextlib.suppress(DamagedFile, NewerFormat):
                return self._log.read(seq)
        return None

    def _apply(self) -> None:
        """Step 2. A version that cannot be applied is passed over if a later one can be."""
        failed: HeadraceError | None = None
        for entry in tuple(self._waiting):
            try:
                self._advance(VersionRecord.from_entry(entry))
            except NewerFormat:
                raise
            except HeadraceError as problem:
                failed = problem
            else:
                if failed is not None and self._problem is None:  # over before it was told: Status says what was wrong
                    self.last_problem = (self._now_us(), _without_frames(failed))
                failed = None
            if len(self._waiting) > 1 or failed is None:
                self._waiting.popleft()
        if failed is not None:
            self._fall_back(self._waiting[-1].seq)
            raise failed

    def _advance(self, record: VersionRecord) -> None:
        self._applied = self._built(record)
        self._history.add(record.version, self._applied.tables, self._monotonic())

    def _fall_back(self, version: int) -> None:
        """The newest version before `version` that verifies, if nothing is applied yet."""
        while self._applied is None and version > 0:
            version -= 1
            try:
                record = self._record(version)
            except NotFound:  # no longer kept, as all before it
                return
            try:
                self._advance(record)
            except (DamagedFile, NotFound) as error:  # nothing that builds on the broken delta can be built
                version = min(version, error.context.get("version", version))

    def _serve(self) -> None:
        """Steps 3 and 4."""
        if self._applied is None or self._applied is self._served:
            return
        wanted = self._applied.record.served
        if self._served is not None and self._served.version == wanted != self._applied.version:
            return
        generation = self._applied if wanted == self._applied.version else self._built(self._record(wanted))
        _check_scores(generation)
        if self._served is not None:
            self._leaving.append(self._served)
        self._served, self.swapped_at_us = generation, self._now_us()

    def _free(self) -> None:
        """Forget what no call has any more: besides this list, nothing but the loop and the question refer to it."""
        self._leaving = [generation for generation in self._leaving if sys.getrefcount(generation) > _OURS]

    def _built(self, record: VersionRecord) -> Generation:
        """The generation of a version: by its delta if what it starts from is applied, else from a snapshot."""
        applied = self._applied
        tables = self._history.find(record.table_of)
        if tables is None:
            tables = self._from_afar(record)
        elif record.delta is not None:
            tables = tables.changed(load_delta(self._store, record.delta.path, record.delta.sha256))
        schema = (
            applied.schema if applied and applied.record.schema == record.schema else Schema.from_json(record.schema)
        )
        generation = Generation(record, schema, tables)
        generation.check()
        return generation

    def _from_afar(self, record: VersionRecord) -> Tables:
        """By way of a snapshot, or of tables in memory."""
        damaged: set[str] = set()
        named = [self._applied.record.snapshot] if self._applied else []
        in_memory = [Kept(version, "", "", 0) for version in self._history.versions]

        def usable(snapshot: Kept | None) -> Kept | None:
            return None if snapshot is None or snapshot.path in damaged else snapshot

        def read(version: int) -> VersionRecord:
            found = record if version == record.version else self._record(version)
            return replace(found, snapshot=usable(found.snapshot))

        while True:
            path = path_to(record.version, read, [*map(usable, named), *in_memory])
            tables = Tables()
            if path.snapshot is not None:
                try:
                    tables = self._loaded(path.snapshot)
                except (DamagedFile, NotFound):
                    damaged.add(path.snapshot.path)
                    continue
            for step in path.deltas:
                assert step.delta is not None
                try:
                    tables = tables.changed(load_delta(self._store, step.delta.path, step.delta.sha256))
                except (DamagedFile, NotFound) as error:
                    error.context["version"] = step.version
                    raise
            return tables

    def _loaded(self, snapshot: Kept) -> Tables:
        in_memory = self._history.find(snapshot.of)
        if in_memory is not None:
            return in_memory
        return Tables().changed(load_delta(self._store, snapshot.path, snapshot.sha256))

    def _record(self, version: int) -> VersionRecord:
        return VersionRecord.from_entry(self._log.read(version))


def _caught(step: Callable[[], None]) -> HeadraceError | None:
    try:
        step()
    except HeadraceError as problem:
        return _without_frames(problem)
    return None


def _without_frames(problem: HeadraceError) -> HeadraceError:
    """Frames hold tables."""
    problem.__context__ = None
    return problem.with_traceback(None)


def _check_scores(generation: Generation) -> None:
    """DamagedFile unless a candidate of which nothing is known has a finite score. Warms the tower, too."""
    schema = generation.schema
    ids = {name: np.array([null_id(name)], np.int64) for name in schema.sparse}
    lists = {name: Ragged(np.empty(0, np.int64), np.zeros(2, np.int64)) for name in schema.lists}
    numbers = {name: np.full(1, np.nan, np.float32) for name in schema.numbers}
    try:
        score = float(generation.scorer.score(Inputs(1, ids, lists, numbers))[0])
    except (ValueError, KeyError, IndexError, RuntimeError) as error:  # tower, tables and schema do not fit together
        raise _not_served(generation, f"cannot score: {error}") from None
    if not np.isfinite(score):
        raise _not_served(generation, f"scores {score}")


def _not_served(generation: Generation, why: str) -> DamagedFile:
    return DamagedFile(
        f"version {generation.version} {why}; it is applied but not served",
        hint="the version before is served; look at the gate in `headrace versions show`",
        version=generation.version,
    )
