"""The runs of a loop in MLflow: one for each UTC day, found by its tags.

    created     with the parameters of the settings and the cursor so far; what came before is closed
    RUNNING     while the tracker that writes to it lives; one that a dead tracker left is closed, or gone on with, by
                the next
    FINISHED    its day is over, or the tracker was stopped
    erased      `[track] keep_days` later, unless a model version that is kept came from it

Parameters are those of the settings that decide what is learned; MLflow keeps the first value of each, so a change
during a day is told by the tag `headrace.changed`. Sources and addresses, which may hold secrets, are not among them.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from headrace.clock import SECOND_US
from headrace.errors import TrainingError
from headrace.log import Cursor
from training import curves
from training.decisions import merged
from training.registry import erase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow import MlflowClient

    from headrace.config import Settings
    from headrace.version import VersionRecord

__all__ = ["CURSOR", "DAY", "Days", "Run", "day_of", "parameters_of"]

CURSOR, DAY, CHANGED = (f"headrace.{name}" for name in ("cursor", "day", "changed"))
SECTIONS: Final = ("label", "pipeline", "model", "train", "gate")
DECISIONS: Final = "decisions.json"
CURVES: Final = "evaluation"
CURVES_EVERY_US: Final = 3_600 * SECOND_US
_MOST_RUNS: Final = 1_000
_DAY_MS: Final = 86_400_000
_NOTE: Final = (
    "A UTC day of a headrace loop. A step is a version; `decisions.json` says which were held or taken back and "
    "why; `evaluation.png` shows what rows cost before they were learned, live against frozen."
)


@dataclass(frozen=True)
class Run:
    """The run of a day, and how far the version log is logged in it."""

    id: str
    day: str
    cursor: Cursor | None


def day_of(record: VersionRecord) -> str:
    """The UTC day that a version was made on, `2013-12-31`."""
    return datetime.fromtimestamp(record.created_at_us / SECOND_US, UTC).strftime("%Y-%m-%d")


def parameters_of(settings: Settings) -> dict[str, str]:
    """The settings that decide what is learned, `train.seed` and the like; without what is not set."""
    found = {"prior": settings.loop.prior, "features": ", ".join(settings.features)}
    for section in SECTIONS:
        values = getattr(settings, section).model_dump()
        found |= {f"{section}.{key}": value for key, value in values.items() if value not in (None, (), "")}
    return {key: json.dumps(value) if isinstance(value, tuple) else str(value)[:500] for key, value in found.items()}


class Days:
    """The runs of one model. What MLflow raises passes through; make another and go on."""

    def __init__(
        self, client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str], settings: Settings
    ) -> None:
        self._client, self._experiment_id, self._name, self._tags = client, experiment_id, name, dict(tags)
        self._settings, self._parameters = settings, parameters_of(settings)
        self._decisions: dict[str, Any] | None = None  # of the current run
        self._drawn_us = 0
        self.current = next(iter(self._found()), None)
        self._close_forgotten()
        if self.current is not None:
            self._say_what_changed(self.current)

    def open(self, record: VersionRecord) -> Run:
        """The run of the day of `record`, which becomes the current one."""
        day = day_of(record)
        if self.current is not None and self.current.day == day:
            return self.current
        known = next(iter(self._found(f" and tags.`{DAY}` = '{day}'")), None)
        before, started_ms = self.current, record.created_at_us // 1_000
        self.current = known or self._create(day, started_ms)
        self._decisions, self._drawn_us = None, 0
        if before is not None and known is None:
            self._end(before, "FINISHED", started_ms)
            self._erase_old(day)
        return self.current

    def decide(self, records: Sequence[VersionRecord]) -> None:
        """Adds what was decided against these versions to the artefact `decisions.json` of the current run."""
        run = self._open_run()
        known = self._decisions
        if known is None:
            known = self._decisions = self._read(run, DECISIONS)
        found = merged(known, records)
        if found is not None:
            self._client.log_dict(run.id, found, DECISIONS)
            self._decisions = found

    def advance(self, cursor: Cursor) -> None:
        """The current run has everything up to `cursor`."""
        run = self._open_run()
        self._client.set_tag(run.id, CURSOR, json.dumps(cursor.to_json()))
        self.current = replace(run, cursor=cursor)

    def draw_when_due(self, now_us: int) -> None:
        """Draws the curves of the current run, once an hour of the records' time."""
        if now_us - self._drawn_us >= CURVES_EVERY_US:
            self.draw(self._open_run())
            self._drawn_us = now_us

    def draw(self, run: Run) -> None:
        """The curves of a run, from its metrics: `evaluation.png`, and their points as `evaluation.json`."""
        names = [metric for _, metrics in curves.PANELS for metric in metrics]
        series = {name: self._points(run, name) for name in names}
        if any(series.values()):
            self._client.log_dict(run.id, {"ms, value": series}, f"{CURVES}.json")
            self._client.log_figure(run.id, curves.drawn(f"{self._name}, {run.day} (UTC)", series), f"{CURVES}.png")

    def resume(self) -> None:
        """Says that somebody writes to the current run again."""
        if self.current is not None:
            self._client.update_run(self.current.id, status="RUNNING")

    def close(self) -> None:
        """Says that nobody writes to the current run any more."""
        if self.current is not None:
            self._client.set_terminated(self.current.id, end_time=int(time.time() * 1_000))
            self.draw(self.current)

    def _points(self, run: Run, metric: str) -> list[tuple[int, float]]:
        history = self._client.get_metric_history(run.id, metric)
        return sorted((point.timestamp, point.value) for point in history)

    def _open_run(self) -> Run:
        assert self.current is not None, "`open` comes first"
        return self.current

    def _search(self, extra: str = "", most: int = 1) -> list[Any]:
        mine = " and ".join(f"tags.`{key}` = '{value}'" for key, value in self._tags.items())
        order = ["attributes.start_time DESC"]
        return list(self._client.search_runs([self._experiment_id], mine + extra, max_results=most, order_by=order))

    def _found(self, extra: str = "") -> list[Run]:
        return [_run_of(found) for found in self._search(extra)]

    def _create(self, day: str, started_ms: int) -> Run:
        from mlflow.entities import Param

        tags = {**self._tags, DAY: day, "mlflow.runName": f"{self._name} {day}", "mlflow.note.content": _NOTE}
        before = self.current
        if before is not None and before.cursor is not None:
            tags[CURSOR] = json.dumps(before.cursor.to_json())
        made = self._client.create_run(self._experiment_id, start_time=started_ms, tags=tags)
        run = _run_of(made)
        self._client.log_batch(run.id, params=[Param(key, value) for key, value in self._parameters.items()])
        return run

    def _say_what_changed(self, run: Run) -> None:
        from mlflow.entities import Param

        logged = self._client.get_run(run.id).data.params
        fresh = [Param(key, value) for key, value in self._parameters.items() if key not in logged]
        if fresh:  # a death came before them
            self._client.log_batch(run.id, params=fresh)
        now = self._parameters
        changed = {key: [value, now.get(key)] for key, value in logged.items() if value != now.get(key)}
        if changed:
            self._client.set_tag(run.id, CHANGED, json.dumps(changed)[:5_000])

    def _close_forgotten(self) -> None:
        """Ends the runs of dead trackers, but the current one, which is gone on with."""
        for found in self._search(" and attributes.status = 'RUNNING'", _MOST_RUNS):
            if self.current is None or found.info.run_id != self.current.id:
                self._end(_run_of(found), "KILLED", found.info.start_time + _DAY_MS)

    def _end(self, run: Run, status: str, end_ms: int) -> None:
        self.draw(run)
        self._client.set_terminated(run.id, status=status, end_time=end_ms)

    def _erase_old(self, day: str) -> None:
        first = datetime.fromisoformat(day) - timedelta(days=self._settings.track.keep_days)
        start_ms = int(first.replace(tzinfo=UTC).timestamp() * 1_000)
        for old in self._search(f" and attributes.start_time < {start_ms}", _MOST_RUNS):
            if not self._client.search_model_versions(f"run_id = '{old.info.run_id}'"):
                _erase_run(self._client, old)

    def _read(self, run: Run, name: str) -> dict[str, Any]:
        """A JSON artefact of a run; empty where there is none."""
        if not any(found.path == name for found in self._client.list_artifacts(run.id)):
            return {}
        with TemporaryDirectory(prefix="headrace-") as folder:
            path = self._client.download_artifacts(run.id, name, folder)
            try:
                found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            except ValueError:  # a store that writes in place was cut off
                return {}
            return found


def experiment_of(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """The id of the experiment `name`, which is made if there is none. artifacts: where its files go, if we say so."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=artifacts))
    if found.lifecycle_stage != "active":
        raise TrainingError(
            f"the MLflow experiment {name!r} was deleted",
            hint="restore it in MLflow, or set another name: [track] experiment",
            experiment=name,
        )
    return str(found.experiment_id)


def _run_of(run: Any) -> Run:
    tags = run.data.tags
    cursor = Cursor.from_json(json.loads(tags[CURSOR])) if CURSOR in tags else None
    return Run(run.info.run_id, tags[DAY], cursor)


def _erase_run(client: MlflowClient, run: Any) -> None:
    """Files and run. Behind a server the run is only marked as deleted: `mlflow gc` there frees its rows."""
    erase(client, run.info.artifact_uri)
    client.delete_run(run.info.run_id)
    store = client._tracking_client.store  # noqa: SLF001  what `mlflow gc` does, for this run alone
    if hasattr(store, "_hard_delete_run"):
        store._hard_delete_run(run.info.run_id)  # noqa: SLF001
