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
    │   ├── GateRefused          training.gate       a candidate was held                            exit 3
    │   ├── ExportRefused        training.export     a version cannot be exported so, or not there   exit 2
    │   └── ImportRefused        training.import     a model cannot be begun from                    exit 2
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
change next. An error is raised, never logged and passed over. The docstring of each class says what happened and, after
`Next:`, what to do in general: `docs/troubleshooting.md` is made of them.
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
    """A setting or an option is missing, unknown or cannot be right.

    Next: correct the named place; `headrace config check` tries the whole file on your events.
    """

    code = "config.invalid"
    exit_code = 2


class NotImplementedYet(SettingsError):
    """A setting of the design that this headrace does not have yet.

    Next: use what the message offers instead, or remove the setting.
    """

    code = "config.not_implemented"


class StoreError(HeadraceError):
    """The place where logs and files live does not do what it should.

    Next: look at the path in the message; `headrace doctor` tries the store.
    """

    code = "store.failed"


class NotFound(StoreError):
    """A file that should be in the store is not there.

    Next: check `loop.root`; a file that a record names and that is gone must come back from a copy.
    """

    code = "store.not_found"


class Exists(StoreError):
    """A new file was to be written under a name that is taken.

    Next: nothing was overwritten; run the command again, and if it repeats, see whether a second process writes there.
    """

    code = "store.exists"


class Ambiguous(StoreError):
    """The store gave no answer to a write: it may have happened.

    Next: wait until the store answers and run the command again; what was written is recognised.
    """

    code = "store.ambiguous"


class StoreFull(StoreError):
    """No space is left, a size limit is reached, or writing is not permitted.

    Next: free space or give the right to write; running stages wait and go on by themselves.
    """

    code = "store.full"


class StoreRefused(StoreError):
    """The store cannot keep what headrace promises, or a path in it is not a plain one.

    Next: use a local folder or an object store with conditional writes for `loop.root`.
    """

    code = "store.refused"


class LogError(HeadraceError):
    """A log cannot be read or continued.

    Next: `headrace log verify` says which record.
    """

    code = "log.failed"


class DamagedFile(LogError):
    """The bytes of a file or record do not have the hash that the log names.

    Next: restore that file from a copy; `headrace log verify --deep` finds all of them. Nothing damaged is ever used.
    """

    code = "log.damaged"
    exit_code = 4


class NewerFormat(LogError):
    """A newer headrace wrote this.

    Next: upgrade headrace here; a server keeps what it serves meanwhile.
    """

    code = "log.newer"


class LostRace(LogError):
    """Another writer committed the record first; `context` has its entry as `winner`.

    Next: nothing is lost; run the command again. See `headrace status` for who else writes.
    """

    code = "log.lost_race"


class LogRewritten(LogError):
    """A record that was read before is gone or has other bytes: the log was restored or replaced.

    Next: if you restored it on purpose, start the process again; if not, find out who did.
    """

    code = "log.rewritten"
    exit_code = 4


class Busy(LogError):
    """A living process of the same kind has the role.

    Next: `headrace status` says which; stop it (`headrace down`), or let it work.
    """

    code = "log.busy"


class SourceError(HeadraceError):
    """Events cannot be read.

    Next: see the file in the message: its rights, its place, its format.
    """

    code = "source.failed"


class SourceVanished(SourceError):
    """The source, or a file that is being read, is not there.

    Next: correct `source`, or put the file back: a file may go only once a later one is being read.
    """

    code = "source.vanished"


class SourceChanged(SourceError):
    """Another file than the one that was read lies there, or one changed behind the cursor.

    Next: put it back as it was, or, if it came late, move it to a name that sorts after those already read: the message
    has the command. Write new events under such names.
    """

    code = "source.changed"


class SourceTruncated(SourceError):
    """A file is shorter than what was read of it.

    Next: put it back as it was; write new events under a new name instead of truncating.
    """

    code = "source.truncated"


class MissingLibrary(SourceError):
    """A library that this kind of source or store needs is not installed.

    Next: install the extra that the message names.
    """

    code = "source.library"


class EventError(HeadraceError):
    """What stands in the events does not fit the settings.

    Next: `headrace config check` shows which events and values.
    """

    code = "event.failed"


class MissingFeature(EventError):
    """No event has a feature, or a request leaves one out.

    Next: correct `column` or `path` of the feature; a request names every feature, `name=` for a missing value.
    """

    code = "event.missing_feature"


class WrongType(EventError):
    """A column has a type that its feature, id or label cannot take.

    Next: choose another kind for the feature, or write the column as the message says.
    """

    code = "event.wrong_type"


class TooManyInvalid(EventError):
    """So many events of a tick were refused that the settings must be wrong. Nothing was committed.

    Next: `headrace config check` names reasons and values; correct [streams], or raise `pipeline.quarantine_stop`.
    """

    code = "event.too_many_invalid"


class AccountingError(HeadraceError):
    """The sums of a record do not hold. Nothing was committed.

    Next: this is a defect of headrace: please report it with the message.
    """

    code = "accounting.broken"


class LineageError(HeadraceError):
    """A label would have been learned from before it was known.

    Next: this is a defect of headrace: please report it with the message.
    """

    code = "lineage.leak"


class InvalidTarget(HeadraceError):
    """A version that cannot be gone back to, pinned or shown, or a shard that is not held.

    Next: `headrace versions list` and `headrace status` say what there is; `[retention] rollback_s` says how far back.
    """

    code = "version.target"
    exit_code = 2


class TrainingError(HeadraceError):
    """The trainer cannot go on.

    Next: see the message and `logs/trainer.log`; what was published stays served.
    """

    code = "training.failed"


class TowerRefused(TrainingError):
    """The model cannot be served as it was trained.

    Next: use one of the built-in kinds, or make the model smaller.
    """

    code = "training.tower"


class GateRefused(TrainingError):
    """A candidate was held. What is served stays.

    Next: `headrace versions show` has the reasons; look at the shard, then `headrace release` it or leave it held.
    """

    code = "training.gate"
    exit_code = 3


class ExportRefused(TrainingError):
    """A version that cannot be exported as it was asked, or not to that place. Nothing was written there.

    Next: see the message; `headrace versions list` says what there is, `headrace export --help` how to name a place.
    """

    code = "training.export"
    exit_code = 2


class ImportRefused(TrainingError):
    """Rows of another model that this loop cannot begin from. Nothing was changed.

    Next: see the message; `headrace import MODEL` without --map lists the layers and features that there are.
    """

    code = "training.import"
    exit_code = 2


class ServingError(HeadraceError):
    """The server cannot answer.

    Next: `headrace status` says who runs and what is served.
    """

    code = "serving.failed"


class UnknownModel(ServingError):
    """The server has no model of that name.

    Next: leave the model out, or name the one in the message.
    """

    code = "serving.unknown_model"


class InvalidRequest(ServingError):
    """A request that cannot be answered as it is.

    Next: name every feature once, with one value or one per candidate; `headrace predict --help` has examples.
    """

    code = "serving.invalid_request"
    exit_code = 2


class NotReady(ServingError):
    """The server has no version yet, or features of another schema.

    Next: start the loop (`headrace up`); after changed [features], wait for the new lineage or send raw values.
    """

    code = "serving.not_ready"


class Overloaded(ServingError):
    """More calls came at once than the server takes.

    Next: call again after a moment; add a replica (`headrace serve --port …`).
    """

    code = "serving.overloaded"


class TooLate(ServingError):
    """The deadline of a call had passed before it was worked on.

    Next: give calls more time, or send fewer at once.
    """

    code = "serving.too_late"


class Draining(ServingError):
    """The server is ending and takes no new calls.

    Next: call another replica, or again once it is back.
    """

    code = "serving.draining"


class Unreachable(ServingError):
    """Nothing answers at the address.

    Next: start a server (`headrace serve` or `headrace up`), or correct --address.
    """

    code = "serving.unreachable"


class PortInUse(ServingError):
    """Another process has the port.

    Next: stop that process, or set `port` in [serve].
    """

    code = "serving.port_in_use"
