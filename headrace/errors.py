"""Every error that headrace raises on purpose.

    HeadraceError
    ├── SettingsError            config.*   the settings file or an option is wrong             exit 2
    │   └── NotImplementedYet    config.not_implemented
    ├── StoreError               store.*    the place where logs and files live
    │   ├── NotFound             store.not_found
    │   ├── Exists               store.exists        put_if_absent found the name taken
    │   ├── Ambiguous            store.ambiguous     the answer was lost: the write may have happened
    │   ├── StoreFull            store.full          no space, or no permission to write
    │   └── StoreRefused         store.refused       cannot keep headrace's promises (no conditional create, bad path)
    ├── LogError                 log.*
    │   ├── DamagedFile          log.damaged         bytes do not have the hash that a record names  exit 4
    │   ├── NewerFormat          log.newer           written by a newer headrace
    │   ├── LostRace             log.lost_race       another writer committed this number
    │   ├── LogRewritten         log.rewritten       a record that was read is gone or differs       exit 4
    │   └── Busy                 log.busy            a living writer of the same kind holds the log
    ├── SourceError              source.*   what events are read from
    │   ├── SourceVanished       source.vanished
    │   ├── SourceChanged        source.changed      another file or topic than the committed one
    │   ├── SourceTruncated      source.truncated    the end lies before the committed position
    │   └── MissingLibrary       source.library      an extra is not installed
    ├── EventError               event.*    what stands in the events
    │   ├── MissingFeature       event.missing_feature
    │   ├── WrongType            event.wrong_type
    │   └── TooManyInvalid       event.too_many_invalid
    ├── AccountingError          accounting.broken   the sums of a record do not hold: a defect of headrace
    ├── LineageError             lineage.leak        a label was learned from before it was known
    ├── InvalidTarget            version.target      a version that cannot be gone back to, or pinned   exit 2
    ├── TrainingError            training.*
    │   ├── TowerRefused         training.tower      the model cannot be served as it is trained
    │   └── GateRefused          training.gate       a candidate was held                            exit 3
    └── ServingError             serving.*
        ├── UnknownModel         serving.unknown_model
        ├── InvalidRequest       serving.invalid_request                                             exit 2
        ├── NotReady             serving.not_ready   no loop, or another schema
        ├── Overloaded           serving.overloaded
        ├── TooLate              serving.too_late    the deadline had passed before an answer was worked on
        ├── Draining             serving.draining
        ├── Unreachable          serving.unreachable nothing answers at the address
        └── PortInUse            serving.port_in_use

Each carries what is needed to find the thing (`context`) and, where there is something to do, a `hint`: what to run or
change next. An error is raised, never logged and passed over.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HeadraceError(Exception):
    """Base of all. `str(error)` is one sentence; `hint` says what to do next; `context` has paths, keys, numbers."""

    code: ClassVar[str] = "headrace"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def __reduce__(self) -> tuple[Any, ...]:  # errors travel through Beam, which pickles them
        return _rebuild, (type(self), self.message, self.hint, self.context)

    def to_json(self) -> dict[str, Any]:
        """The form that `--json` prints: `{"error": code, "message", "hint", "context"}`."""
        context = {key: str(value) for key, value in self.context.items()}
        return {"error": self.code, "message": self.message, "hint": self.hint, "context": context}


def _rebuild(kind: type[HeadraceError], message: str, hint: str, context: dict[str, Any]) -> HeadraceError:
    return kind(message, hint=hint, **context)


class SettingsError(HeadraceError):
    code = "config.invalid"
    exit_code = 2


class NotImplementedYet(SettingsError):
    code = "config.not_implemented"


class StoreError(HeadraceError):
    code = "store.failed"


class NotFound(StoreError):
    code = "store.not_found"


class Exists(StoreError):
    code = "store.exists"


class Ambiguous(StoreError):
    code = "store.ambiguous"


class StoreFull(StoreError):
    code = "store.full"


class StoreRefused(StoreError):
    code = "store.refused"


class LogError(HeadraceError):
    code = "log.failed"


class DamagedFile(LogError):
    code = "log.damaged"
    exit_code = 4


class NewerFormat(LogError):
    code = "log.newer"


class LostRace(LogError):
    """Another writer committed the record; `context["winner"]` is its entry."""

    code = "log.lost_race"


class LogRewritten(LogError):
    code = "log.rewritten"
    exit_code = 4


class Busy(LogError):
    code = "log.busy"


class SourceError(HeadraceError):
    code = "source.failed"


class SourceVanished(SourceError):
    code = "source.vanished"


class SourceChanged(SourceError):
    code = "source.changed"


class SourceTruncated(SourceError):
    code = "source.truncated"


class MissingLibrary(SourceError):
    code = "source.library"


class EventError(HeadraceError):
    code = "event.failed"


class MissingFeature(EventError):
    code = "event.missing_feature"


class WrongType(EventError):
    code = "event.wrong_type"


class TooManyInvalid(EventError):
    code = "event.too_many_invalid"


class AccountingError(HeadraceError):
    code = "accounting.broken"


class LineageError(HeadraceError):
    code = "lineage.leak"


class InvalidTarget(HeadraceError):
    code = "version.target"
    exit_code = 2


class TrainingError(HeadraceError):
    code = "training.failed"


class TowerRefused(TrainingError):
    code = "training.tower"


class GateRefused(TrainingError):
    code = "training.gate"
    exit_code = 3


class ServingError(HeadraceError):
    code = "serving.failed"


class UnknownModel(ServingError):
    code = "serving.unknown_model"


class InvalidRequest(ServingError):
    code = "serving.invalid_request"
    exit_code = 2


class NotReady(ServingError):
    code = "serving.not_ready"


class Overloaded(ServingError):
    code = "serving.overloaded"


class TooLate(ServingError):
    code = "serving.too_late"


class Draining(ServingError):
    code = "serving.draining"


class Unreachable(ServingError):
    code = "serving.unreachable"


class PortInUse(ServingError):
    code = "serving.port_in_use"
