"""Room under the root: a stage that has none waits, since its source holds the data, and goes on by itself.

`retention.max_bytes` counts every file below the root. It is measured at the start and then in the background, once in
`EVERY_S`; what was committed since is added. Events are only taken in up to `INTAKE` of it: the trainer needs the rest
to learn what was taken in, without which nothing of it could ever be collected.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from headrace import lines
from headrace.errors import HeadraceError, StoreFull

if TYPE_CHECKING:
    from headrace.store import Store

EVERY_S = 30.0
INTAKE = 0.9


class Room:
    """Whether a stage may commit. `share`: of `max_bytes` (None: no limit) that this stage may fill."""

    def __init__(self, store: Store, max_bytes: int | None, *, share: float = 1.0, every_s: float = EVERY_S) -> None:
        self.problem = ""  # why nothing is committed; for heartbeats
        self._store = store
        self._limit = None if max_bytes is None else int(max_bytes * share)
        self._every_s = every_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="room")
        self._measuring: Future[int] | None = None
        self._used: int | None = None
        self._due_s = 0.0

    def left(self) -> bool:
        """Whether there is room for another commit; says so when that changes."""
        if self._limit is None:
            return True
        used = self._measured()
        full = used >= self._limit
        if full:
            self._say(f"{self._store.url} has {used:,} bytes, of {self._limit:,} that this stage may fill")
        return not full

    def took(self, size: int) -> None:
        """A commit added about `size` bytes."""
        if self._used is not None:
            self._used += size

    def refused(self, error: StoreFull) -> None:
        """The disk itself is full, or may not be written to."""
        self._say(f"{error.message}; {error.hint}" if error.hint else error.message)

    def freed(self) -> None:
        """Something was committed, or there was nothing to commit."""
        if self.problem:
            lines.STORE_ROOM_AGAIN(store=self._store.url)
        self.problem = ""

    def _say(self, problem: str) -> None:
        if not self.problem:
            lines.STORE_FULL(f"{problem}; nothing is committed until there is room, raise retention.max_bytes?")
        self.problem = problem

    def _measured(self) -> int:
        if self._used is None:
            self._used = self._store.size("")
            self._due_s = time.monotonic() + self._every_s
        if self._measuring is not None and self._measuring.done():
            measuring, self._measuring = self._measuring, None
            try:
                self._used = measuring.result()
            except HeadraceError as error:
                lines.STORE_UNMEASURED(str(error))
        if self._measuring is None and time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + self._every_s
            self._measuring = self._pool.submit(self._store.size, "")
        return self._used
