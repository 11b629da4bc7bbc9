"""The answer to a request, in the log of the stage that was asked: by one that runs, or one that is started for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace import clock
from headrace.cli import terminal
from headrace.cli.quiet import native_output
from headrace.errors import HeadraceError, TrainingError
from headrace.log import Follower

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.config import Settings
    from headrace.log import Entry, Log
    from headrace.loop import Loop

POLL_S = 0.2


def answered(loop: Loop, settings: Settings, request: Entry, before: Entry | None, timeout_s: float) -> Entry:
    """The trainer's: the version record after `before` that answers. TrainingError if none comes in time."""
    from headrace import status

    living = [beat for beat in status.heartbeats(loop.store) if beat.role == "trainer" and beat.living(clock.now_us())]
    if living:
        terminal.say(f"asked the trainer on {living[0].host} (process {living[0].pid}); waiting …")
        entry = awaited(loop.version_log(), request, before, timeout_s)
        if entry is None:
            raise TrainingError(
                f"request {request.seq} was not answered within {clock.duration(timeout_s)}",
                hint="the request stays; `headrace status` shows whether the trainer lives and how far it is",
                request=request.seq,
            )
        return entry
    terminal.say("no trainer is running: training here (starting TensorFlow takes 10 to 30 s) …")
    return _train_here(loop, settings, request)


def awaited(log: Log, request: Entry, before: Entry | None, timeout_s: float) -> Entry | None:
    """The record of `log` after `before` that answers the request; None if none comes in time."""
    news = Follower(log, None if before is None else before.cursor())
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if (entry := answer_in(news.poll(), request)) is not None:
            return entry
        time.sleep(POLL_S)
    return None


def answer_in(entries: Iterable[Entry], request: Entry) -> Entry | None:
    """The first of some records that answers the request."""
    return next((entry for entry in entries if outcome_of(entry, request)), None)


def outcome_of(entry: Entry, request: Entry) -> str:
    """What a record says of the request; "" if nothing."""
    outcomes = entry.body["requests"].get("outcomes", [])
    return next((str(one["outcome"]) for one in outcomes if one["seq"] == request.seq), "")


def _train_here(loop: Loop, settings: Settings, request: Entry) -> Entry:
    with native_output("train"):
        from training.trainer import Trainer

        trainer = Trainer(loop, settings)
        entry = trainer.step(request=request)
        trainer.close()
    if entry is None:
        raise HeadraceError("the trainer made no version", hint="run `headrace doctor`", request=request.seq)
    return entry
