"""Child processes: started, watched, started again with growing pauses, stopped together.

    waiting    not started yet: what it waits for is not there
    running
    pausing    it died; it is started again at `resume_s`
    failed     it ended with a usage error (exit 2): starting it again would end alike
    ended      stopped on purpose

A pause doubles from 1 to 60 s with every death and begins anew after a child has lived for a minute. A child ends
with its supervisor: it looks whether its parent is still the process that started it (`resident.until_stopped`), and on
Linux the kernel sends it SIGTERM (`end_with_parent`), which also ends one that loads its libraries.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
SOUND_S: Final = 60.0  # a child that lived this long has earned a short pause
GRACE_S: Final = 4.0  # with the kill after it, all end within 5 s; what is cut off never happened
LOG_BYTES: Final = 8 << 20
TAIL_BYTES: Final = 4_096
USAGE: Final = 2

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

PARENT = "HEADRACE_PARENT"
LOGS = "HEADRACE_LOGS"


@dataclass(frozen=True)
class Fate:
    """What has become of a child. deaths: in a row; restarts: in all."""

    state: str = "waiting"
    began_s: float = 0.0
    resume_s: float = 0.0
    deaths: int = 0
    restarts: int = 0
    exit_code: int | None = None

    def started(self, now_s: float) -> Fate:
        restarts = self.restarts + (self.exit_code is not None)
        return replace(self, state="running", began_s=now_s, restarts=restarts)

    def died(self, exit_code: int, now_s: float) -> Fate:
        """After it ended by itself.

        >>> Fate().started(0.0).died(1, 5.0).resume_s
        6.0
        """
        if exit_code == USAGE:
            return replace(self, state="failed", exit_code=exit_code)
        deaths = 1 if now_s - self.began_s >= SOUND_S else self.deaths + 1
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (deaths - 1))
        return replace(self, state="pausing", deaths=deaths, resume_s=now_s + pause_s, exit_code=exit_code)

    def due(self, now_s: float) -> bool:
        return self.state == "pausing" and now_s >= self.resume_s


@dataclass
class Child:
    """One process of a role; what it prints goes to `log`, which is cut at `LOG_BYTES`, keeping one older part."""

    role: str
    arguments: Sequence[str]
    log: Path
    fate: Fate = field(default_factory=Fate)
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.fate.state == "running" else None

    def start(self, now_s: float) -> None:
        """Starts it in a session of its own, so that Ctrl-C reaches the supervisor alone."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {PARENT: str(os.getpid()), LOGS: str(self.log.parent), "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headrace.cli", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.fate = self.fate.started(now_s)

    def watch(self, now_s: float) -> None:
        """Notices a death, and starts it again when its pause is over."""
        if self.fate.state == "running" and self.process is not None:
            exit_code = self.process.poll()
            if exit_code is not None:
                self.fate = self.fate.died(exit_code, now_s)
        elif self.fate.due(now_s):
            self.start(now_s)
        self._rotate()

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def last_words(self, lines: int = 3) -> list[str]:
        """The last lines of the log that are not empty."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
                text = log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip()][-lines:]

    def _rotate(self) -> None:
        """Copies and cuts: the child goes on appending to the same file."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.with_suffix(".log.1").write_bytes(self.log.read_bytes())
            os.truncate(self.log, 0)


def stop_all(children: Iterable[Child], grace_s: float = GRACE_S) -> None:
    """Asks all to stop, waits up to `grace_s`, ends what is left."""
    children = list(children)
    for child in children:
        child.signal(signal.SIGTERM)
    until_s = time.monotonic() + grace_s
    while time.monotonic() < until_s and not all(child.ended() for child in children):
        time.sleep(0.05)
    for child in children:
        child.signal(signal.SIGKILL)
        if child.process is not None:
            child.process.wait()
        child.fate = replace(child.fate, state="ended")


def orphaned() -> bool:
    """Whether this process was started by a supervisor that is gone."""
    parent = os.environ.get(PARENT)
    return parent is not None and os.getppid() != int(parent)


def end_with_parent() -> None:
    """Linux: has the kernel send SIGTERM to this process once the supervisor that started it is gone; see prctl(2)."""
    if PARENT not in os.environ or sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if orphaned():  # it went before the kernel was told
        raise SystemExit(1)
