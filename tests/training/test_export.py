"""Exports answer as the service does, load without headrace, and come whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from settings import UNREAD, USER, settings_text

from headrace.config import parse
from headrace.errors import ExportRefused, StoreFull, TowerRefused
from headrace.scoring import Inputs
from headrace.version import VersionRecord, pin_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.xdist_group("tensorflow"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),  # Keras 3.15 on numpy 2.4
]

SETTINGS = settings_text(
    USER,
    'User = { kind = "id", column = "user" }',
    'tags = { kind = "ids", max = 3 }',
    'class = { kind = "category" }',
    'embedding = { kind = "id", column = "item" }',
    'self = { kind = "category", column = "class" }',
    'age = { kind = "bucket", edges = [0.1, 18, 65] }',
    'hour = { kind = "time", part = "hour", time_zone = "America/New_York", column = "at" }',
    'day = { kind = "time", part = "day", column = "at" }',
    'weekday = { kind = "time", part = "weekday", time_zone = "Asia/Kathmandu", column = "at" }',
    'price = { kind = "number", transform = "log1p" }',
    'size = { kind = "number" }',
    'user_hour = { kind = "cross", of = ["user", "hour"] }',
    loop={"name": "test", "root": "memory://test", "prior": 0.2},
    **UNREAD,
)
KINDS = ["dcn_v2", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("mlp", "lr"))]


def raw_values(rows: int, seed: int) -> dict[str, list[Any]]:
    """By column; ids that training saw with seeds 1 and 2, new ones with others."""
    random = np.random.default_rng(seed)
    known = seed in (1, 2)

    def some(make: Callable[[], Any]) -> list[Any]:
        return [None if random.random() < 0.15 else make() for _ in range(rows)]

    return {
        "user": some(lambda: f"u{random.integers(0, 30 if known else 60)}"),
        "item": some(lambda: str(random.integers(0, 20 if known else 40))),
        "tags": [
            [None if random.random() < 0.1 else f"t{random.integers(0, 9)}" for _ in range(random.integers(0, 6))]
            for _ in range(rows)
        ],
        "class": some(lambda: "Größe " * int(random.integers(0, 20))),
        "age": some(lambda: float(random.choice([0.1, 0.0999, 18, 17.5, 65, 99, -3]))),
        "at": some(lambda: int(random.integers(-(2**51), 2**51))),
        "price": some(lambda: float(random.lognormal())),
        "size": some(lambda: float(random.normal(100, 20))),
    }


def as_events(settings: Any, values: dict[str, list[Any]]) -> dict[str, pa.Array]:
    """Feature -> raw values, as a request gives them."""
    events = {name: pa.array(column) for name, column in values.items()}
    events["at"] = pa.array(values["at"], pa.timestamp("us", "UTC"))
    return {f.name: events[f.column] for f in settings.schema().features if f.kind != "cross"}


def as_tensors(settings: Any, values: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    """Feature -> raw values, as docs/versions.md says that the SavedModel takes them."""

    def text(value: Any) -> bytes:
        return b"\xff" if value is None else value.encode()

    def column(feature: Any) -> np.ndarray:
        given = values[feature.column]
        if feature.kind == "ids":
            most = max(1, *(len(one) for one in given))
            return np.array([[*map(text, one), *[b"\xfe"] * (most - len(one))] for one in given])
        if feature.kind in ("number", "bucket"):
            return np.array([np.nan if value is None else value for value in given])
        if feature.kind == "time":
            return np.array([-(2**63) if value is None else value for value in given])
        return np.array([text(value) for value in given])

    names = {"class": "class_", "self": "self_", "User": "User_"}  # words of Python; one differs in capitals alone
    return {names.get(f.name, f.name): column(f) for f in settings.schema().features if f.kind != "cross"}


MADE: dict[str, Any] = {}


@pytest.fixture
def learned(feed: Any, decided: Any) -> Callable[[str], Any]:
    """learned(kind) -> a feed whose loop has versions 1 and 2, with every kind of feature; made once for all tests."""

    def make(kind: str) -> Any:
        from training.trainer import Trainer

        if kind in MADE:
            return MADE[kind]
        made = feed(kind)
        made.settings = parse(SETTINGS).replace("model", kind=kind)
        trainer = Trainer(made.loop, made.settings)
        for record in (1, 2):
            encoded = made.settings.schema().encode_features(as_events(made.settings, raw_values(200, record)))
            label = (np.random.default_rng(record).random(200) < 0.3).astype(np.float32)
            made.append(decided(encoded, label, record))
            assert trainer.step().kind == "delta"
        trainer.close()
        return MADE.setdefault(kind, made)

    return make


def served_scores(feed: Any, values: dict[str, list[Any]], version: int | None = None) -> np.ndarray:
    """The service's: its encoding, and its scorer over all rows."""
    from training.served import served

    whole = served(feed.loop, version, str)
    scorer = whole.scorer({spec.name: whole.table.ids(spec.name) for spec in whole.specs})
    return scorer.score(Inputs.of(feed.settings.schema().encode_features(as_events(feed.settings, values))))


def written(feed: Any, path: Path, version: int | None = None, *, force: bool = False, say: Any = str) -> Any:
    from training.export import export
    from training.paths import format_of

    return export(feed.loop, version, path, format_of(path, ""), force=force, say=say)


def answering(path: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """What a SavedModel answers to raw values."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    function = loaded.signatures["serving_default"]

    def scores(tensors: dict[str, np.ndarray], _kept: Any = loaded) -> np.ndarray:
        return function(**{name: tf.constant(value) for name, value in tensors.items()})["scores"].numpy()

    return scores


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_scores_for_the_same_raw_requests(learned: Any, kind: str, tmp_path: Path) -> None:
    feed = learned(kind)
    found = written(feed, tmp_path / "model")
    assert (found.version, found.format) == (2, "saved-model")
    assert found.difference <= 1e-6
    answers = answering(tmp_path / "model")
    for seed in (1, 7):  # with ids that have rows, and with half new ones
        values = raw_values(150, seed)
        expected = served_scores(feed, values)
        assert expected.std() > 0.005
        scores = answers(as_tensors(feed.settings, values))
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)
    shared = ("user", "User_", "hour", "day", "weekday", "tags", "size")  # one value for all candidates
    values |= {name: values[name][:1] * 150 for name in ("user", "at", "tags", "size")}
    tensors = as_tensors(feed.settings, values)
    scores = answers({name: column[:1] if name in shared else column for name, column in tensors.items()})
    np.testing.assert_allclose(scores, served_scores(feed, values), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_keras_archive_takes_ids_and_needs_no_code(learned: Any, kind: str, tmp_path: Path) -> None:
    import keras

    feed = learned(kind)
    assert written(feed, tmp_path / "model.keras").difference <= 1e-6
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert b"headrace." not in archive.read("config.json").replace(b"headrace_", b"")
        assert b"Lambda" not in archive.read("config.json")
        sidecar = json.loads(archive.read("headrace.json"))
    assert sidecar["inputs"]["user_hour"] == {"dtype": "int64", "shape": [None], "holds": "the id"}
    values = raw_values(60, 7)
    encoded = feed.settings.schema().encode_features(as_events(feed.settings, values))
    inputs: dict[str, Any] = {}
    for name in encoded.column_names:
        column = encoded[name].combine_chunks()
        if name == "tags":
            lists = column.to_pylist()
            inputs[name] = np.array([one + [-1] * (3 - len(one)) for one in lists])
        else:
            inputs[name] = column.to_numpy(zero_copy_only=False)
    scores = keras.models.load_model(tmp_path / "model.keras").predict(inputs, verbose=0)["scores"]
    np.testing.assert_allclose(scores, served_scores(feed, values), rtol=0, atol=1e-6)


STRANGER = """
import json, sys
import numpy as np, tensorflow as tf
folder = sys.argv[1]
raw = {name: tf.constant(value) for name, value in np.load(f"{folder}/raw.npz").items()}
saved = tf.saved_model.load(f"{folder}/model")
whole = saved.signatures["serving_default"](**raw)["scores"].numpy()
keras = tf.keras.models.load_model(f"{folder}/model.keras")
by_ids = keras(saved.signatures["encode"](**raw))["scores"].numpy()
ours = sorted(name for name in sys.modules if name.split(".")[0] in ("headrace", "training", "paramserver", "farmhash"))
print(json.dumps([ours, whole.tolist(), by_ids.tolist()]))
"""


@pytest.mark.slow
def test_a_program_without_headrace_gets_the_same_scores(learned: Any, tmp_path: Path) -> None:
    feed = learned("dcn_v2")
    written(feed, tmp_path / "model")
    written(feed, tmp_path / "model.keras")
    values = raw_values(80, 9)
    np.savez(tmp_path / "raw.npz", **as_tensors(feed.settings, values))
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(tmp_path)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    ours, whole, by_ids = json.loads(done.stdout.splitlines()[-1])
    assert ours == []
    np.testing.assert_allclose(whole, served_scores(feed, values), rtol=0, atol=1e-6)
    np.testing.assert_allclose(by_ids, served_scores(feed, values), rtol=0, atol=1e-6)


def test_an_earlier_version_and_the_pinned_one(learned: Any, tmp_path: Path) -> None:
    feed = learned("lr")
    MADE.clear()
    log, values = feed.loop.version_log(), raw_values(50, 1)
    head = log.head()
    pinned = pin_of(VersionRecord.from_entry(head), 1, now_us=0, code="test")
    log.append(pinned.kind, pinned.to_body(), head)
    assert written(feed, tmp_path / "served").version == 1
    assert written(feed, tmp_path / "newest", 2).version == 2
    for folder, version in (("served", 1), ("newest", 2)):
        scores = answering(tmp_path / folder)(as_tensors(feed.settings, values))
        np.testing.assert_allclose(scores, served_scores(feed, values, version), rtol=0, atol=1e-6)
    with pytest.raises(ExportRefused, match="version 0 has learned nothing"):
        written(feed, tmp_path / "start", 0)
    with pytest.raises(ExportRefused, match="version 99 is not there"):
        written(feed, tmp_path / "none", 99)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest", "served"]


def test_rows_are_written_in_blocks_and_progress_is_told(learned: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from training import served

    monkeypatch.setattr(served, "BLOCK", 7)
    feed, said = learned("lr"), []
    values = raw_values(40, 1)
    written(feed, tmp_path / "model", say=said.append)
    scores = answering(tmp_path / "model")(as_tensors(feed.settings, values))
    np.testing.assert_allclose(scores, served_scores(feed, values), rtol=0, atol=1e-6)
    assert sum(line.startswith("table linear: ") for line in said) > 5


class Shifted:
    """A version that is written with another offset than it is checked with."""

    def __init__(self, whole: Any, record: Any) -> None:
        self._whole, self.record = whole, record

    def __getattr__(self, part: str) -> Any:
        return getattr(self._whole, part)


@pytest.mark.parametrize("name", ["model", "model.keras"])
def test_what_answers_otherwise_does_not_get_its_name(
    learned: Any, tmp_path: Path, monkeypatch: Any, name: str
) -> None:
    from training import export as module
    from training.served import served

    feed = learned("lr")

    def shifted(*given: Any) -> Any:
        whole = served(*given)
        record = replace(whole.record, offset=whole.record.offset + 0.01)
        return Shifted(whole, record)

    monkeypatch.setattr(module, "served", shifted)
    with pytest.raises(ExportRefused, match="answers otherwise than the service"):
        written(feed, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model", "model.keras"])
def test_what_has_the_name_is_replaced_only_when_asked_and_only_by_its_like(
    learned: Any, tmp_path: Path, name: str
) -> None:
    feed, path = learned("lr"), tmp_path / name
    written(feed, path, 1)
    with pytest.raises(ExportRefused, match="exists"):
        written(feed, path)
    assert written(feed, path, force=True).version == 2
    assert [each.name for each in tmp_path.iterdir()] == [name]
    mine = tmp_path / f"mine{path.suffix}"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    with pytest.raises(ExportRefused, match="it is not replaced"):
        written(feed, mine, force=True)
    assert (mine / "thesis.txt").exists()


def test_a_name_and_a_format_that_do_not_go_together(tmp_path: Path) -> None:
    from training.paths import format_of

    assert format_of(tmp_path / "a.keras", "") == "keras"
    assert format_of(tmp_path / "a", "saved-model") == "saved-model"
    for name, form in (("a", "keras"), ("a.keras", "saved-model"), ("a", "onnx")):
        with pytest.raises(ExportRefused):
            format_of(tmp_path / name, form)


def test_a_folder_that_cannot_be_made(learned: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreFull, match="cannot be written"):
        written(learned("lr"), tmp_path / "file" / "model")


def test_a_tower_of_another_conversion_is_refused(learned: Any, monkeypatch: Any, tmp_path: Path) -> None:
    from training import served as module

    template = module.template_of

    def other(*given: Any) -> Any:
        made = template(*given)
        return replace(made, content=made.content[:-1] + b"?")

    monkeypatch.setattr(module, "template_of", other)
    with pytest.raises(TowerRefused, match="version 2: the tower was converted by another TensorFlow"):
        written(learned("dcn_v2"), tmp_path / "model")
