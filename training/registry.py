"""Model versions in MLflow: snapshots that `mlflow.pyfunc` loads, aliases, and how long each is kept.

A snapshot becomes a model version if it is newer than all that are registered, and `[track] models_every_s` younger
than the newest of them. The order for one, in the run of the day on which it is found:

    1. write the model (training/mlmodel.py) to a temporary folder      a death leaves what the system clears away
    2. upload it as `models/<version>` of the run                       a death leaves files: uploaded again, the same
    3. log the data that it learned from as a dataset of the run, once  a death logs it again, which MLflow folds
       an hour
    4. create the model version, whose source those files are, with     a death before it: all of this again; after it:
       the tag `headrace.version`                                       found by the tag
    5. move the aliases champion and previous; take them away where     a death leaves them old: moved again
       what is served has no model version
    6. retire all but the newest `[track] models`, those with an        a death leaves a model version without files:
       alias, and those that another registered model refers to: the    retired again, with the next snapshot
       files, then the model version

The digest of a dataset is the hash of the newest shard record that was learned, which vouches for all before it. A loop
is known by its name and by when its root was made (`headrace.root`). The registered model of a name belongs to the loop
whose root was made last; one that no loop of that name made is refused.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace import lines
from headrace.clock import SECOND_US, iso
from headrace.errors import NotFound, TrainingError
from headrace.version import VersionRecord
from training.mlmodel import save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

    from headrace.config.sections import TrackSettings
    from headrace.log import Log
    from headrace.store import Store
    from headrace.version import Kept

__all__ = ["CREATED", "LOOP", "MODEL", "ROOT", "VERSION", "Registry"]

LOOP, MODEL, ROOT = "headrace.loop", "headrace.model", "headrace.root"
VERSION: Final = "headrace.version"
CREATED: Final = "headrace.created_at_us"
ALIASES: Final = ("champion", "previous")
DATASETS_EVERY_US: Final = 3_600 * SECOND_US
_DIGEST_LENGTH: Final = 32  # MLflow takes 36


@dataclass(frozen=True)
class Registered:
    """A model version. `of`: the loop's version; `number`: MLflow's."""

    of: int
    created_at_us: int
    number: str
    source: str
    run_id: str
    aliases: tuple[str, ...]


class Registry:
    """The model versions of one model. What MLflow raises passes through; call again.

    example: gives one value of each feature, as a request has them, for the input example; None = there is none.
    """

    def __init__(
        self,
        client: MlflowClient,
        name: str,
        *,
        tags: Mapping[str, str],
        store: Store,
        log: Log,
        settings: TrackSettings,
        example: Callable[[], Mapping[str, Any] | None],
    ) -> None:
        self._client, self._name, self._tags = client, name, dict(tags)
        self._store, self._log, self._settings, self._example = store, log, settings, example
        self._before: dict[int, int | None] = {}  # the version whose table each version starts from
        self._newest = max(self.registered(), key=lambda one: one.of, default=None)
        self._settled = False  # whether steps 5 and 6 were done since this one began
        self._told_us: int | None = None  # of the newest dataset

    def registered(self) -> list[Registered]:
        """All model versions of this loop, oldest first."""
        found = self._client.search_model_versions(f"name = '{self._name}'")
        aliases = self._client.get_registered_model(self._name).aliases if found else {}  # a search does not tell them
        mine = (_registered(one, aliases) for one in found if VERSION in one.tags and self._is_ours(one.tags))
        return sorted(mine, key=lambda one: one.of)

    def follow(self, run_id: str, records: Sequence[VersionRecord]) -> bool:
        """Registers what is due among the snapshots that `records` name, moves the aliases; whether one was due."""
        self._before |= {record.version: record.table_of for record in records}
        named = {record.snapshot.of: record.snapshot for record in records if record.snapshot is not None}
        made = [self._register(run_id, named[of]) for of in sorted(named)]
        if any(made) or not self._settled or any(record.kind in ("rollback", "pin") for record in records):
            self._move_aliases(records[-1])
        if any(made) or not self._settled:
            self._retire()
        self._settled = True
        return any(made)

    def _register(self, run_id: str, snapshot: Kept) -> bool:
        if self._newest is not None and snapshot.of <= self._newest.of:
            return False
        record = self._read(snapshot.of)
        if record is None or not self._due(record):
            return False
        self._own()
        path = f"models/{snapshot.of}"
        with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
            try:
                model = save(Path(folder), self._store, record, snapshot, self._example())
            except NotFound:
                lines.TRACK_SNAPSHOT_GONE(version=snapshot.of)
                return False
            self._client.log_artifacts(run_id, str(model), path)
        if self._told_us is None or record.created_at_us - self._told_us >= DATASETS_EVERY_US:
            self._client.log_inputs(run_id, [self._dataset(record)])
            self._told_us = record.created_at_us
        self._create(run_id, record, snapshot, path)
        return True

    def _due(self, record: VersionRecord) -> bool:
        newest = self._newest
        every_us = self._settings.models_every_s * SECOND_US
        return newest is None or record.created_at_us - newest.created_at_us >= every_us

    def _create(self, run_id: str, record: VersionRecord, snapshot: Kept, path: str) -> None:
        own = {VERSION: str(record.version), CREATED: str(record.created_at_us), "headrace.sha256": snapshot.sha256}
        source = f"{self._client.get_run(run_id).info.artifact_uri}/{path}"
        reach = "nothing learned yet" if record.watermark_us is None else f"events up to {iso(record.watermark_us)}"
        made = self._client.create_model_version(
            self._name,
            source=source,
            run_id=run_id,
            tags={**self._tags, **own},
            description=f"version {record.version}: {reach}",
        )
        self._newest = Registered(record.version, record.created_at_us, str(made.version), source, run_id, ())
        lines.TRACK_REGISTERED(version=record.version, model=f"{self._name}/{made.version}")

    def _own(self) -> None:
        """Makes the registered model, or takes it over from an earlier loop of this name. TrainingError: not ours."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._name, tags=self._tags)
        except MlflowException as exists:
            if exists.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = self._client.get_registered_model(self._name).tags
        if self._is_ours(tags):
            return
        same = all(tags.get(key) == self._tags.get(key) for key in (LOOP, MODEL))
        if not same or int(tags.get(ROOT, 0)) > int(self._tags.get(ROOT, 0)):
            owner = "a later loop of this name, with another root" if same else "somebody else"
            raise TrainingError(
                f"the registered model {self._name!r} in MLflow belongs to {owner}",
                hint="give this loop a name of its own: [loop] name; figures are logged nevertheless",
                model=self._name,
            )
        self._client.set_registered_model_tag(self._name, ROOT, self._tags[ROOT])

    def _is_ours(self, tags: Mapping[str, str]) -> bool:
        return all(tags.get(key) == value for key, value in self._tags.items())

    def _dataset(self, record: VersionRecord) -> DatasetInput:
        """What version `record` learned from: the shard log up to its cursor."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        cursor = record.cursor
        learned = {
            "records": [0, 0 if cursor is None else cursor.seq + 1],
            "held": [list(pair) for pair in record.held_now],
            "watermark_us": record.watermark_us,
        }
        source = {"root": _shown(self._store.url), "log": "shards/log", **learned}
        dataset = Dataset(
            name=self._name,
            digest=cursor.sha256[:_DIGEST_LENGTH] if cursor is not None else "nothing",
            source_type="headrace",
            source=json.dumps(source),
            schema=json.dumps({"features": record.schema.get("features", [])}),
            profile=json.dumps(learned),
        )
        tags = [InputTag("mlflow.data.context", "training"), InputTag(VERSION, str(record.version))]
        return DatasetInput(dataset, tags)

    def _move_aliases(self, head: VersionRecord) -> None:
        """`champion`: the newest model version on the way to what is served; `previous`: the one before it."""
        known = {one.of: one for one in self.registered()}
        wanted = dict(zip(ALIASES, self._path(head.served, known), strict=False))
        for alias, of in wanted.items():
            if alias not in known[of].aliases:
                self._client.set_registered_model_alias(self._name, alias, known[of].number)
        for alias in ALIASES[len(wanted) :]:
            if any(alias in one.aliases for one in known.values()):  # it would name what is not served
                self._client.delete_registered_model_alias(self._name, alias)
        self._before = {version: before for version, before in self._before.items() if version >= min(known, default=0)}

    def _path(self, version: int, known: Mapping[int, Any]) -> Iterator[int]:
        at: int | None = version
        while at is not None:
            if at in known:
                yield at
            if at not in self._before:
                record = self._read(at)
                if record is None:
                    return
                self._before[at] = record.table_of
            at = self._before[at]

    def _retire(self) -> None:
        known = self.registered()
        kept = {one.source for one in known[-self._settings.models :]}
        for old in known[: -self._settings.models]:
            if not old.aliases and not self._wanted_elsewhere(old):
                if old.source not in kept:
                    erase(self._client, old.source)
                self._client.delete_model_version(self._name, old.number)

    def _wanted_elsewhere(self, old: Registered) -> bool:
        """Whether a registered model of another name refers to this one, or to its files: somebody promoted it."""
        names = (old.source, f"models:/{self._name}/{old.number}")
        found = self._client.search_model_versions(f"run_id = '{old.run_id}'")
        return any(one.name != self._name and one.source.startswith(names) for one in found)

    def _read(self, version: int) -> VersionRecord | None:
        try:
            return VersionRecord.from_entry(self._log.read(version))
        except NotFound:
            return None


def erase(client: MlflowClient, uri: str) -> None:
    """Deletes the files below an artifact URI, whether they are there or not."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(uri, tracking_uri=client.tracking_uri)
    try:
        repository.delete_artifacts()
    except FileNotFoundError:
        return


def _registered(found: Any, aliases: Mapping[str, str]) -> Registered:
    """From MLflow's answer. One that an earlier headrace made does not say when: it counts as long ago."""
    created_at_us, number = int(found.tags.get(CREATED, 0)), str(found.version)
    own = tuple(alias for alias, of in aliases.items() if str(of) == number)
    return Registered(int(found.tags[VERSION]), created_at_us, number, found.source, found.run_id, own)


def _shown(url: str) -> str:
    return url if "://" in url else os.path.realpath(url)
