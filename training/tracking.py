"""MLflow as a follower of the version log: `headrace track`, its own process.

One run per UTC day of a loop and model; a step is a version, its timestamp the record's `created_at_us`, so a step that
is logged twice is the same row for MLflow. Snapshots become model versions (by reference: `source` is where the
snapshot lies; nothing is copied, loaded or pickled) with the aliases `champion` and `previous`.

The order for the versions of one day that are new:

    1. find the day's run by its tags, or create it with the cursor so far   a death leaves a run without new steps
    2. register the snapshots that the records name: look up by tag
       `headrace.version`, create what is missing                            a death leaves some: the look-up finds them
    3. move the aliases                                                      a death leaves them old: moved again
    4. one log_batch: the metrics of all steps, then the cursor tag          a death between leaves the cursor old: the
                                                                             same metrics are logged again, no new rows

The cursor `{seq, sha256}` is the tag `headrace.cursor` of the newest run, so MLflow itself remembers how far it is and
any process may go on. Nothing waits for this follower: where MLflow refuses, hangs or is full, it tries again, 1 s to
60 s apart, from a thread of its own, so that it can be stopped meanwhile; its heartbeat says what is wrong. Versions
that were collected while it was away ([followers] says how long it may be) are missed, which it says; it goes on with
the oldest that is left.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from headrace import lines, metrics
from headrace.clock import SECOND_US
from headrace.errors import HeadraceError, LogRewritten, NotFound, TrainingError
from headrace.log import Cursor, Entry, Follower
from headrace.status import Pulse
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from headrace.config import Settings
    from headrace.loop import Loop


ROLE = "tracker"
GRACE_S = 2.0  # for a call that is under way when it is stopped; one that is cut off is made again
BATCH_METRICS = 1_000
"""MLflow's limit for one log_batch."""

CURSOR, DAY, LOOP, MODEL, VERSION = (f"headrace.{name}" for name in ("cursor", "day", "loop", "model", "version"))


def open_client(uri: str) -> MlflowClient:
    """A client for `uri`, with telemetry off. Creates the tables of a new sqlite file (seconds, once)."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # else 120 s, eight times; `run` tries again by itself
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def day_of(record: VersionRecord) -> str:
    """The UTC day that a version was made on, `2013-12-31`."""
    return datetime.fromtimestamp(record.created_at_us / SECOND_US, UTC).strftime("%Y-%m-%d")


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


@dataclass(frozen=True)
class _Run:
    id: str
    day: str
    cursor: Cursor | None


class Tracker:
    """Copies the versions of one model to MLflow, each once.

    connect: gives an MlflowClient (`open_client`), anew after each failure; all that it and the client raise passes
    through `step` and is retried by `run`.
    """

    _client: MlflowClient

    def __init__(
        self, loop: Loop, settings: Settings, *, connect: Callable[[], MlflowClient], model: str = "default"
    ) -> None:
        self.problem = ""  # why nothing is logged
        self.missed = 0  # versions that were collected before they were logged
        self._connect = connect
        self._store = loop.store
        self._log = loop.version_log(model)
        self._experiment = settings.track.experiment or settings.loop.name
        self._name = settings.loop.name if model == "default" else f"{settings.loop.name}-{model}"
        self._tags = {LOOP: settings.loop.name, MODEL: model}
        self._follower: Follower | None = None
        self._run: _Run | None = None
        self._experiment_id = ""
        self._seen: set[int] = set()  # snapshots that are registered, with the aliases moved since

    def step(self) -> int:
        """Logs every version that is new; how many. After an exception nothing is forgotten: call again."""
        if self._follower is None:
            self._client = self._connect()
            self._experiment_id = self._find_experiment()
            self._run = self._newest_run()
            self._follower = Follower(self._log, self._run.cursor if self._run else None)
        try:
            entries = self._polled(self._follower)
            records = [(entry, VersionRecord.from_entry(entry)) for entry in entries]
            for day, group in groupby(records, key=lambda pair: day_of(pair[1])):
                self._log_day(day, list(group))
        except BaseException:
            self._follower = None  # the cursor in MLflow says where to go on
            raise
        if entries:
            metrics.TRACKED_VERSION.set(entries[-1].seq)
            lines.TRACK_LOGGED(version=entries[-1].seq, versions=len(entries))
        return len(entries)

    def _polled(self, follower: Follower) -> list[Entry]:
        """What is new; after too long an absence, what is left."""
        before = follower.cursor
        try:
            return follower.poll()
        except LogRewritten:
            first = self._log.first()
            if before is None or first is None:
                raise
            missed = max(0, first.seq - before.seq - 1)
            self.missed += missed
            gone = f"version {before.seq} is gone, as are all before version {first.seq}, with which the log begins now"
            lines.TRACK_MISSED(gone, versions=missed)
            self._follower = Follower(self._log)
            return self._follower.poll()

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
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        wait_s = poll_s
        while not stop():
            try:
                self.step()
                wait_s, self.problem = poll_s, ""
            except (MlflowException, SQLAlchemyError, OSError, HeadraceError) as refused:
                wait_s = min(2 * wait_s, 60.0)
                self.problem = str(refused).splitlines()[0]
                lines.TRACK_REFUSED(self.problem, wait_s=wait_s)
            _sleep(wait_s, stop)

    def _info(self) -> dict[str, Any]:
        logged = self._run.cursor if self._run else None
        return {"version": logged.seq if logged else None, "problem": self.problem, "missed": self.missed}

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            return str(self._client.create_experiment(self._experiment))
        if found.lifecycle_stage != "active":
            raise TrainingError(
                f"the MLflow experiment {self._experiment!r} was deleted",
                hint="restore it in MLflow, or set another name: [track] experiment",
                experiment=self._experiment,
            )
        return str(found.experiment_id)

    def _runs(self, extra: str = "") -> list[_Run]:
        mine = " and ".join(f"tags.`{key}` = '{value}'" for key, value in self._tags.items())
        found = self._client.search_runs(
            [self._experiment_id], mine + extra, max_results=1, order_by=["attributes.start_time DESC"]
        )
        return [_run_of(run) for run in found]

    def _newest_run(self) -> _Run | None:
        return next(iter(self._runs()), None)

    def _run_of_day(self, day: str, record: VersionRecord) -> _Run:
        if self._run is not None and self._run.day == day:
            return self._run
        for known in self._runs(f" and tags.`{DAY}` = '{day}'"):
            return known
        before = self._run
        tags = {**self._tags, DAY: day, "mlflow.runName": f"{self._name} {day}"}
        if before is not None and before.cursor is not None:
            tags[CURSOR] = json.dumps(before.cursor.to_json())
        started_ms = record.created_at_us // 1_000
        made = self._client.create_run(self._experiment_id, start_time=started_ms, tags=tags)
        if before is not None:
            self._client.set_terminated(before.id, end_time=started_ms)
        return _run_of(made)

    def _log_day(self, day: str, records: Sequence[tuple[Entry, VersionRecord]]) -> None:
        self._run = self._run_of_day(day, records[0][1])
        named = {record.snapshot.of: record for _, record in records if record.snapshot is not None}
        unseen = sorted(named.keys() - self._seen)
        for of in unseen:
            self._register(named[of], of)
        if unseen or any(record.kind in ("rollback", "pin") for _, record in records):
            self._move_aliases(records[-1][1])
        self._seen.update(unseen)
        for some in _batches([record for _, record in records]):
            self._client.log_batch(self._run.id, metrics=some)
        cursor = records[-1][0].cursor()
        self._client.set_tag(self._run.id, CURSOR, json.dumps(cursor.to_json()))
        self._run = _Run(self._run.id, day, cursor)

    def _registered(self, of: int | None = None) -> list[Any]:
        which = f"name = '{self._name}'" + ("" if of is None else f" and tags.`{VERSION}` = '{of}'")
        return list(self._client.search_model_versions(which))

    def _register(self, record: VersionRecord, of: int) -> None:
        """The model version of the snapshot that `record` names, unless it is there."""
        from mlflow.exceptions import MlflowException

        assert record.snapshot is not None
        assert self._run is not None
        if self._registered(of):
            return
        try:
            self._client.create_registered_model(self._name, tags=self._tags)
        except MlflowException as exists:
            if exists.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = {**self._tags, VERSION: str(of), "headrace.sha256": record.snapshot.sha256}
        source = f"{_as_uri(self._store.url)}/{record.snapshot.path}"
        self._client.create_model_version(self._name, source=source, run_id=self._run.id, tags=tags)

    def _move_aliases(self, head: VersionRecord) -> None:
        """`champion`: the newest snapshot on the way to what is served; `previous`: the one before it."""
        known = {int(version.tags[VERSION]): version for version in self._registered() if VERSION in version.tags}
        for alias, of in zip(("champion", "previous"), self._path(head.served, known), strict=False):
            if alias not in known[of].aliases:
                self._client.set_registered_model_alias(self._name, alias, known[of].version)

    def _path(self, version: int, known: Mapping[int, Any]) -> Iterator[int]:
        at: int | None = version
        while at is not None:
            if at in known:
                yield at
            try:
                at = VersionRecord.from_entry(self._log.read(at)).table_of
            except NotFound:
                return


def _run_of(run: Any) -> _Run:
    tags = run.data.tags
    cursor = Cursor.from_json(json.loads(tags[CURSOR])) if CURSOR in tags else None
    return _Run(run.info.run_id, tags[DAY], cursor)


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


def _as_uri(url: str) -> str:
    """A scheme of its own for files: of `file://` an MLflow server wants those in its own folders only."""
    return url if "://" in url else f"headrace://{os.path.realpath(url)}"


def _sleep(seconds: float, stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not stop() and time.monotonic() < until:
        time.sleep(min(0.2, max(0.0, until - time.monotonic())))
