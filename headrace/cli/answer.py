"""The trainer's answer to a request: the resident one's, or that of one that is started here for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace import clock
from headrace.cli import terminal
from headrace.cli.quiet import native_output
from headrace.errors import HeadraceError, TrainingError

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.log import Entry
    from headrace.loop import Loop

POLL_S = 0.2


def answered(loop: Loop, settings: Settings, request: Entry, seen: int, timeout_s: float) -> Entry:
    """The version record after `seen` that answers the request. TrainingError if none comes in time."""
    from headrace import status

    living = [beat for beat in status.heartbeats(loop.store) if beat.role == "trainer" and beat.living(clock.now_us())]
    if living:
        terminal.say(f"asked the trainer on {living[0].host} (process {living[0].pid}); waiting …")
        return _answer(loop, request, seen, timeout_s)
    terminal.say("no trainer is running: training here (starting TensorFlow takes 10 to 30 s) …")
    return _train_here(loop, settings, request)


def outcome_of(entry: Entry, request: Entry) -> str:
    """What the version record says of the request."""
    outcomes = entry.body["requests"].get("outcomes", [])
    return next((str(one["outcome"]) for one in outcomes if one["seq"] == request.seq), "")


def _answer(loop: Loop, request: Entry, seen: int, timeout_s: float) -> Entry:
    """The version record after `seen` that answers the request."""
    log = loop.version_log()
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        head = log.head()
        while head is not None and seen < head.seq:
            seen += 1
            entry = log.read(seen)
            if any(outcome["seq"] == request.seq for outcome in entry.body["requests"].get("outcomes", [])):
                return entry
        time.sleep(POLL_S)
    raise TrainingError(
        f"request {request.seq} was not answered within {clock.duration(timeout_s)}",
        hint="the request stays; `headrace status` shows whether the trainer lives and how far it is",
        request=request.seq,
    )


def _train_here(loop: Loop, settings: Settings, request: Entry) -> Entry:
    with native_output("train"):
        from training.trainer import Trainer

        trainer = Trainer(loop, settings)
        entry = trainer.step(request=request)
        trainer.close()
    if entry is None:
        raise HeadraceError("the trainer made no version", hint="run `headrace doctor`", request=request.seq)
    return entry
