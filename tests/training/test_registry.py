"""Model versions: what MLflow loads of them, which snapshots become one, and which are kept."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import SPECS, Publisher

from headrace.config.sections import TrackSettings
from headrace.errors import TrainingError
from headrace.ids import id_of
from headrace.store import open_store
from headrace.version import VersionRecord

pytest.importorskip("mlflow")

from training.registry import LOOP, MODEL, ROOT, VERSION, Registry
from training.tracking import open_client

pytestmark = pytest.mark.filterwarnings(  # MLflow's own use of its libraries
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning", "ignore::UserWarning"
)
_names = itertools.count()
MINUTE_US = 60_000_000
EXAMPLE = {"user": "u1", "item": 7, "tags": ["a"], "price": 1.5}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_client(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


class Loop:
    """A version log of one snapshot a minute, and the run that they go to."""

    def __init__(self, client: Any, folder: Path, **track: Any) -> None:
        self.name = f"loop{next(_names)}"
        self.client, self.track = client, {"models_every_s": 0.0} | track
        self.publisher = Publisher(open_store(f"memory://registry-{self.name}"))
        self.publisher.start()
        self.run_id = client.create_run(
            client.create_experiment(self.name, artifact_location=folder.as_uri())
        ).info.run_id

    def registry(self, example: Any = None, root: int = 100) -> Registry:
        return Registry(
            self.client,
            self.name,
            tags={LOOP: self.name, MODEL: "default", ROOT: str(root)},
            store=self.publisher.store,
            log=self.publisher.log,
            settings=TrackSettings(**self.track),
            example=lambda: example,
        )

    def publish(self, snapshots: int) -> list[VersionRecord]:
        """Versions of which each has a snapshot, which the next names."""
        return [self._one() for _ in range(snapshots)]

    def _one(self) -> VersionRecord:
        at = self.publisher.next
        rows = {spec.name: {id_of("user", "u1"): [0.1 * at] * spec.width} for spec in SPECS}
        self.publisher.delta(rows, created_at_us=at * MINUTE_US)
        self.publisher.snapshot()
        entry = self.publisher.delta({}, created_at_us=(at + 1) * MINUTE_US)
        return VersionRecord.from_entry(entry)

    def registered(self) -> list[int]:
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return sorted(int(one.tags[VERSION]) for one in found)

    def champion(self) -> str:
        return self.client.get_model_version_by_alias(self.name, "champion").tags[VERSION]


@pytest.fixture
def loop(client: Any, tmp_path: Path) -> Loop:
    return Loop(client, tmp_path)


def test_mlflow_loads_what_was_registered(loop: Loop) -> None:
    import mlflow
    import pandas as pd

    assert loop.registry(EXAMPLE).follow(loop.run_id, loop.publish(1))
    mlflow.set_tracking_uri(loop.client.tracking_uri)
    model = mlflow.pyfunc.load_model(f"models:/{loop.name}@champion")
    scores = model.predict(pd.DataFrame({name: [value, value] for name, value in EXAMPLE.items()}))
    assert scores == pytest.approx(1 / (1 + np.exp(-0.1)))  # the linear row of u1; no other id is known
    assert model.metadata.get_input_schema().input_names() == ["user", "item", "tags", "price"]  # no cross
    assert pd.DataFrame(model.input_example).to_dict("list") == {name: [value] for name, value in EXAMPLE.items()}
    assert model.metadata.metadata["loop_version"] == 1
    folder = Path(loop.client.get_run(loop.run_id).info.artifact_uri.removeprefix("file://")) / "models" / "1"
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle")]
    wanted = (folder / "requirements.txt").read_text()
    assert "tensorflow" not in wanted
    assert "headrace" not in wanted


@pytest.mark.usefixtures("light_models")
def test_the_dataset_is_the_shard_log_up_to_the_cursor(loop: Loop) -> None:
    from headrace.log import Cursor

    loop.publisher.delta({}, cursor=Cursor(41, "ab" * 32), held_now=((3, 5),))
    loop.publisher.snapshot()
    loop.registry().follow(loop.run_id, [VersionRecord.from_entry(loop.publisher.delta({}))])
    (found,) = loop.client.get_run(loop.run_id).inputs.dataset_inputs
    assert found.dataset.digest == "ab" * 16
    assert json.loads(found.dataset.profile) == {"records": [0, 42], "held": [[3, 5]], "watermark_us": 1_000_000}
    assert {tag.key: tag.value for tag in found.tags}[VERSION] == "1"


@pytest.mark.usefixtures("light_models")
def test_snapshots_become_models_no_more_often_than_asked(client: Any, tmp_path: Path) -> None:
    loop = Loop(client, tmp_path, models_every_s=300.0)
    registry = loop.registry()
    for record in loop.publish(6):  # versions 1, 3, 5, … at as many minutes
        registry.follow(loop.run_id, [record])
    assert loop.registered() == [1, 7]
    loop.registry().follow(loop.run_id, loop.publish(1))  # a new process knows when the last one was
    assert loop.registered() == [1, 7, 13]


@pytest.mark.usefixtures("light_models")
def test_the_newest_and_those_with_an_alias_are_kept(client: Any, tmp_path: Path) -> None:
    loop = Loop(client, tmp_path, models=2)
    registry = loop.registry()
    registry.follow(loop.run_id, loop.publish(2))
    first = next(one for one in registry.registered() if one.of == 1)
    client.set_registered_model_alias(loop.name, "mine", first.number)
    registry.follow(loop.run_id, loop.publish(3))
    assert loop.registered() == [1, 7, 9]
    files = sorted(path.name for path in (next(tmp_path.glob("*/artifacts")) / "models").iterdir())
    assert files == ["1", "7", "9"]
    assert loop.champion() == "9"


@pytest.mark.usefixtures("light_models")
def test_a_model_version_whose_files_are_gone_is_retired_by_the_next_process(client: Any, tmp_path: Path) -> None:
    loop = Loop(client, tmp_path, models=2)
    registry = loop.registry()
    registry._client = Dying(client)
    with pytest.raises(KeyboardInterrupt):
        registry.follow(loop.run_id, loop.publish(4))
    assert loop.registered() == [1, 3, 5, 7]
    loop.registry().follow(loop.run_id, [loop.publisher.record])
    assert loop.registered() == [5, 7]


class Dying:
    """Dies instead of deleting a model version: its files are gone by then."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if name == "delete_model_version":
            raise KeyboardInterrupt
        return getattr(self._client, name)


@pytest.mark.usefixtures("light_models")
def test_a_rollback_far_back_moves_the_champion(loop: Loop) -> None:
    registry = loop.registry()
    registry.follow(loop.run_id, loop.publish(3))
    assert loop.champion() == "5"
    registry.follow(loop.run_id, [VersionRecord.from_entry(loop.publisher.rollback(4))])
    assert loop.champion() == "3"
    assert registry._before.keys() >= {6, 7}


def test_a_snapshot_that_is_not_kept_any_more_is_passed_over(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    first, second = loop.publish(2)
    assert first.snapshot is not None
    loop.publisher.store.delete(first.snapshot.path)
    registry = loop.registry()
    assert registry.follow(loop.run_id, [first, second])
    assert loop.registered() == [3]
    assert "track.snapshot_gone version=1" in caplog.text


@pytest.mark.usefixtures("light_models")
def test_what_was_promoted_to_another_name_is_kept(client: Any, tmp_path: Path) -> None:
    loop = Loop(client, tmp_path, models=1)
    registry = loop.registry()
    registry.follow(loop.run_id, loop.publish(1))
    first = registry.registered()[0]
    client.copy_model_version(f"models:/{loop.name}/{first.number}", f"{loop.name}-prod")
    registry.follow(loop.run_id, loop.publish(4))
    assert loop.registered() == [1, 7, 9]  # 7 is `previous`
    assert (next(tmp_path.glob("*/artifacts")) / "models" / "1").exists()


@pytest.mark.usefixtures("light_models")
def test_files_that_a_kept_model_version_has_too_stay(client: Any, tmp_path: Path) -> None:
    loop = Loop(client, tmp_path, models=1)
    one, other = loop.registry(), loop.registry()  # two trackers at once, each of which knows nothing of the other
    records = loop.publish(1)
    assert one.follow(loop.run_id, records)
    assert other.follow(loop.run_id, records)
    loop.registry().follow(loop.run_id, records)
    (path,) = (next(tmp_path.glob("*/artifacts")) / "models").iterdir()
    assert (path / "MLmodel").exists()


@pytest.mark.usefixtures("light_models")
def test_what_is_served_but_has_no_model_version_takes_the_alias_away(client: Any, tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException

    loop = Loop(client, tmp_path, models=2)
    registry = loop.registry()
    registry.follow(loop.run_id, loop.publish(5))
    assert loop.champion() == "9"
    registry.follow(loop.run_id, [VersionRecord.from_entry(loop.publisher.rollback(1))])
    with pytest.raises(MlflowException, match="champion"):
        loop.champion()


@pytest.mark.usefixtures("light_models")
def test_a_registered_model_of_somebody_else_is_not_touched(loop: Loop, client: Any) -> None:
    client.create_registered_model(loop.name)
    client.create_model_version(loop.name, "s3://theirs/model", loop.run_id)
    client.set_registered_model_alias(loop.name, "champion", "1")
    with pytest.raises(TrainingError, match="belongs to somebody else"):
        loop.registry().follow(loop.run_id, loop.publish(1))
    assert client.get_model_version_by_alias(loop.name, "champion").source == "s3://theirs/model"


@pytest.mark.usefixtures("light_models")
def test_a_new_root_takes_the_name_over_and_the_old_one_is_refused(client: Any, tmp_path: Path) -> None:
    old, new = Loop(client, tmp_path), Loop(client, tmp_path)
    new.name = old.name
    old.registry().follow(old.run_id, old.publish(4))
    new.registry(root=200).follow(old.run_id, new.publish(1))
    found = client.get_model_version_by_alias(old.name, "champion")
    assert (found.tags[ROOT], found.tags[VERSION]) == ("200", "1")
    with pytest.raises(TrainingError, match="a later loop of this name"):
        old.registry().follow(old.run_id, old.publish(1))
