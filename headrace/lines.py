"""Every line that a process logs, declared once: name, level, fields, meaning.

    VERSION_COMMITTED(version=12, kind="delta", rows=500, until="2026-11-28T07:00:00Z")

logs `version.committed version=12 kind=delta rows=500 until=2026-11-28T07:00:00Z`; a message follows after a colon.
Names stay; messages may change. All go to one logger, `headrace`; whoever runs a process decides where they end, as
text or as JSON (`headrace.cli.journal`).
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Final

__all__ = [
    "GATE_MAX_HOLDS",
    "GATE_MAX_ROLLBACKS",
    "LINEAGE_BEGUN",
    "LOOP_CHANGED",
    "PIPELINE_READY",
    "PROCESS_DIED",
    "PROCESS_ENDED",
    "PROCESS_FAILED",
    "PROCESS_SAID",
    "PROCESS_STARTED",
    "PROCESS_STOPPED",
    "PROCESS_STOPPING",
    "PROCESS_UNWATCHED",
    "PROCESS_WAITING",
    "QUARANTINE_ALARM",
    "RETENTION_COLLECTED",
    "RETENTION_FAILED",
    "SERVER_CALL_FAILED",
    "SERVER_LISTENING",
    "SERVER_NO_LANE",
    "SERVER_POLL_FAILED",
    "SERVER_RECOVERED",
    "SERVER_STALLED",
    "SERVER_SWAPPED",
    "SHARDS_EXPIRED",
    "SHARD_COMMITTED",
    "SOURCE_BROKEN",
    "STORE_FULL",
    "STORE_ROOM_AGAIN",
    "STORE_UNMEASURED",
    "TRACK_LOGGED",
    "TRACK_MISSED",
    "TRACK_READY",
    "TRACK_REFUSED",
    "TRACK_REGISTERED",
    "TRACK_SNAPSHOT_GONE",
    "TRAINER_ASIDE_FAILED",
    "TRAINER_FROZEN_COLLECTED",
    "TRAINER_NO_WAY_BACK",
    "TRAINER_OTHER_MACHINE",
    "TRAINER_OTHER_ROWS",
    "TRAINER_READY",
    "TRAINER_RECOVERED",
    "VERSION_COMMITTED",
    "VERSION_HELD",
    "VERSION_ROLLED_BACK",
]

LOGGER: Final = logging.getLogger("headrace")

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR


@dataclass(frozen=True)
class Line:
    """A kind of line. `fields`: what it carries, in this order; `meaning`: a sentence for docs/logs.md."""

    name: str
    level: int
    fields: tuple[str, ...]
    meaning: str

    def __call__(self, message: str = "", *, trace: bool = False, **fields: object) -> None:
        """Logs one. `trace`: with the traceback of the exception that is being handled."""
        said = " ".join(message.splitlines())
        LOGGER.log(
            self.level,
            "%s",
            text_of(self.name, fields, said),
            exc_info=trace,
            stacklevel=2,
            extra={"line": self.name, "fields": fields, "said": said},
        )


def text_of(name: str, fields: dict[str, object], message: str) -> str:
    """A line for people.

    >>> text_of("track.logged", {"version": 12, "uri": "sqlite:///my mlflow.db"}, "at last")
    'track.logged version=12 uri="sqlite:///my mlflow.db": at last'
    """
    text = " ".join([name, *(f"{key}={_plain(value)}" for key, value in fields.items())])
    return f"{text}: {message}" if message else text


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if text and not any(char.isspace() or char in '"=' for char in text) else json.dumps(text)


PROCESS_STARTED: Final = Line("process.started", INFO, ("role", "pid", "code"), "A process that stays has begun.")
PROCESS_WAITING: Final = Line(
    "process.waiting", INFO, ("role", "pid", "host"), "Another process has the role; this one waits until it ends."
)
PROCESS_UNWATCHED: Final = Line(
    "process.unwatched", WARNING, ("port",), "Nothing listens for [observe]: the port is taken."
)
PROCESS_SAID: Final = Line("process.said", INFO, (), "Talk without a name of its own; only where lines are JSON.")
PROCESS_FAILED: Final = Line(
    "process.failed",
    ERROR,
    ("code", "fix"),
    "It ends with an error of docs/troubleshooting.md; as text that is three lines without this name.",
)
PROCESS_DIED: Final = Line(
    "process.died",
    ERROR,
    ("role", "exit_code", "again_s"),
    "A child of `headrace up` ended by itself; its last words follow.",
)
PROCESS_STOPPING: Final = Line("process.stopping", INFO, (), "It was asked to stop, and ends after this step.")
PROCESS_STOPPED: Final = Line("process.stopped", INFO, (), "The step is over; the message says how to go on.")
PROCESS_ENDED: Final = Line("process.ended", INFO, ("role", "lived_s"), "It ends as it was asked to.")

LOOP_CHANGED: Final = Line("loop.changed", INFO, ("what",), "`headrace up` sees something of the loop change.")

PIPELINE_READY: Final = Line("pipeline.ready", INFO, ("root",), "The pipeline reads its sources.")
SHARD_COMMITTED: Final = Line(
    "shard.committed", INFO, ("record", "emitted", "until"), "A tick is committed; examples so far, events up to when."
)
SOURCE_BROKEN: Final = Line(
    "source.broken",
    WARNING,
    ("stream", "partition", "files", "pieces", "record"),
    "Files that cannot be read to their end, and pieces of files that cannot be read; quarantine has one event of each,"
    " `broken_file` or `broken_piece`, that says where.",
)
QUARANTINE_ALARM: Final = Line(
    "quarantine.alarm",
    WARNING,
    ("stream", "refused", "of", "record"),
    "More than `quarantine_alarm` of a tick was refused.",
)

TRAINER_READY: Final = Line("trainer.ready", INFO, ("root",), "The trainer follows the shard log.")
TRAINER_RECOVERED: Final = Line(
    "trainer.recovered",
    INFO,
    ("version", "replayed"),
    "The state of a version is there; so many versions were learned again.",
)
TRAINER_OTHER_MACHINE: Final = Line(
    "trainer.other_machine", WARNING, ("checkpoint",), "The checkpoint was written by another machine or library."
)
TRAINER_OTHER_ROWS: Final = Line("trainer.other_rows", WARNING, (), "Replay gave other rows than were published.")
TRAINER_FROZEN_COLLECTED: Final = Line(
    "trainer.frozen_collected", WARNING, ("version",), "The version that `frozen` stood for was collected."
)
TRAINER_ASIDE_FAILED: Final = Line(
    "trainer.aside_failed", WARNING, ("what",), "A checkpoint or snapshot could not be written; the older one stays."
)
TRAINER_NO_WAY_BACK: Final = Line(
    "trainer.no_way_back",
    WARNING,
    ("version",),
    "A version proved worse, and the one before it cannot be gone back to.",
)
LINEAGE_BEGUN: Final = Line(
    "lineage.begun", WARNING, ("after",), "The model begins anew, with other features or another kind."
)
VERSION_COMMITTED: Final = Line(
    "version.committed", INFO, ("version", "kind", "rows", "until"), "A version: rows of its table, events up to when."
)
VERSION_HELD: Final = Line(
    "version.held", WARNING, ("version",), "A gate refused a candidate; servers stay where they are."
)
VERSION_ROLLED_BACK: Final = Line(
    "version.rolled_back", WARNING, ("version", "to"), "What was learned proved worse: the trainer went back."
)
GATE_MAX_HOLDS: Final = Line("gate.max_holds", WARNING, ("row",), "As many holds in a row as [gate] allows.")
GATE_MAX_ROLLBACKS: Final = Line(
    "gate.max_rollbacks", WARNING, ("row",), "As many rollbacks in a row as [gate] allows."
)

SERVER_LISTENING: Final = Line("server.listening", INFO, ("address",), "Calls are taken.")
SERVER_SWAPPED: Final = Line(
    "server.swapped", INFO, ("version", "until"), "Answers come from this version, from now on."
)
SERVER_STALLED: Final = Line(
    "server.stalled",
    WARNING,
    ("version", "fix"),
    "Something keeps the server from the newest version; it answers from this one.",
)
SERVER_RECOVERED: Final = Line(
    "server.recovered", INFO, ("version",), "What kept the server from the newest version is over."
)
SERVER_POLL_FAILED: Final = Line("server.poll_failed", ERROR, (), "A defect while following the version log.")
SERVER_CALL_FAILED: Final = Line("server.call_failed", ERROR, ("method",), "A defect while answering a call.")
SERVER_NO_LANE: Final = Line(
    "server.no_lane", WARNING, ("grpcio",), "Predict takes grpcio's own path, which is slower."
)

TRACK_READY: Final = Line("track.ready", INFO, ("root", "uri"), "The tracker follows the version log.")
TRACK_LOGGED: Final = Line(
    "track.logged", INFO, ("version", "versions"), "MLflow shows so many more, up to this version."
)
TRACK_MISSED: Final = Line(
    "track.missed", WARNING, ("versions",), "Versions were collected before MLflow could show them."
)
TRACK_REFUSED: Final = Line("track.refused", WARNING, ("wait_s",), "MLflow refuses; it is tried again.")
TRACK_REGISTERED: Final = Line("track.registered", INFO, ("version", "model"), "A snapshot became a model version.")
TRACK_SNAPSHOT_GONE: Final = Line(
    "track.snapshot_gone", WARNING, ("version",), "A snapshot was collected before it became a model version."
)

RETENTION_COLLECTED: Final = Line(
    "retention.collected", INFO, ("log", "records", "files"), "[retention] let go of these."
)
RETENTION_FAILED: Final = Line("retention.failed", WARNING, ("log",), "A pass of retention failed; it is tried again.")
SHARDS_EXPIRED: Final = Line(
    "shards.expired",
    WARNING,
    ("model", "count"),
    "Shard records were held longer than `held_s`: they cannot be released.",
)
STORE_FULL: Final = Line("store.full", WARNING, (), "Nothing is committed until there is room.")
STORE_ROOM_AGAIN: Final = Line("store.room_again", INFO, ("store",), "There is room again.")
STORE_UNMEASURED: Final = Line("store.unmeasured", WARNING, (), "The root could not be measured against `max_bytes`.")
