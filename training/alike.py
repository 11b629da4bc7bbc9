"""Whether an artifact answers as the service does: it is loaded with stock TensorFlow or Keras and compared.

Made-up raw values must get the ids of `Schema.encode`, and the scores of the server's scorer; so must ids that have a
row, which no raw value is known of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from headrace.errors import ExportRefused
from headrace.ids import unknown_id
from headrace.scoring import Inputs, Ragged
from training.ingraph import MISSING, MISSING_TIME, NO_ID, PADDING, input_names
from training.runtime import tf

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace.features import Feature
    from training.served import Served

CHECKED: Final = 256


def check_saved_model(whole: Served, path: Path) -> float:
    """The greatest difference of scores. ExportRefused if an id is another one."""
    loaded = tf.saved_model.load(str(path))
    values, given = _made_up(whole)
    expected = Inputs.of(whole.schema.encode_features(values))
    names = input_names(feature.name for feature in whole.schema.features)
    raw = {names[name]: tf.constant(column) for name, column in given.items()}
    encoded = {name: column.numpy() for name, column in loaded.signatures["encode"](**raw).items()}
    for name, ids in expected.ids.items():
        _check_ids(name, encoded[name], ids)
    for name, ragged in expected.lists.items():
        _check_ids(name, encoded[name][encoded[name] != NO_ID], ragged.values)
    whole_way = _difference(whole, expected, loaded.signatures["serving_default"](**raw)["scores"].numpy())
    inputs, columns = _drawn(whole)
    tensors = {names[name]: tf.constant(column) for name, column in columns.items()}
    scores = loaded.signatures["score"](**tensors)["scores"]
    return max(whole_way, _difference(whole, inputs, scores.numpy()))


def check_keras(whole: Served, path: Path) -> float:
    """The greatest difference of scores."""
    import keras

    model = keras.models.load_model(path, compile=False)
    inputs, columns = _drawn(whole)
    scores = model({name: tf.constant(column) for name, column in columns.items()})["scores"].numpy()
    return _difference(whole, inputs, scores)


def _check_ids(name: str, found: Any, expected: Any) -> None:
    if not np.array_equal(found, expected):
        raise ExportRefused(
            f"the export makes other ids of feature '{name}' than the service",
            hint="this is a defect of headrace: please report it with your [features] settings",
            feature=name,
        )


def _difference(whole: Served, inputs: Inputs, scores: Any) -> float:
    ids = np.concatenate([np.empty(0, np.int64), *inputs.ids.values(), *(one.values for one in inputs.lists.values())])
    known = {
        spec.name: np.unique(np.concatenate([ids, np.array([unknown_id(name) for name in spec.features], np.int64)]))
        for spec in whole.specs
    }
    return float(np.abs(whole.scorer(known).score(inputs) - scores).max(initial=0.0))


def _drawn(whole: Served) -> tuple[Inputs, dict[str, Any]]:
    """Encoded values of ids that have a row, of others, and of numbers around their mean: for the server's scorer and
    as tensors take them.
    """
    random = np.random.default_rng(whole.record.version)
    known = np.concatenate([np.array([0]), *(whole.table.ids(spec.name) for spec in whole.specs)])
    ids: dict[str, Any] = {}
    lists: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    columns: dict[str, Any] = {}

    def drawn(n: int) -> Any:
        new = random.integers(0, 2**63 - 1, n)
        return np.where(random.random(n) < 0.8, random.choice(known, n), new)

    for feature in whole.schema.features:
        if feature.kind == "number":
            at = whole.schema.numbers.index(feature.name)
            mean, scale = (each[at] for each in whole.standard)
            values = random.normal(mean, 2 / scale if scale else 1.0, CHECKED).astype(np.float32)
            values[random.random(CHECKED) < 0.1] = np.nan
            numbers[feature.name] = columns[feature.name] = values
        elif feature.kind == "ids":
            lengths = random.integers(0, feature.max + 1, CHECKED)
            flat = drawn(int(lengths.sum()))
            lists[feature.name] = Ragged(flat, np.concatenate([[0], np.cumsum(lengths)]))
            padded = np.full((CHECKED, feature.max), NO_ID)
            padded[np.arange(feature.max) < lengths[:, None]] = flat
            columns[feature.name] = padded
        else:
            ids[feature.name] = columns[feature.name] = drawn(CHECKED)
    return Inputs(CHECKED, ids, lists, numbers), columns


def _made_up(whole: Served) -> tuple[dict[str, pa.Array], dict[str, Any]]:
    """Raw values of every feature but crosses, some missing: as a request has them, and as a SavedModel takes them."""
    random = np.random.default_rng(whole.record.version)
    values, given = {}, {}
    for feature in whole.schema.features:
        if feature.kind != "cross":
            made: Callable[..., tuple[Any, Any]] = _RAW.get(feature.kind, _texts)
            values[feature.name], given[feature.name] = made(feature, random)
    return values, given


def _texts(_feature: Feature, random: np.random.Generator) -> tuple[pa.Array, Any]:
    texts = [_text(random) for _ in range(CHECKED)]
    return pa.array(texts, pa.string()), np.array([MISSING if text is None else text.encode() for text in texts])


def _text(random: np.random.Generator) -> str | None:
    if random.random() < 0.1:
        return None
    return "".join(chr(code) for code in random.choice([*range(48, 123), 233, 8364, 128_512], random.integers(0, 70)))


def _lists(feature: Feature, random: np.random.Generator) -> tuple[pa.Array, Any]:
    lists = [[_text(random) for _ in range(random.integers(0, feature.max + 3))] for _ in range(CHECKED)]
    most = max(len(one) for one in lists)
    padded = [[MISSING if text is None else text.encode() for text in one] for one in lists]
    given = [one + [PADDING] * (most - len(one)) for one in padded]
    return pa.array(lists, pa.list_(pa.string())), np.array(given).reshape(CHECKED, most)


def _numbers(feature: Feature, random: np.random.Generator) -> tuple[pa.Array, Any]:
    around = np.array(feature.edges or (0.0, 10.0))
    values = random.choice(around, CHECKED) + random.normal(0, 2, CHECKED).round(1)
    if feature.transform == "log1p":
        values = np.abs(values)
    missing = random.random(CHECKED) < 0.1
    return pa.array(values, mask=missing), np.where(missing, np.nan, values)


def _times(_feature: Feature, random: np.random.Generator) -> tuple[pa.Array, Any]:
    times_us = random.integers(-(2**51), 2**51, CHECKED)
    missing = random.random(CHECKED) < 0.1
    stamps = pa.array(times_us, pa.timestamp("us", "UTC"), mask=missing)
    return stamps, np.where(missing, MISSING_TIME, times_us)


_RAW: Final[dict[str, Callable[..., tuple[pa.Array, Any]]]] = {
    "ids": _lists,
    "number": _numbers,
    "bucket": _numbers,
    "time": _times,
}
