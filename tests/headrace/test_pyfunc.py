"""What MLflow loads: only the modules that it names, and the scores of the service."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from handmade import PRIOR, SCHEMA, SPECS, Publisher, linear_tower

from headrace import clock, config, pyfunc
from headrace.cli.sources import parsed
from headrace.delta import Numbers
from headrace.errors import DamagedFile, InvalidRequest, MissingFeature, NewerFormat, WrongType
from headrace.features import Feature
from headrace.ids import cross_of, id_of, ids_of, null_id, unknown_id
from headrace.record import sha256_of
from headrace.schema import Schema
from headrace.store import open_store
from paramserver.client import Ids, values_of
from paramserver.predict import Predictor
from paramserver.replica import Replica
from protos import headrace_pb2 as wire

if TYPE_CHECKING:
    from pathlib import Path

TIMED = Schema((*SCHEMA.features, Feature("hour", "time", ("at",), part="hour", time_unit="s")))
EVENTS = """
[loop]
name = "feed"
[streams.impression]
source = "events.jsonl"
id = "id"
time = "at"
time_unit = "s"
[streams.click]
source = "events.jsonl"
id = "id"
time = "at"
time_unit = "s"
[label]
mode = "implicit"
wait_s = 5
attribution_s = 60
[features]
tags = { kind = "ids", max = 4 }
"""
USERS = [f"u{i}" for i in range(20)]


def rows_for(publisher: Publisher, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    ids = [id_of("user", user) for user in USERS] + [id_of("item", f"{i}") for i in range(10)]
    ids += [id_of("tags", "a"), id_of("tags", "b"), null_id("tags"), unknown_id("item"), unknown_id("tags")]
    members = [ids_of(name, values) for name, values in (("user", _arrow(USERS[:10])), ("item", _arrow(range(10))))]
    ids += cross_of("u_x_i", members).tolist()
    return {spec.name: {at: random.normal(size=spec.width).tolist() for at in ids} for spec in publisher.specs}


def _arrow(values: Any) -> Any:
    import pyarrow as pa

    return pa.array(list(values))


@pytest.fixture
def publisher() -> Publisher:
    store = open_store(f"memory://pyfunc-{np.random.default_rng().integers(1 << 60)}")
    publisher = Publisher(store, schema=TIMED, specs=SPECS)
    publisher.start()
    tower = linear_tower(len(SPECS[1].features), SPECS[1].width, 2, weight=0.3)
    publisher.delta(rows_for(publisher, 1), tower=tower, numbers=Numbers((2.0,), (0.5,)), offset=-0.4)
    return publisher


def written(publisher: Publisher, folder: Path, **changed: Any) -> Path:
    """The data of the newest version, as training/mlmodel.py writes them."""
    assert publisher.record is not None
    kept, record = publisher.snapshot(), publisher.record
    data = publisher.store.read(kept.path)
    (folder / pyfunc.PARAMETERS).write_bytes(data)
    described = {
        "format": 1,
        "version": record.version,
        "schema": record.schema,
        "prior": PRIOR,
        "offset": record.offset,
        "watermark_us": record.watermark_us,
        "sha256": sha256_of(data),
    }
    (folder / pyfunc.VERSION).write_text(json.dumps(described | changed))
    return folder


def served(publisher: Publisher, frame: pd.DataFrame) -> np.ndarray:
    replica = Replica(publisher.store, publisher.log)
    replica.poll()
    predictor = Predictor(replica, model="default", max_candidates=1_000, now_us=clock.now_us)
    columns = {name: [None if _missing(value) else value for value in frame[name]] for name in frame.columns}
    features = {name: values_of(name, values) for name, values in columns.items()}
    answer = predictor.predict(wire.PredictRequest(features=features))
    return np.array(answer.scores, np.float32)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def requests(n: int = 200) -> pd.DataFrame:
    random = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "user": random.choice([*USERS, "stranger", None], n),
            "item": random.integers(0, 14, n),
            "tags": [random.choice(["a", "b", "zz"], random.integers(0, 6)).tolist() for _ in range(n)],
            "price": np.where(random.random(n) < 0.2, np.nan, random.normal(3, 4, n)),
            "hour": [f"2026-11-{day:02d}T{hour:02d}:00:00Z" for day, hour in random.integers(1, 23, (n, 2))],
        }
    )


def test_scores_are_those_of_the_service_bit_for_bit(publisher: Publisher, tmp_path: Path) -> None:
    model = pyfunc._load_pyfunc(str(written(publisher, tmp_path)))
    frame = requests()
    scores = model.predict(frame)
    assert scores.dtype == np.float32
    assert np.array_equal(scores, served(publisher, frame))
    assert len(set(scores.tolist())) > 150
    assert (model.version, model.watermark_us) == (1, 1_000_000)


def test_twin_a_parameter_that_is_not_the_services_shows(publisher: Publisher, tmp_path: Path) -> None:
    frame = requests()
    before = pyfunc._load_pyfunc(str(written(publisher, tmp_path, offset=-0.41))).predict(frame)
    assert np.abs(before - served(publisher, frame)).max() > 1e-6


def test_columns_may_be_lists_and_more_than_the_features(publisher: Publisher, tmp_path: Path) -> None:
    model = pyfunc._load_pyfunc(str(written(publisher, tmp_path)))
    frame = requests(3)
    columns = {name: frame[name].tolist() for name in frame.columns} | {"other": [1, 2, 3]}
    assert np.array_equal(model.predict(columns), model.predict(frame))


def test_a_missing_value_inside_a_list_is_one_thing_to_all(publisher: Publisher, tmp_path: Path) -> None:
    """Training takes it for the null id. So does the model; a request cannot say it, except by that id."""
    expected = [id_of("tags", "a"), null_id("tags")]
    (tmp_path / "events.jsonl").write_text('{"id": "1", "at": 1, "tags": ["a", null]}\n')
    settings = config.parse(EVENTS.replace("events.jsonl", str(tmp_path / "events.jsonl")))
    ((_, found),) = parsed(settings, "impression")
    (events,) = found.events
    assert events.column("tags").to_pylist() == [["a", None]]
    assert settings.schema().encode(events).column("tags").to_pylist() == [expected]

    model = pyfunc._load_pyfunc(str(written(publisher, tmp_path)))
    frame = requests(1)
    frame["tags"] = [["a", None]]
    with pytest.raises(InvalidRequest, match=r"missing value \(None\) inside a list"):
        served(publisher, frame)
    replica = Replica(publisher.store, publisher.log)
    replica.poll()
    features = {name: values_of(name, frame[name].tolist()) for name in frame.columns if name != "tags"}
    features["tags"] = values_of("tags", Ids([expected]))
    request = wire.PredictRequest(features=features, schema_fingerprint=TIMED.fingerprint)
    predictor = Predictor(replica, model="default", max_candidates=9, now_us=clock.now_us)
    score = model.predict(frame)[0]
    assert score == np.float32(predictor.predict(request).scores[0])
    frame["tags"] = [["a", ""]]
    assert score != model.predict(frame)[0], "the row of the null id counts"


def test_bad_input_is_named(publisher: Publisher, tmp_path: Path) -> None:
    model = pyfunc._load_pyfunc(str(written(publisher, tmp_path)))
    frame = requests(2)
    with pytest.raises(MissingFeature, match="'price'"):
        model.predict(frame.drop(columns="price"))
    with pytest.raises(WrongType, match="price"):
        model.predict(frame.assign(price=["much", "more"]))
    with pytest.raises(InvalidRequest, match="'item' are not of one type"):
        model.predict(frame.assign(item=["7", 8]))


def test_damage_and_newer_formats_are_refused(publisher: Publisher, tmp_path: Path) -> None:
    folder = written(publisher, tmp_path)
    data = bytearray((folder / pyfunc.PARAMETERS).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / pyfunc.PARAMETERS).write_bytes(data)
    with pytest.raises(DamagedFile):
        pyfunc._load_pyfunc(str(folder))
    with pytest.raises(NewerFormat, match="format 2"):
        pyfunc._load_pyfunc(str(written(publisher, tmp_path, format=2)))


LOADED = """
import sys
from headrace import pyfunc
model = pyfunc._load_pyfunc(sys.argv[1])
model.predict({"user": ["u1"], "item": [1], "tags": [["a"]], "price": [1.5], "hour": ["2026-11-01T10:00:00Z"]})
print(*sorted(name for name in sys.modules if name.partition(".")[0] == "headrace"))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_it_needs_the_modules_that_it_names_and_no_others(publisher: Publisher, tmp_path: Path) -> None:
    folder = written(publisher, tmp_path)
    said = subprocess.run(
        [sys.executable, "-c", LOADED, str(folder)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    named = {"headrace", *(f"headrace.{name}" for name in pyfunc.MODULES if name != "__init__")}
    assert set(said[0].split()) == named
    assert not set(said[1].split()) & {"tensorflow", "keras", "apache_beam", "grpc", "google", "mlflow", "pydantic"}
