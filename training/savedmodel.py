"""A version as a TensorFlow SavedModel: one that knows nothing of headrace answers what the service answers.

    serving_default   raw values, one input per feature (training/ingraph.py)  -> scores float32 [n]
    encode            the same inputs                                          -> encoded values, crosses too
    score             encoded values                                           -> scores float32 [n]

so serving_default = score(encode(raw)). A feature has n lines, or one that all candidates share. Each table is a sorted
variable of ids and one of rows, found by binary search: the graph holds no rows, and its size does not depend on them.
The formula is that of headrace/scoring.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headrace.ids import unknown_id
from training.ingraph import NO_ID, encoded, encoded_signature, raw_signature
from training.models import tower
from training.recipe import EMBEDDING
from training.runtime import tf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from headrace.delta import TableSpec
    from training.served import Ids, Say, Served

CLIP: Final = 5.0
LOGIT_BOUND: Final = 87.0
STEPS: Final = 8  # lines of progress for a table


def write_saved_model(served: Served, path: Path, say: Say) -> None:
    """Writes the folder `path`, which does not exist."""
    module = _Module(served, say)
    say(f"writing {path.name}")
    tf.saved_model.save(module, str(path), signatures=module.signatures())


def filled(variable: Any, served: Served, spec: TableSpec, ids: Ids, say: Say) -> None:
    """Writes the rows of `ids` below the first line of `variable` [n + 1, width], a block at a time."""
    for start, rows in served.blocks(spec, ids):
        lines = np.arange(start + 1, start + 1 + len(rows), dtype=np.int32)
        tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=lines, updates=rows)
        done = start + len(rows)
        if done * STEPS // len(ids) > start * STEPS // len(ids):
            say(f"table {spec.name}: {done:,} of {len(ids):,} rows")


class _Table(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """ids: int64 [n] ascending; rows: float32 [n + 1, width], line 0 is zeros."""

    def __init__(self, served: Served, spec: TableSpec, say: Say) -> None:
        super().__init__(name=spec.name)
        ids = np.sort(served.table.ids(spec.name))
        self.rows = tf.Variable(tf.zeros([len(ids) + 1, spec.width]), trainable=False, name=f"{spec.name}/rows")
        filled(self.rows, served, spec, ids, say)
        if not len(ids):
            ids, self.rows = np.array([NO_ID]), tf.Variable(tf.zeros([2, spec.width]), trainable=False)
        self.ids = tf.Variable(ids, trainable=False, name=f"{spec.name}/ids")
        self._unknown = unknown_lines(spec, ids)
        self._features = spec.features

    def fields(self, columns: Mapping[str, Any], n: Any) -> Any:
        """float32 [n, F, width]: the field of each feature, in the order of the table (headrace/scoring.py).

        columns: ids int64 [n], or [n, L] padded with NO_ID; or of one line that all candidates share.
        """
        singles = [name for name in self._features if columns[name].shape.rank == 1]
        lists = [name for name in self._features if columns[name].shape.rank == 2]
        width, parts = self.rows.shape[1], []
        if singles:
            ids = tf.stack([tf.broadcast_to(columns[name], [n]) for name in singles], 1)
            parts.append(tf.gather(self.rows, self._lines(ids, [self._unknown[name] for name in singles])))
        for name in lists:
            given = tf.cast(columns[name] != NO_ID, tf.float32)[:, :, None]
            rows = tf.gather(self.rows, self._lines(columns[name], self._unknown[name])) * given
            means = tf.reduce_sum(rows, 1) / tf.maximum(tf.reduce_sum(given, 1), 1.0)
            parts.append(tf.broadcast_to(means, tf.stack([n, width]))[:, None])
        order = [(*singles, *lists).index(name) for name in self._features]
        return tf.gather(tf.concat(parts, 1), order, axis=1)

    def _lines(self, ids: Any, unknown: Any) -> Any:
        """int64 [n, m] -> int32 [n, m]; unknown: the line where an id has none, one of all or m."""
        flat = tf.reshape(ids, [-1])
        at = tf.minimum(tf.searchsorted(self.ids, flat), tf.size(self.ids) - 1)
        found = tf.reshape(tf.gather(self.ids, at) == flat, tf.shape(ids))
        return tf.where(found, tf.reshape(at, tf.shape(ids)) + 1, tf.constant(unknown, tf.int32))


def unknown_lines(spec: TableSpec, ids: Ids) -> dict[str, int]:
    """Feature -> line of the row of its unknown id, 0 where it has none; ids: int64 [n] ascending, of lines 1 …"""
    wanted = np.array([unknown_id(name) for name in spec.features], np.int64)
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    lines = np.where(ids[at] == wanted, at + 1, 0) if len(ids) else np.zeros(len(wanted), np.int64)
    return dict(zip(spec.features, lines.tolist(), strict=True))


class _Module(tf.Module):  # type: ignore[misc]
    def __init__(self, served: Served, say: Say) -> None:
        super().__init__(name="headrace")
        self._schema, self._shape, self._specs = served.schema, served.shape, served.specs
        (self._mean, self._scale), self._offset = served.standard, served.record.offset
        self.tables = {spec.name: _Table(served, spec, say) for spec in served.specs}
        self.weights = {name: tf.Variable(value, trainable=False) for name, value in served.weights.items()}

    def signatures(self) -> dict[str, Any]:
        """Each part is traced once: `serving_default` calls the two others."""
        raw = raw_signature(self._schema)
        encode = _traced(lambda given: encoded(self._schema, given), raw)
        score = _traced(self._score, encoded_signature(self._schema))
        return {"serving_default": _traced(lambda given: score(encode(given)), raw), "encode": encode, "score": score}

    def _score(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        n = tf.reduce_max(tf.stack([tf.shape(column)[0] for column in columns.values()]))
        fields = {spec.name: self.tables[spec.name].fields(columns, n) for spec in self._specs if spec.features}
        logit = tf.fill([n], np.float32(self._offset))
        for name, values in fields.items():
            if name != EMBEDDING:
                logit += tf.reduce_sum(values, [1, 2])
        if self.weights:
            logit += tower(self._shape, self.weights, fields.get(EMBEDDING), self._standardised(columns, n))
        return {"scores": tf.sigmoid(tf.clip_by_value(logit, -LOGIT_BOUND, LOGIT_BOUND))}

    def _standardised(self, columns: Mapping[str, Any], n: Any) -> Any:
        """float32 [n, 2 k], None without numbers."""
        names = self._schema.numbers
        if not names:
            return None
        x = tf.stack([tf.broadcast_to(columns[name], [n]) for name in names], 1)
        missing = tf.math.is_nan(x)
        z = (x - self._mean) * self._scale
        z = tf.where(missing, tf.zeros_like(x), tf.clip_by_value(z, -CLIP, CLIP))
        return tf.concat([z, tf.cast(missing, tf.float32)], 1)


def _traced(function: Callable[[Any], Any], signature: Mapping[str, Any]) -> Any:
    return tf.function(function, autograph=False).get_concrete_function(signature)
