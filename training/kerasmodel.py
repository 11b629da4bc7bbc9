"""A version as a Keras model of stock layers alone, so that `keras.models.load_model` needs no code of headrace.

No stock layer can salt and hash a text, so its inputs are encoded values, one per feature, crosses too: ids int64 [n],
lists int64 [n, L] padded with -1, numbers float32 [n], NaN where missing. The `encode` signature of the SavedModel of
the same version makes them of raw values in TensorFlow alone; in headrace `Schema.encode` does.

    ids -> IntegerLookup `<table>.lines` (0 = no row) -> Embedding `<table>.rows` (line 0: zeros) -> `tower.hidden0`, …

One lookup and one embedding per table, shared by its features; an id without a row is the unknown id of its feature.
Names have a dot, which those of features have not.
The formula is that of headrace/scoring.py and training/models.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers, ops

from training.ingraph import NO_ID
from training.recipe import EMBEDDING
from training.savedmodel import CLIP, LOGIT_BOUND, filled, unknown_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from headrace.delta import TableSpec
    from training.served import Say, Served


def write_keras(served: Served, path: Path, say: Say) -> None:
    """Writes the archive `path`, which does not exist and ends with .keras."""
    model = model_of(served, say)
    say(f"writing {path.name}")
    model.save(path)


def model_of(served: Served, say: Say) -> Any:
    """The model: {feature: encoded values} -> {"scores": float32 [n]}."""
    inputs = {
        feature.name: keras.Input(
            (None,) if feature.kind == "ids" else (),
            dtype="float32" if feature.kind == "number" else "int64",
            name=feature.name,
        )
        for feature in served.schema.features
    }
    fields = {spec.name: _fields(served, spec, inputs, say) for spec in served.specs if spec.features}
    parts = [part for name, table in fields.items() if name != EMBEDDING for part in table]
    numbers = _standardised(served, inputs)
    if served.weights:
        parts += _tower(served, fields.get(EMBEDDING, []), numbers)
    bias = float(served.weights["bias"][0]) if served.weights else 0.0
    logit = parts[0] if len(parts) == 1 else layers.Add(name="tower.logit")(parts)
    logit = ops.clip(ops.squeeze(logit, 1) + (served.record.offset + bias), -LOGIT_BOUND, LOGIT_BOUND)
    return keras.Model(inputs, {"scores": ops.sigmoid(logit)}, name=f"headrace_version_{served.record.version}")


def _fields(served: Served, spec: TableSpec, inputs: Mapping[str, Any], say: Say) -> list[Any]:
    """Of each feature of a table, float32 [n, width]."""
    ids = np.sort(served.table.ids(spec.name))
    lookup = layers.IntegerLookup(num_oov_indices=1, name=f"{spec.name}.lines")
    lookup.set_vocabulary(ids if len(ids) else np.array([NO_ID - 1]))
    table = layers.Embedding(max(len(ids), 1) + 1, spec.width, embeddings_initializer="zeros", name=f"{spec.name}.rows")
    table.build()
    filled(table.embeddings.value, served, spec, ids, say)
    unknown = unknown_lines(spec, ids)
    return [_field(lookup, table, inputs[name], unknown[name]) for name in spec.features]


def _field(lookup: Callable[[Any], Any], table: Callable[[Any], Any], ids: Any, unknown: int) -> Any:
    found = lookup(ids)
    rows = table(ops.where(ops.equal(found, 0), unknown, found))
    if len(ids.shape) == 1:
        return rows
    given = ops.expand_dims(ops.cast(ops.not_equal(ids, NO_ID), "float32"), 2)
    return ops.sum(rows * given, axis=1) / ops.maximum(ops.sum(given, axis=1), 1.0)


def _standardised(served: Served, inputs: Mapping[str, Any]) -> Any:
    """float32 [n, 2 k], None without numbers."""
    names = served.schema.numbers
    if not names:
        return None
    x = ops.stack([inputs[name] for name in names], axis=1)
    missing = ops.isnan(x)
    mean, scale = served.standard
    z = ops.clip((x - mean) * scale, -CLIP, CLIP)
    return ops.concatenate([ops.where(missing, 0.0, z), ops.cast(missing, "float32")], axis=1)


def _tower(served: Served, fields: list[Any], numbers: Any) -> list[Any]:
    """What the tower adds to the logit, each float32 [n, 1], without its bias."""
    weights = served.weights
    parts = [_dense("numbers", numbers, weights["numbers"])] if numbers is not None else []
    if served.shape.kind == "lr":
        return parts
    x = _joined([*fields, *([numbers] if numbers is not None else [])])
    hidden, crossed = x, x
    for i in range(len(served.shape.hidden)):
        name = f"hidden{i}"
        hidden = _dense(name, hidden, weights[f"{name}/kernel"], weights[f"{name}/bias"], activation="relu")
    if served.shape.kind == "mlp":
        return [*parts, _dense("out", hidden, weights["out"])]
    for i in range(served.shape.cross_layers):
        low = _dense(f"cross{i}_in", crossed, weights[f"cross{i}/in"])
        wide = _dense(f"cross{i}_out", low, weights[f"cross{i}/out"], weights[f"cross{i}/bias"])
        crossed = x * wide + crossed
    return [*parts, _dense("out", _joined([hidden, crossed]), weights["out"])]


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)


def _dense(name: str, x: Any, kernel: Any, bias: Any = None, activation: str | None = None) -> Any:
    layer = layers.Dense(kernel.shape[1], activation=activation, use_bias=bias is not None, name=f"tower.{name}")
    y = layer(x)
    layer.set_weights([kernel] if bias is None else [kernel, bias])
    return y
