"""How far a long run is, on stderr: a bar on a terminal, a line every half minute elsewhere.

After a minute it estimates the rest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from headrace.cli import terminal
from headrace.clock import duration

ESTIMATE_AFTER_S = 60.0
LINE_EVERY_S = 30.0

Advance = Callable[[int], None]


@contextmanager
def progress(
    title: str, total: int, *, done: int = 0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Advance]:
    """Gives `advance(n)`, to be called with the number of steps done so far, of `total`."""
    plain = _Lines(title, total, done, clock)
    if not sys.stderr.isatty():
        yield plain.advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[estimate]}"),
        console=Console(file=sys.stderr),
    ) as bar:
        task = bar.add_task(title, total=total, completed=done, estimate="")

        def advance(now: int) -> None:
            bar.update(task, completed=now, estimate=plain.estimate(now))

        yield advance


class _Lines:
    def __init__(self, title: str, total: int, done: int, clock: Callable[[], float]) -> None:
        self._title, self._total, self._first, self._clock = title, total, done, clock
        self._begun = self._said = clock()

    def advance(self, now: int) -> None:
        at = self._clock()
        if at - self._said >= LINE_EVERY_S:
            self._said = at
            terminal.say(f"{self._title}: {now:,} of {self._total:,}{self.estimate(now)}")

    def estimate(self, now: int) -> str:
        spent = self._clock() - self._begun
        if spent < ESTIMATE_AFTER_S or now <= self._first:
            return ""
        left = spent / (now - self._first) * (self._total - now)
        return f", about {duration(left)} to go"
