"""The runs of a loop in MLflow: parameters, decisions, curves, who closes them, and when they go."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from handmade import BLANK, SCHEMA
from settings import PRICE, UNREAD, USER, settings_text

from headrace.config import parse
from headrace.log import Cursor

pytest.importorskip("mlflow")

from mlflow.entities import Metric

from training.dayrun import CHANGED, CURSOR, DAY, Days, experiment_of, parameters_of
from training.tracking import open_client

if TYPE_CHECKING:
    from headrace.version import VersionRecord

pytestmark = pytest.mark.filterwarnings(  # MLflow's own use of its libraries
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
_names = itertools.count()
DAY_US = 86_400_000_000
FIRST_US = 20_000 * DAY_US
SETTINGS = settings_text(
    USER,
    PRICE,
    **UNREAD,
    impression={"source": "s3://user:SECRET@bucket/events.jsonl"},
    click={"source": "clicks.jsonl"},
    track={"uri": "postgresql://user:SECRET@db/mlflow", "keep_days": 3},
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_client(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


class Made:
    """Days of a loop of its own; `days` is that of a new process."""

    def __init__(self, client: Any, folder: Path) -> None:
        self.client, self.name = client, f"loop{next(_names)}"
        self.experiment = experiment_of(client, self.name, folder.as_uri())

    def days(self, **train: Any) -> Days:
        settings = parse(SETTINGS).replace("train", **train)
        return Days(self.client, self.experiment, self.name, {"headrace.loop": self.name}, settings)

    def runs(self) -> list[Any]:
        return list(self.client.search_runs([self.experiment], order_by=["attributes.start_time"]))


@pytest.fixture
def made(client: Any, tmp_path: Path) -> Made:
    return Made(client, tmp_path)


def version(number: int, day: int = 0, **fields: Any) -> VersionRecord:
    at_us = FIRST_US + day * DAY_US + number
    told = {"version": number, "kind": "delta", "base": number - 1, "schema": SCHEMA.to_json(), "code": "0"}
    return replace(BLANK, **{**told, "created_at_us": at_us, **fields})


def artefact(made: Made, run_id: str, name: str) -> Any:
    return json.loads(Path(made.client.download_artifacts(run_id, name)).read_text())


def test_the_parameters_are_what_decides_the_learning_and_no_secret(made: Made) -> None:
    run = made.days(seed=7).open(version(1))
    params = made.client.get_run(run.id).data.params
    assert params["train.seed"] == "7"
    assert params["model.kind"] == "dcn_v2"
    assert params["features"] == "user, price"
    assert params["label.wait_s"] == "1.0"
    assert "SECRET" not in json.dumps([params, made.client.get_run(run.id).data.tags])
    assert all(len(value) <= 500 for value in parameters_of(parse(SETTINGS)).values())


def test_a_change_of_settings_during_a_day_is_told(made: Made) -> None:
    run = made.days(seed=7).open(version(1))
    made.days(seed=7)
    assert CHANGED not in made.client.get_run(run.id).data.tags
    made.days(seed=8)
    assert json.loads(made.client.get_run(run.id).data.tags[CHANGED]) == {"train.seed": ["7", "8"]}


def test_each_day_has_a_run_which_ends_with_the_next_and_hands_on_the_cursor(made: Made) -> None:
    days = made.days()
    first = days.open(version(1))
    days.advance(Cursor(1, "ab"))
    second = days.open(version(2, day=1))
    assert days.open(version(3, day=1)) == second
    one, other = made.runs()
    assert [one.info.run_id, other.info.run_id] == [first.id, second.id]
    assert [one.info.status, other.info.status] == ["FINISHED", "RUNNING"]
    assert one.data.tags[DAY] < other.data.tags[DAY]
    assert json.loads(other.data.tags[CURSOR]) == {"seq": 1, "sha256": "ab"}


def test_what_a_dead_tracker_left_open_is_closed_or_gone_on_with(made: Made) -> None:
    dead = made.days()
    dead.open(version(1))
    dead._end = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        dead.open(version(2, day=1))
    assert [run.info.status for run in made.runs()] == ["RUNNING", "RUNNING"]
    heir = made.days()
    assert [run.info.status for run in made.runs()] == ["KILLED", "RUNNING"]
    heir.close()
    assert made.runs()[1].info.status == "FINISHED"
    again = made.days()
    again.resume()
    assert made.runs()[1].info.status == "RUNNING"
    assert again.open(version(3, day=1)).id == made.runs()[1].info.run_id


def test_runs_are_erased_with_their_files_after_keep_days_unless_a_model_came_from_them(
    made: Made, tmp_path: Path
) -> None:
    days = made.days()
    kept = days.open(version(0))
    made.client.log_dict(kept.id, {}, "file.json")
    made.client.create_registered_model(made.name)
    made.client.create_model_version(made.name, (tmp_path / kept.id / "artifacts").as_uri(), kept.id)
    erased = days.open(version(1, day=1))
    made.client.log_dict(erased.id, {}, "file.json")
    for day in range(2, 6):
        days.open(version(day, day=day))
    assert [run.data.tags[DAY][-2:] for run in made.runs()] == ["04", "06", "07", "08", "09"]
    assert kept.id in {run.info.run_id for run in made.runs()}
    assert {path.parent.parent.name for path in tmp_path.rglob("file.json")} == {kept.id}
    gone = made.client.search_runs([made.experiment], f"attributes.run_id = '{erased.id}'", run_view_type=3)
    assert not list(gone)  # not only marked as deleted


def test_decisions_are_told_once_each_with_their_reasons(made: Made) -> None:
    hold = version(2, kind="hold", held=((4, 5),), gate={"action": "hold", "reasons": ["G0: a weight is not finite"]})
    published = version(3, verdicts=({"version": 1, "result": "good"},), gate={"action": "publish", "reasons": []})
    worse = version(4, verdicts=({"version": 3, "result": "worse", "reason": "log-loss"},))
    back = version(5, kind="rollback", to=1)
    days = made.days()
    run = days.open(hold)
    days.decide([version(1), hold, published])
    made.days().decide([hold, published, worse, back])  # a new process, which is told some again
    found = artefact(made, run.id, "decisions.json")
    assert found["count"] == 3
    assert [(one["version"], one["kind"]) for one in found["decisions"]] == [(2, "hold"), (4, "delta"), (5, "rollback")]
    assert found["decisions"][0]["reasons"] == ["G0: a weight is not finite"]
    assert found["decisions"][0]["held"] == [[4, 5]]
    assert found["decisions"][1]["verdicts"][0]["reason"] == "log-loss"
    assert found["decisions"][2]["to"] == 1


def test_curves_are_drawn_from_the_metrics_of_the_run(made: Made) -> None:
    days = made.days()
    run = days.open(version(1))
    days.draw(run)
    assert not made.client.list_artifacts(run.id)  # nothing to draw
    for name, shift in (("live/log_loss", 0.0), ("frozen/log_loss", 0.1)):
        points = [
            Metric(name, 0.4 + shift + step / 1_000, FIRST_US // 1_000 + 1_000 * step, step) for step in range(200)
        ]
        made.client.log_batch(run.id, metrics=points)
    days.draw_when_due(FIRST_US)
    found = artefact(made, run.id, "evaluation.json")["ms, value"]
    assert len(found["live/log_loss"]) == 200
    assert found["frozen/log_loss"][3] == [FIRST_US // 1_000 + 3_000, pytest.approx(0.503)]
    assert found["live/auc"] == []
    image = Path(made.client.download_artifacts(run.id, "evaluation.png")).read_bytes()
    assert image.startswith(b"\x89PNG")
    made.client.log_dict(run.id, {}, "evaluation.json")
    days.draw_when_due(FIRST_US + 1_000_000)  # not yet again
    assert artefact(made, run.id, "evaluation.json") == {}
