"""A log: a folder of numbered records, each created once; the only durable state of a stage, and its lock.

Commit order of `Log.append` (the numbers are those of the failpoints):

1. Prove that the parent is there and durable (`store.sync`): a process may have linked it and died before the folder
   was synced, and a record must not outlive its parent.
2. Write the detail files. Dies here: files above the head that no record names; garbage once the head has passed.
3. `log.before_put`: `put_if_absent` of record N+1. `log.after_link`: visible, perhaps not durable.
4. `log.after_put`: durable. Dies here: the writer's successor reads it as the head.

*Ambiguous answers.* After a lost answer, a timeout, or "exists", N+1 is read back. Bytes equal to this attempt: won.
Other bytes: lost, `LostRace` with the winner. Absent: the same bytes are put again, for a lost put may still land. An
attempt that stays unresolved is remembered, and no other N+1 is tried by this `Log` before it is settled; if it turns
out to have been committed, the next `append` raises `LostRace` with it as the winner, and its caller folds it.

*Reading.* `head` lists once, then asks for N+1. A `Follower` asks for N+1 and checks that its parent is the N it read.

A `Log` belongs to one thread. Formats: see `headrace.record`.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any

from headrace import failpoints
from headrace.errors import Ambiguous, DamagedFile, Exists, HeadraceError, LogRewritten, LostRace, NotFound, StoreError
from headrace.record import Attempt, Cursor, Entry, decode, encode, name_of, seq_of, sha256_of, with_details

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from headrace.store import Store

__all__ = ["Cursor", "Entry", "Follower", "Log", "garbage"]

REWRITE_CHECK_S = 10.0
_PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # between attempts to settle an ambiguous answer


class Log:
    """The log below `prefix`; `writer` is the nonce that its records and file names carry."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        writer: str | None = None,
        failpoint: Callable[[str], None] = failpoints.hit,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store = store
        self.prefix = prefix
        self.writer = writer or secrets.token_hex(4)
        self._failpoint = failpoint
        self._sleep = sleep
        self._head: Entry | None = None
        self._unresolved: Attempt | None = None

    def seqs(self) -> list[int]:
        """Numbers of all retained records, ascending. Lists the folder."""
        return sorted(seq for path in self.store.list(self.prefix) if (seq := seq_of(path)) is not None)

    def first(self) -> Entry | None:
        """The oldest retained record."""
        while seqs := self.seqs():
            with contextlib.suppress(NotFound):  # collected meanwhile: another is the oldest
                return self.read(seqs[0])
        return None

    def head(self) -> Entry | None:
        """The newest record, or None. `DamagedFile`, `NewerFormat`, `LogRewritten` (N+1 does not continue N)."""
        if self._head is None:
            seqs = self.seqs()
            if not seqs:
                return None
            self._head = self.read(seqs[-1])
            self._check_parent(self._head)
        while True:
            try:
                entry = self.read(self._head.seq + 1)
            except NotFound:
                return self._head
            if entry.parent != self._head.sha256:
                raise self.rewritten(self._head.seq)
            self._head = entry

    def read(self, seq: int) -> Entry:
        """Record `seq`, verified, details in place. `NotFound`, `DamagedFile`, `NewerFormat`."""
        path = name_of(self.prefix, seq)
        data = self.store.read(path)
        try:
            return with_details(self.store, decode(data, path, seq))
        except NotFound as error:
            self.store.read(path)  # NotFound if record and detail were collected meanwhile
            raise DamagedFile(
                f"{path} names {error.context['path']}, which is missing",
                hint="restore this file from a copy of the root",
                path=error.context["path"],
            ) from error

    def append(self, kind: str, body: Mapping[str, Any], parent: Entry | None) -> Entry:
        """Commit record `parent.seq + 1` (0 without parent). `LostRace`, `Ambiguous`, `StoreFull`, `LogRewritten`."""
        seq = 0 if parent is None else parent.seq + 1
        attempt = encode(self.prefix, seq, kind, self.writer, parent.sha256 if parent else "", body)
        if self._unresolved is not None and self._unresolved != attempt:
            self._settle_earlier(self._unresolved, seq)
        if self._unresolved is None:  # else these very bytes are tried again, and their details are there
            if parent is not None:
                self.sync(parent.seq)
            for path, data in attempt.details.items():
                self.store.write(path, data)
        self._failpoint("log.before_put")
        entry = self._settle(attempt)
        self._failpoint("log.after_put")
        return entry

    def sync(self, seq: int) -> None:
        """Make record `seq` durable, whoever wrote it (rule 3). `LogRewritten` if it is gone."""
        try:
            self.store.sync(name_of(self.prefix, seq))
        except NotFound as error:
            raise self.rewritten(seq) from error

    def rewritten(self, seq: int) -> LogRewritten:
        """The error for a record that was read and is now gone or different."""
        return LogRewritten(
            f"{self.prefix} was rewritten or collected: record {seq} is not the one that was read",
            hint="nothing to do: the process starts again from the newest state that verifies",
            log=self.prefix,
            seq=seq,
        )

    def _settle_earlier(self, attempt: Attempt, seq: int) -> None:
        """Find out who holds the number of an attempt left open; `LostRace` if that bears on record `seq`."""
        try:
            held = self._settle(attempt)
        except LostRace as lost:
            held = lost.context["winner"]
        if held.seq >= seq:
            raise self._lost(held)

    def _settle(self, attempt: Attempt) -> Entry:
        """Put `attempt` until it is known who holds its number; the entry if it is this attempt."""
        path = name_of(self.prefix, attempt.seq)
        may_land = self._unresolved is not None  # an earlier put of these bytes
        self._unresolved = attempt
        for pause in _PAUSES_S:
            self._sleep(pause)
            try:
                self.store.put_if_absent(path, attempt.data)
            except (Exists, Ambiguous):
                may_land = True
                held = self._read_back(path)
            except StoreError:  # refused before anything happened
                self._unresolved = attempt if may_land else None
                raise
            else:
                held = attempt.data
            if held is not None:
                return self._resolved(attempt, held)
        raise Ambiguous(
            f"cannot tell whether {path} was committed: the store does not answer",
            hint="when the store answers again, this process or its successor finds out by itself",
            path=path,
            store=self.store.url,
        )

    def _read_back(self, path: str) -> bytes | None:
        """What holds the number, durable; None while that cannot be known."""
        try:
            data = self.store.read(path)
            self.store.sync(path)
        except StoreError:
            return None
        return data

    def _resolved(self, attempt: Attempt, held: bytes) -> Entry:
        self._unresolved = None
        if held != attempt.data:
            raise self._lost(self.read(attempt.seq))
        self._head = attempt.entry
        return attempt.entry

    def _lost(self, winner: Entry) -> LostRace:
        return LostRace(
            f"record {winner.seq} of {self.prefix} was committed by writer {winner.writer}",
            hint="is a second process of this kind running on the same root? `headrace status` shows it",
            log=self.prefix,
            seq=winner.seq,
            winner=winner,
        )

    def _check_parent(self, entry: Entry) -> None:
        try:
            data = self.store.read(name_of(self.prefix, entry.seq - 1)) if entry.seq else None
        except NotFound:  # collected
            return
        if entry.parent != ("" if data is None else sha256_of(data)):
            path = name_of(self.prefix, entry.seq)
            why = f"{path} does not continue record {entry.seq - 1}: one of them is damaged"
            raise DamagedFile(why, hint="run `headrace log verify --deep`", path=path)


class Follower:
    """Reads a log at its own pace, from `cursor` on (None: from the oldest retained record).

    What `poll` returns is verified, continues what was read before, and is durable, so that a reader may build on it.
    """

    def __init__(self, log: Log, cursor: Cursor | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self.cursor = cursor
        self._now = now
        self._checked_s = float("-inf")  # when the cursor was last known to be in the log

    def poll(self, most: int = sys.maxsize) -> list[Entry]:
        """The entries after the cursor, the first `most` of them, which moves past them; [] if there are none.

        `LogRewritten` if the record under the cursor is gone or differs (looked at first, and after every 10 s without
        news), or the next one does not continue it. `DamagedFile` and `NewerFormat` leave the cursor before the record
        that cannot be read, or is missing although later ones are there (looked at as often); entries before it are
        returned first.
        """
        entries: list[Entry] = []
        cursor = self.cursor
        try:
            while len(entries) < most and (entry := self._next(cursor)) is not None:
                entries.append(entry)
                cursor = entry.cursor()
        except HeadraceError:
            if not entries:
                raise
        if entries:
            self._log.sync(entries[-1].seq)  # may fail: the cursor moves only past what is returned
            self._checked_s = self._now()
            self.cursor = cursor
        elif self._now() - self._checked_s >= REWRITE_CHECK_S:
            self._check_cursor()
        return entries

    def _next(self, cursor: Cursor | None) -> Entry | None:
        if cursor is None:
            return self._log.first()
        try:
            entry = self._log.read(cursor.seq + 1)
        except NotFound:
            return None
        if entry.parent != cursor.sha256:
            raise self._log.rewritten(cursor.seq)
        return entry

    def _check_cursor(self) -> None:
        if self.cursor is not None:
            try:
                found = self._log.read(self.cursor.seq).cursor()
            except NotFound:
                found = None
            if found != self.cursor:
                raise self._log.rewritten(self.cursor.seq)
            self._check_hole(self.cursor.seq + 1)
        self._checked_s = self._now()

    def _check_hole(self, seq: int) -> None:
        later = [other for other in self._log.seqs() if other >= seq]
        if later and later[0] > seq:
            path = name_of(self._log.prefix, seq)
            raise DamagedFile(
                f"{path} is missing, though record {later[0]} is there",
                hint="restore this file from a copy of the root; `headrace log verify --deep` looks for others",
                path=path,
            )


def garbage(names: Iterable[str], head_seq: int, retained_names: AbstractSet[str]) -> list[str]:
    """Rule 2: of `names`, those whose number is committed (`<= head_seq`) and that no retained record names, sorted.

    For checkpoints and snapshots, which are named after they are written, `head_seq` is the version before the newest
    one that a committed record names. Names without a number are never garbage.

    >>> garbage(["d/000000000006-0-aa.parquet", "d/000000000007-0-bb.parquet", "d/000000000008-0-cc.parquet"], 7,
    ...         {"d/000000000007-0-bb.parquet"})
    ['d/000000000006-0-aa.parquet']
    """
    return sorted(
        name for name in names if name not in retained_names and (seq := seq_of(name)) is not None and seq <= head_seq
    )
