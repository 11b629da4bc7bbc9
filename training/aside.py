"""Checkpoints and snapshots written aside: copied on the training thread, encoded and made durable on another.

One job at a time; `begin` takes the copy, so that what is learned meanwhile does not reach it. A job that is done is
named by the next record that is committed (`take`); until then records repeat the older one. What dies before leaves
files that no record names (garbage once a newer one is named: `headrace/collector.py`). A job that fails is logged and
forgotten: the next version at which one is due tries again.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from headrace import lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.version import Kept


class Aside:
    """At most one background job. Everything but the job itself is for one thread."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._done: dict[str, Kept] = {}
        self._dropped = False

    def busy(self) -> bool:
        """Whether a job is under way, or done and not yet named."""
        return self._thread is not None and (self._thread.is_alive() or not self._dropped)

    def begin(self, writes: Mapping[str, Callable[[], Kept]]) -> None:
        """Start `writes`, one after the other, by what they are ("checkpoint", "snapshot"). RuntimeError if busy."""
        if self.busy():
            raise RuntimeError("a job is under way")
        self._done, self._dropped = {}, False
        # a daemon: what no record will name must not hold up the end of the process
        self._thread = threading.Thread(
            target=_write, args=(dict(writes), self._done), name="headrace-aside", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Until the job that is under way has ended."""
        if self._thread is not None:
            self._thread.join()

    def take(self) -> dict[str, Kept]:
        """What is durable, once the job has ended; each once."""
        if self._thread is None or self._thread.is_alive():
            return {}
        found = {} if self._dropped else dict(self._done)
        self._thread, self._done = None, {}
        return found

    def drop(self) -> None:
        """Nothing of the job will be named: its version was not committed, or it is no longer known whether."""
        self._dropped = True


def _write(writes: dict[str, Callable[[], Kept]], done: dict[str, Kept]) -> None:
    for what, write in writes.items():
        try:
            done[what] = write()
        except Exception as error:  # noqa: BLE001  (training goes on without; the older one stays named)
            lines.TRAINER_ASIDE_FAILED(f"{error}; tried again when the next is due", what=what)
