"""Commands that stay: they end between two steps when asked to, and say what goes on from where."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace import clock, lines, status
from headrace.cli import journal, terminal
from headrace.cli.supervise import orphaned
from headrace.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from headrace.lines import Line
    from headrace.loop import Loop


@contextmanager
def until_stopped(again: str) -> Iterator[Callable[[], bool]]:
    """Gives `stop()`, which turns true at Ctrl-C or SIGTERM, or when a supervisor that started this process is gone.

    A second Ctrl-C interrupts the step itself.

    again: the command that goes on from here. Interrupting a step is safe: what no record names never happened.
    """
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        _tell(lines.PROCESS_STOPPING, "stopping after this step (Ctrl-C again: now)")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked) or orphaned()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked:
            _tell(lines.PROCESS_STOPPED, f"stopped; to go on: {again}")


def _tell(line: Line, text: str) -> None:
    """Logged where this process has a journal, else said."""
    if journal.is_open():
        line(text)
    else:
        terminal.say(text)


def alone(loop: Loop, role: str, hint: str) -> None:
    """Busy, before anything heavy is loaded, while another process lives in the role. hint: what to do instead."""
    other = status.rival(loop.store, role, clock.now_us())
    if other is not None:
        raise Busy(
            f"another {role} runs on this root: process {other.pid} on {other.host}",
            hint=hint,
            role=role,
            pid=other.pid,
        )


def say_waiting(loop: Loop, role: str) -> None:
    """A resident process that finds another one says that it waits."""
    other = status.rival(loop.store, role, clock.now_us())
    if other is not None:
        lines.PROCESS_WAITING("this one waits until it ends", role=role, pid=other.pid, host=other.host)
