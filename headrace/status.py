"""Heartbeats: who runs, where, and how far. Advisory; nothing depends on them for correctness (the log is the lock).

A process overwrites `status/<role>-<host>.json` every two seconds (`Pulse`):

    {"role": "pipeline", "host": "a1", "pid": 4711, "nonce": "1c9e77aa", "at_us": 1790000000000000, "info": {…}}

It lives while `at_us` is within 10 s of now and, on this host, while its pid exists; so the successor of a killed
process need not wait. One that is silent for longer and still has its process is no rival: it cannot write here (a
full disk) or is stopped, and people are told so. Rule 4 of logs: before it starts to write, a stage asks for a `rival`,
a living heartbeat of its role with another nonce, and waits or raises `Busy`. While it waits it does not beat: the file
belongs to the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from headrace import clock
from headrace.clock import SECOND_US
from headrace.errors import Busy, NotFound, StoreError
from headrace.record import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.clock import Now
    from headrace.store import Store

FOLDER = "status"
LIVING_S = 10.0
BEAT_S = 2.0
FORGOTTEN_S = 86_400.0
NONCE = secrets.token_hex(4)  # of this process


@dataclass(frozen=True)
class Heartbeat:
    """The last sign of one process; `info` is what its role says of itself."""

    role: str
    host: str
    pid: int
    nonce: str
    at_us: int
    info: dict[str, Any]

    def living(self, now_us: int, within_s: float = LIVING_S) -> bool:
        """Whether it was heard of within `within_s` and, if it ran on this host, still has a process."""
        if abs(now_us - self.at_us) > within_s * SECOND_US:
            return False
        return self.host != socket.gethostname() or _runs(self.pid)

    def silent(self, now_us: int) -> bool:
        """Whether it was not heard of for `LIVING_S`, though the process that wrote it is still here. Told on Linux."""
        if self.living(now_us) or self.host != socket.gethostname():
            return False
        began_us = _began_us(self.pid)
        return began_us is not None and began_us <= self.at_us + SECOND_US  # a later one has only got its number


def beat(store: Store, role: str, info: Mapping[str, Any], now_us: int, *, nonce: str = NONCE) -> Heartbeat:
    """Write this process's heartbeat."""
    heartbeat = Heartbeat(role, socket.gethostname(), os.getpid(), nonce, now_us, dict(info))
    store.overwrite(_path_of(heartbeat), canonical(asdict(heartbeat)))
    return heartbeat


def leave(store: Store, heartbeat: Heartbeat) -> None:
    """Take a heartbeat back at a clean end, so that a successor need not wait."""
    store.delete(_path_of(heartbeat))


class Pulse:
    """Beats from `start` to `end` (or in a `with` block), from a thread of its own: long work is no silence.

    info: what to say, asked for at every beat. A beat that the store refuses is left out, being advisory.
    """

    def __init__(
        self,
        store: Store,
        role: str,
        info: Callable[[], Mapping[str, Any]],
        *,
        now_us: Now = clock.now_us,
        nonce: str = NONCE,
    ) -> None:
        self._store, self._role, self._info, self._now_us, self._nonce = store, role, info, now_us, nonce
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{role}-pulse", daemon=True)
        self._last: Heartbeat | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> Self:
        """The first beat is written when this returns."""
        self._beat()
        self._thread.start()
        return self

    def end(self) -> None:
        """Takes the heartbeat back, so that a successor need not wait."""
        self._ended.set()
        self._thread.join()
        if self._last is not None:
            with contextlib.suppress(StoreError):
                leave(self._store, self._last)

    def _run(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._beat()

    def _beat(self) -> None:
        with contextlib.suppress(StoreError):
            self._last = beat(self._store, self._role, self._info(), self._now_us(), nonce=self._nonce)


class Claim:
    """The right to write a log as `role`: one living process has it, and a pulse says so until `release`.

    Two Claims in one process do not see each other; those race for the log, as all writers do.
    """

    def __init__(self, store: Store, role: str, info: Callable[[], Mapping[str, Any]]) -> None:
        self._store, self._role, self._info = store, role, info
        self._pulse: Pulse | None = None
        self._looked_s = float("-inf")

    def rival(self) -> Heartbeat | None:
        """Another process that lives in the role."""
        return rival(self._store, self._role, clock.now_us())

    def check(self) -> None:
        """Busy while another process lives in the role."""
        other = self.rival()
        if other is not None:
            raise busy(other)

    def take(self) -> None:
        """As `check`, but looks at most once a beat; from then on this process has it."""
        if time.monotonic() - self._looked_s < BEAT_S:
            return
        self.check()
        if self._pulse is None:
            self._pulse = Pulse(self._store, self._role, self._info).start()
        self._looked_s = time.monotonic()

    def release(self) -> None:
        """A successor need not wait. A process that waits for another releases first, or both would wait."""
        if self._pulse is not None:
            self._pulse.end()
        self._pulse, self._looked_s = None, float("-inf")


def heartbeats(store: Store) -> list[Heartbeat]:
    """All heartbeats, living or not; a file that does not parse, or has gone, is passed over, being advisory."""
    found = []
    for path in store.list(FOLDER):
        try:
            found.append(Heartbeat(**json.loads(store.read(path))))
        except (NotFound, ValueError, TypeError):
            continue
    return found


def forget(store: Store, now_us: int) -> None:
    """Remove heartbeats of more than `FORGOTTEN_S` ago, and what killed processes left while they wrote theirs."""
    for path in store.left_over(FOLDER):
        store.delete(path)
    for old in heartbeats(store):
        if now_us - old.at_us > FORGOTTEN_S * SECOND_US:
            leave(store, old)


def rival(store: Store, role: str, now_us: int, *, nonce: str = NONCE) -> Heartbeat | None:
    """A living process of the same role that is not this one."""
    others = (beat for beat in heartbeats(store) if beat.role == role and beat.nonce != nonce)
    return next((other for other in others if other.living(now_us)), None)


def busy(other: Heartbeat) -> Busy:
    """The error of a stage that will not wait for `other`."""
    return Busy(
        f"another {other.role} runs on this root: process {other.pid} on {other.host}",
        hint="stop that one first; or leave this one waiting, and it takes over when the other ends",
        role=other.role,
        host=other.host,
        pid=other.pid,
    )


def _path_of(heartbeat: Heartbeat) -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "_", heartbeat.host)
    return f"{FOLDER}/{heartbeat.role}-{host}.json"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _began_us(pid: int) -> int | None:
    """When the process with this number was started; None where there is none, or /proc does not say; see proc(5)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    except (OSError, StopIteration):
        return None
    if after_name[0] == "Z":
        return None
    return int((int(boot.split()[1]) + int(after_name[19]) / os.sysconf("SC_CLK_TCK")) * SECOND_US)
