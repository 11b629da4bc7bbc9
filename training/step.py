"""One training step: unique -> gather -> tape on the gathered rows -> sum per row -> sparse apply.

    u, inverse = unique(rows)              rows of the batch, each once: repeats would be applied in no fixed order
    x = table[u][inverse]                  the tape watches x, never the table
    g_u = sum of dloss/dx over the places where row u stands
    adagrad(table[u], g_u)

Tables with the same features give every id the same row: they share one map id -> row, and one `unique`.

The loss is the sum, not the mean, over the batch: a mean starves rare rows. One graph loops over the mini-batches of a
record. Row counts are unknown in its signature and variables are arguments, so nothing is traced twice in a process.
It returns the logit of each row *before* the update that learned it: progressive validation without a second forward
pass.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from training.admission import Sketch, everything
from training.models import LINEAR_PART, initial_weights, tower
from training.optimizers import adagrad, sparse_adagrad
from training.recipe import EMBEDDING, LINEAR, Architecture, Design, Fields, Recipe
from training.runtime import tf
from training.table import INIT_SCALE, RowIndex, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headrace.delta import TableSpec
    from training.admission import Asked
    from training.examples import Examples

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]


class Learner:
    """Tables, tower weights and optimiser slots of one model, and the compiled step that moves them."""

    def __init__(self, design: Design) -> None:
        self.shape, self.recipe, self.fields = design.shape, design.recipe, design.fields
        self.expiry, self.admission = design.expiry, design.admission
        self.numbered = {feature: number for number, feature in enumerate(design.open)}
        self.groups = groups_of(design.fields)
        self.indexes = [RowIndex() for _ in self.groups]
        self.sketches = [Sketch() for _ in self.groups] if design.admission is not None else []
        shared = {name: index for index, names in zip(self.indexes, self.groups, strict=True) for name in names}
        self.tables = {spec.name: _table(spec, design.seed, shared[spec.name]) for spec in design.tables}
        weights = initial_weights(design.shape, design.seed)
        weights["bias"][:] = design.bias
        self.weights = {name: tf.Variable(value, trainable=False) for name, value in weights.items()}
        self.slots = {
            name: tf.Variable(np.full_like(value, _start(self.recipe, name)), trainable=False)
            for name, value in weights.items()
        }
        tables = {name: (table.weights, table.slots) for name, table in self.tables.items()}
        widths = tuple((name, table.width) for name, table in self.tables.items())
        graphs = graphs_of(self.shape, self.recipe, tuple(self.fields.items()), widths)
        self._learn = graphs.learn(Variables(tables, self.weights, self.slots))
        self._tower = graphs.tower(self.weights)

    def begin(self) -> None:
        """The tables begin their journals; the tower's is a matter of whoever has all of its weights."""
        for part in self._journals():
            part.begin()

    def undo(self) -> None:
        """The tables as they were at `begin`."""
        for table in self.tables.values():
            table.undo()
        for part in self._journals():
            part.undo()

    def _journals(self) -> list[RowIndex | Sketch]:
        return [*self.indexes, *self.sketches]

    def settle(self) -> None:
        """Forgets the journals."""
        for table in self.tables.values():
            table.settle()
        for part in self._journals():
            part.settle()

    def expire(self, before_us: int, now_us: int) -> None:
        """Drops the rows whose time is over, now that the newest event learned moved from `before_us` to `now_us`."""
        if self.expiry is None:
            return
        for index, names in zip(self.indexes, self.groups, strict=True):
            rows = self.expiry.gone(index.newest_us, index.feature, index.live, before_us, now_us)
            if len(rows):
                for name in names:
                    self.tables[name].forget(rows)
                index.drop(rows)

    def learn(self, examples: Examples, numbers: Floats, batch: int) -> Floats:
        """Learns each row once, in order, `batch` rows a step. Returns logits float32 [n] from before each update.

        numbers: float32 [n, 2k], standardised, and their missing flags.
        """
        singles, listed, offsets = [], [], np.zeros(1, np.int32)
        for group, names in enumerate(self.groups):
            fields = self.fields[names[0]]
            asked = self._asked(group, examples, (*fields.single, *fields.lists))
            rows = rows_of([self.tables[name] for name in names], examples, asked, self.numbered)
            singles.append(_stacked([rows[feature] for feature in fields.single], len(examples)))
            flat, offsets = interleaved(
                [(rows[feature], examples.columns[feature].offsets) for feature in fields.lists], len(examples)
            )
            listed.append(flat)
        arrays = (*singles, *listed, offsets, numbers, examples.labels, np.int32(batch))
        logits: Floats = self._learn(*map(tf.constant, arrays)).numpy()
        return logits

    def _asked(self, group: int, examples: Examples, features: Sequence[str]) -> dict[str, Asked]:
        """Feature -> which of its ids are to have a row in the tables of a group."""
        columns = {feature: examples.columns[feature] for feature in features}
        if self.admission is None:
            return {feature: everything(column.ids) for feature, column in columns.items()}
        index, sketch = self.indexes[group], self.sketches[group]
        return {
            feature: self.admission.asked(feature, column.ids, column.events(), index.find(column.ids) >= 0, sketch)
            for feature, column in columns.items()
        }

    def tower(self, embeddings: Floats, numbers: Floats) -> Floats:
        """The tower as it is now: embeddings float32 [n, F, d], numbers float32 [n, 2k] -> float32 [n] (or [1])."""
        logits: Floats = self._tower(tf.constant(embeddings), tf.constant(numbers)).numpy()
        return logits


class Variables(NamedTuple):
    """What a step moves. tables: name -> (weights, slots); weights, slots: of the tower, by name."""

    tables: Mapping[str, tuple[Any, Any]]
    weights: Mapping[str, Any]
    slots: Mapping[str, Any]


class Graphs:
    """The compiled step and tower of one design. Variables are arguments: all its learners share one trace."""

    def __init__(
        self, shape: Architecture, recipe: Recipe, fields: Mapping[str, Fields], widths: Mapping[str, int]
    ) -> None:
        self.shape, self.recipe, self.fields, self.widths = shape, recipe, fields, widths
        self.groups = groups_of(fields)
        self._learn = tf.function(self._learn_graph, autograph=False)
        self._tower = tf.function(self._tower_graph, autograph=False)

    def learn(self, variables: Variables) -> Callable[..., Any]:
        """The loop over mini-batches of a record for these variables; takes its arrays, returns logits."""
        return partial(self._learn.get_concrete_function(variables, *self._signature()), variables)

    def tower(self, weights: Mapping[str, Any]) -> Callable[..., Any]:
        """The tower of these weights."""
        return partial(self._tower.get_concrete_function(weights, *self._tower_signature()), weights)

    def _tower_graph(self, weights: Mapping[str, Any], embeddings: Any, numbers: Any) -> Any:
        return tower(self.shape, weights, embeddings, numbers)

    def _tower_signature(self) -> list[Any]:
        return [
            tf.TensorSpec([None, self.shape.fields, self.shape.dim], tf.float32),
            tf.TensorSpec([None, 2 * self.shape.numbers], tf.float32),
        ]

    def _signature(self) -> list[Any]:
        singles = [tf.TensorSpec([None, len(self.fields[names[0]].single)], tf.int32) for names in self.groups]
        return [
            *singles,
            *(tf.TensorSpec([None], tf.int32) for _ in self.groups),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, 2 * self.shape.numbers], tf.float32),
            tf.TensorSpec([None], tf.float32),
            tf.TensorSpec([], tf.int32),
        ]

    def _learn_graph(self, variables: Variables, *arrays: Any) -> Any:
        """The loop over mini-batches. arrays: per group its single rows, per group its list rows, then the rest."""
        groups = len(self.groups)
        singles, listed = arrays[:groups], arrays[groups : 2 * groups]
        offsets, numbers, labels, batch = arrays[2 * groups :]
        rows = tf.shape(labels)[0]
        lists = len(self.fields[LINEAR].lists)

        def body(start: Any, logits: Any) -> tuple[Any, Any]:
            end = tf.minimum(start + batch, rows)
            bounds = offsets[start * lists : end * lists + 1]
            parts = [flat[bounds[0] : bounds[-1]] for flat in listed] if lists else listed
            logit = self._step(
                variables,
                [single[start:end] for single in singles],
                parts,
                bounds,
                numbers[start:end],
                labels[start:end],
            )
            return end, logits.write(start // batch, logit)

        steps = (rows + batch - 1) // batch
        logits = tf.TensorArray(tf.float32, size=steps, infer_shape=False, element_shape=[None])
        _, logits = tf.while_loop(lambda start, _: start < rows, body, [tf.constant(0), logits], parallel_iterations=1)
        return logits.concat()

    def _step(self, of: Variables, singles: Any, listed: Any, bounds: Any, numbers: Any, labels: Any) -> Any:
        """Learns one batch; returns its logits before the update."""
        places, before, found = {}, {}, {}
        for names, single, flat in zip(self.groups, singles, listed, strict=True):
            unique, inverse = tf.unique(tf.concat([tf.reshape(single, [-1]), flat], 0))
            for name in names:
                places[name], before[name] = (unique, inverse), tf.gather(of.tables[name][0], unique)
                found[name] = tf.gather(before[name], inverse)
        dense = list(of.weights.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(found)
            tape.watch(dense)
            logit = self._logit(of.weights, found, tf.shape(labels)[0], bounds, numbers)
            loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logit))
        gradients = tape.gradient(loss, [found, dense], unconnected_gradients="zero")
        for name, (unique, inverse) in places.items():
            summed = _summed(gradients[0][name], inverse, tf.size(unique))
            rate = self.recipe.rate_embedding if name == EMBEDDING else self.recipe.rate_linear
            sparse_adagrad(*of.tables[name], summed, unique, rate, before[name])
        for (name, variable), gradient in zip(of.weights.items(), gradients[1], strict=True):
            rate = self.recipe.rate_bias if name in LINEAR_PART else self.recipe.rate_dense
            adagrad(variable, of.slots[name], gradient, rate)
        return logit

    def _logit(
        self, weights: Mapping[str, Any], gathered: Mapping[str, Any], rows: Any, bounds: Any, numbers: Any
    ) -> Any:
        fields = [
            _model_fields(gathered[name], rows, bounds, self.widths[name], self.fields[name]) for name in self.fields
        ]
        embeddings = fields[1] if len(fields) > 1 else None
        return tf.reduce_sum(fields[0], [1, 2]) + tower(self.shape, weights, embeddings, numbers)


@lru_cache(maxsize=16)
def graphs_of(
    shape: Architecture, recipe: Recipe, fields: tuple[tuple[str, Fields], ...], widths: tuple[tuple[str, int], ...]
) -> Graphs:
    """Once per process: a trace takes most of a second."""
    return Graphs(shape, recipe, dict(fields), dict(widths))


def groups_of(fields: Mapping[str, Fields]) -> list[tuple[str, ...]]:
    """Names of the tables, those with the same features together."""
    groups: dict[Fields, tuple[str, ...]] = {}
    for name, features in fields.items():
        groups[features] = (*groups.get(features, ()), name)
    return list(groups.values())


def _table(spec: TableSpec, seed: int, index: RowIndex) -> Table:
    scale = INIT_SCALE if spec.name == EMBEDDING else 0.0
    return Table(spec.name, spec.width, seed=seed, scale=scale, index=index)


def _start(recipe: Recipe, weight: str) -> float:
    return recipe.start_bias if weight in LINEAR_PART else recipe.start_dense


def rows_of(
    tables: Sequence[Table], examples: Examples, asked: Mapping[str, Asked], numbered: Mapping[str, int]
) -> dict[str, Rows]:
    """Feature -> int32 [m], the row of every id in `tables`, which share their index.

    New ids get a row in the order features, then first sight. numbered: the features whose rows may go.
    """
    rows = tables[0].index.admit(np.concatenate([np.empty(0, np.int64), *(each.ids for each in asked.values())]))
    for table in tables:
        table.touch(rows)
    found, start = {}, 0
    for feature, each in asked.items():
        own = rows[start : start + len(each.ids)]
        if feature in numbered:
            newest_us = examples.newest_us(feature)[each.places < each.own]
            tables[0].index.see(own[: each.own], newest_us, numbered[feature])
        found[feature] = own[each.places][examples.columns[feature].codes]
        start += len(each.ids)
    return found


def interleaved(lists: Sequence[tuple[Rows, Any]], examples: int) -> tuple[Rows, Rows]:
    """Several list features as one: all lists of example 0, then of example 1, and so on.

    lists: (rows int32 [m], offsets int32 [n + 1]) per feature, L of them.
    Returns (rows int32 [sum of m], offsets int32 [n * L + 1]).

    >>> interleaved([(np.array([1, 2, 3]), np.array([0, 2, 3])), (np.array([7]), np.array([0, 0, 1]))], 2)[0].tolist()
    [1, 2, 3, 7]
    """
    if not lists:
        return np.empty(0, np.int32), np.zeros(1, np.int32)
    lengths = np.stack([np.diff(offsets) for _, offsets in lists], 1)
    segments = np.arange(examples * len(lists)).reshape(examples, len(lists))
    keys = np.concatenate([np.repeat(segments[:, i], lengths[:, i]) for i in range(len(lists))])
    flat = np.concatenate([rows for rows, _ in lists])[np.argsort(keys, kind="stable")]
    return flat.astype(np.int32), np.concatenate([[0], np.cumsum(lengths.ravel())]).astype(np.int32)


def _stacked(columns: Sequence[Rows], examples: int) -> Rows:
    return np.stack(columns, 1) if columns else np.empty((examples, 0), np.int32)


def _summed(gradient: Any, inverse: Any, unique: Any) -> Any:
    """float32 [m, d] -> [u, d]: the rows of `gradient` added up by `inverse`, int32 [m].

    The product of the sparse matrix S, S[inverse[i], i] = 1, with the gradient: the same sums in the same order as
    unsorted_segment_sum, in 0.1 to 0.4 of its time. The int32 pair (inverse[i], i) is the int64 inverse[i] + 2^32 i.
    """
    places = tf.size(inverse, tf.int64)
    pairs = tf.cast(inverse, tf.int64) + tf.range(places) * (1 << 32)
    return tf.raw_ops.SparseTensorDenseMatMul(
        a_indices=tf.bitcast(pairs, tf.int32),
        a_values=tf.ones([places]),
        a_shape=tf.stack([tf.cast(unique, tf.int64), places]),
        b=gradient,
    )


def _model_fields(x: Any, rows: Any, bounds: Any, width: int, fields: Fields) -> Any:
    """x float32 [m, d] -> float32 [n, F, d] in model order; the rows of a list are averaged, an empty list is zero."""
    singles = len(fields.single)
    if not fields.lists:
        return tf.reshape(x, [-1, singles, width])
    lengths = bounds[1:] - bounds[:-1]
    segments = tf.repeat(tf.range(tf.size(lengths)), lengths)
    pooled = tf.math.unsorted_segment_mean(x[rows * singles :], segments, tf.size(lengths))
    both = tf.concat(
        [tf.reshape(x[: rows * singles], [-1, singles, width]), tf.reshape(pooled, [-1, len(fields.lists), width])], 1
    )
    return both if fields.permutation == list(range(len(fields.order))) else tf.gather(both, fields.permutation, axis=1)
