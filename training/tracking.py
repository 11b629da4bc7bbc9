"""MLflow as a follower of the version log: `headrace track`, its own process.

One run per UTC day of a loop and model (training/dayrun.py); a step is a version, its timestamp the record's
`created_at_us`, so a step that is logged twice is the same row for MLflow. Snapshots become model versions that
`mlflow.pyfunc` loads (training/registry.py), with the aliases `champion` and `previous`.

The order for the versions of one day that are new:

    1. find the day's run by its tags, or create it with the cursor so far   a death leaves a run without new steps
    2. add to the artefact `decisions.json` what was decided against them    a death leaves some: those are not repeated
    3. log_batch: the metrics of all steps                                   a death leaves some: the same rows again
    4. set the cursor tag                                                    a death before it: all of this again
    5. register the snapshot that is due, move the aliases                   the next process looks at the newest record
                                                                             again: see training/registry.py

The cursor `{seq, sha256}` is the tag `headrace.cursor` of the newest run, so MLflow itself remembers how far it is and
any process may go on. Nothing waits for this follower: where MLflow refuses, hangs or is full, it tries again, 1 s to
60 s apart, from a thread of its own, so that it can be stopped meanwhile; its heartbeat says what is wrong. Versions
that were collected while it was away ([followers] says how long it may be) are missed, which it says; it goes on with
the oldest that is left.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from headrace import lines, metrics
from headrace.address import hidden, shown
from headrace.clock import SECOND_US
from headrace.errors import HeadraceError, LogRewritten, MissingLibrary, TrainingError
from headrace.log import Entry, Follower
from headrace.status import Pulse
from headrace.version import VersionRecord
from training.dayrun import Days, day_of, experiment_of
from training.registry import LOOP, MODEL, ROOT, Registry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from headrace.config import Settings
    from headrace.loop import Loop


ROLE = "tracker"
GRACE_S = 2.0  # for a call that is under way when it is stopped; one that is cut off is made again
BATCH_METRICS = 1_000
"""MLflow's limit for one log_batch."""

AT_ONCE = 1_000
"""Versions in memory at a time: a tracker that was away for a day has 86,400 to log."""

SQLITE = "sqlite:///"


def open_client(uri: str) -> MlflowClient:
    """A client for `uri`, with telemetry off. Creates the tables of a new database (seconds, once). MissingLibrary."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # of an upload, too; `run` tries again by itself
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    from mlflow import MlflowClient

    try:
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    except ModuleNotFoundError as missing:  # the driver of a database
        raise MissingLibrary(
            f"[track] uri begins with {uri.partition(':')[0]}:, which needs a library: {missing}",
            hint="for PostgreSQL: pip install 'headrace[postgres]'",
            library=missing.name,
        ) from None


def measures_of(record: VersionRecord) -> dict[str, float]:
    """The numbers of one version, by metric name."""
    found: dict[str, float] = dict(_numbers(record.evaluation))
    found["published_rows"] = float(record.digest.get("rows", 0))
    found["held"] = float(sum(high - low for low, high in record.held_now))
    if record.delta is not None:
        found["delta_bytes"] = float(record.delta.bytes)
    if record.watermark_us is not None:
        found["freshness_s"] = (record.created_at_us - record.watermark_us) / SECOND_US
    return found


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)


class Tracker:
    """Copies the versions of one model to MLflow, each once.

    connect: gives an MlflowClient (`open_client`), anew after each failure; all that it and the client raise passes
    through `step` and is retried by `run`. example: one event of the source as a request, if there is one.
    """

    _client: MlflowClient
    _days: Days
    _registry: Registry

    def __init__(
        self,
        loop: Loop,
        settings: Settings,
        *,
        connect: Callable[[], MlflowClient],
        model: str = "default",
        example: Callable[[], Mapping[str, Any] | None] = lambda: None,
    ) -> None:
        self.problem = ""  # why nothing is logged
        self.missed = 0  # versions that were collected before they were logged
        self._connect = connect
        self._store = loop.store
        self._log = loop.version_log(model)
        self._settings, self._example = settings, example
        self._name = settings.loop.name if model == "default" else f"{settings.loop.name}-{model}"
        self._tags = {LOOP: settings.loop.name, MODEL: model, ROOT: str(loop.created_us)}
        self._follower: Follower | None = None
        self._logged: int | None = None

    def step(self) -> int:
        """Logs every version that is new; how many. After an exception nothing is forgotten: call again."""
        logged = some = self._some(opened=self._opened())
        while some == AT_ONCE:
            some = self._some()
            logged += some
        return logged

    def _opened(self) -> bool:
        if self._follower is not None:
            return False
        self._open()
        return True

    def _some(self, *, opened: bool = False) -> int:
        """Logs the next `AT_ONCE` versions, if there are so many. opened: they are the first since MLflow was asked."""
        assert self._follower is not None
        try:
            entries = self._polled(self._follower)
            records = [(entry, VersionRecord.from_entry(entry)) for entry in entries]
            for _, group in groupby(records, key=lambda pair: day_of(pair[1])):
                self._log_day(list(group))
            self._register([record for _, record in records], opened=opened)
        except BaseException:
            self._follower = None  # the cursor in MLflow says where to go on
            raise
        if entries:
            metrics.TRACKED_VERSION.set(entries[-1].seq)
            lines.TRACK_LOGGED(version=entries[-1].seq, versions=len(entries))
        return len(entries)

    def once(self) -> int:
        """`step`, and done. TrainingError where MLflow refuses."""
        try:
            logged = self.step()
            self.close()
        except HeadraceError:
            raise
        except Exception as refused:
            raise TrainingError(
                f"MLflow at {shown(self._settings.track.uri)} refuses: {self._told(refused)}",
                hint="is it running, and is [track] uri right? What was logged stays; run it again",
            ) from refused
        return logged

    def close(self) -> None:
        """Says in MLflow that this tracker is done for now."""
        if self._follower is not None:
            self._days.close()

    def _open(self) -> None:
        self._client, track = self._connect(), self._settings.track
        experiment = track.experiment or self._settings.loop.name
        experiment_id = experiment_of(self._client, experiment, _artifacts_of(track.uri, experiment))
        self._days = Days(self._client, experiment_id, self._name, self._tags, self._settings)
        self._registry = Registry(
            self._client,
            self._name,
            tags=self._tags,
            store=self._store,
            log=self._log,
            settings=track,
            example=self._example,
        )
        self._days.resume()
        cursor = self._days.current.cursor if self._days.current else None
        self._logged = cursor.seq if cursor else None
        self._follower = Follower(self._log, cursor)

    def _polled(self, follower: Follower) -> list[Entry]:
        """What is new; after too long an absence, what is left."""
        before = follower.cursor
        try:
            return follower.poll(AT_ONCE)
        except LogRewritten:
            first = self._log.first()
            if before is None or first is None:
                raise
            missed = max(0, first.seq - before.seq - 1)
            self.missed += missed
            why = f"version {before.seq} is gone, as are all before version {first.seq}, with which the log begins now"
            if first.seq <= before.seq:
                why = f"version {before.seq} is another one than was logged: a restored root; all is logged again"
            lines.TRACK_MISSED(why, versions=missed)
            self._follower = Follower(self._log)
            return self._follower.poll(AT_ONCE)

    def run(self, *, stop: Callable[[], bool], poll_s: float = 1.0) -> None:
        """Follows until `stop()`. MLflow refusing, hanging or full is waited out; a call that hangs is left behind."""
        failed: list[BaseException] = []

        def follow() -> None:
            try:
                self._follow(stop, poll_s)
            except Exception as error:  # noqa: BLE001  raised again by `run`
                failed.append(error)

        with Pulse(self._store, ROLE, self._info):
            thread = threading.Thread(target=follow, name="track", daemon=True)
            thread.start()
            while thread.is_alive() and not stop():
                thread.join(0.1)
            thread.join(GRACE_S)
        if failed:
            raise failed[0]

    def _follow(self, stop: Callable[[], bool], poll_s: float) -> None:
        wait_s = poll_s
        while not stop():
            try:
                self.step()
                wait_s, self.problem = poll_s, ""
            except Exception as refused:  # noqa: BLE001  MLflow's, its database's, its object store's: all are waited out
                wait_s = min(2 * wait_s, 60.0)
                self.problem = self._told(refused)
                lines.TRACK_REFUSED(self.problem, wait_s=wait_s)
            _sleep(wait_s, stop)
        with contextlib.suppress(Exception):
            self.close()

    def _told(self, refused: Exception) -> str:
        """The first line of an error, without the password of the address."""
        said = hidden(str(refused), self._settings.track.uri).splitlines()
        return said[0] if said else type(refused).__name__

    def _info(self) -> dict[str, Any]:
        return {"version": self._logged, "problem": self.problem, "missed": self.missed}

    def _log_day(self, records: Sequence[tuple[Entry, VersionRecord]]) -> None:
        """Steps 1 to 4, for versions of one day."""
        made = [record for _, record in records]
        run = self._days.open(made[0])
        self._days.decide(made)
        for some in _batches(made):
            self._client.log_batch(run.id, metrics=some)
        self._days.draw_when_due(made[-1].created_at_us)
        newest = records[-1][0].cursor()
        self._days.advance(newest)
        self._logged = newest.seq

    def _register(self, made: Sequence[VersionRecord], *, opened: bool) -> None:
        """Step 5; after a start also for the newest version, whose snapshot a dead tracker may have left."""
        if opened and not made:
            head = self._log.head()
            made = [] if head is None else [VersionRecord.from_entry(head)]
        if made and self._days.current is not None:
            self._registry.follow(self._days.current.id, made)


def _batches(records: Sequence[VersionRecord]) -> Iterator[list[Metric]]:
    from mlflow.entities import Metric

    batch: list[Metric] = []
    for record in records:
        at_ms = record.created_at_us // 1_000
        found = [Metric(name, value, at_ms, record.version) for name, value in measures_of(record).items()]
        if len(batch) + len(found) > BATCH_METRICS:
            yield batch
            batch = []
        batch += found[:BATCH_METRICS]
    if batch:
        yield batch


def _artifacts_of(uri: str, name: str) -> str | None:
    """Where the files of an experiment go: beside its sqlite file; a server decides for itself."""
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).absolute().parent / "mlartifacts" / quote(name, safe="")).as_uri()


def _sleep(seconds: float, stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not stop() and time.monotonic() < until:
        time.sleep(min(0.2, max(0.0, until - time.monotonic())))
