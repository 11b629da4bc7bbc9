"""One incarnation of what a kill loop kills: a fork, so that libraries are imported once."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from headrace import failpoints

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


def killed(work: Callable[[], None], place: str, longest_s: float, rng: Random) -> bool:
    """Does `work` in a fork until it ends or dies; whether it was killed.

    `random` is a place, too: SIGKILL within `longest_s`. At any other `work` dies by itself.
    """
    pid = os.fork()
    if pid == 0:
        _ends_with(work)
    if place == "random":
        time.sleep(rng.random() * longest_s)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, failpoints.EXIT_CODE, -signal.SIGKILL):
        raise SystemExit(f"an incarnation failed with {code} at {place}")
    return code != 0


def _ends_with(work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001  (a fork must never return into the parent's code)
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)
