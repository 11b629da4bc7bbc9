"""The step against brute force in plain numpy, one row at a time."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace.delta import Numbers
from training.recipe import Design, design_of
from training.statistics import standardised

if TYPE_CHECKING:
    from training.examples import Column, Examples

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]

UNIT = Numbers((0.0,), (1.0,))


def lists_of(column: Column, row: int) -> np.ndarray:
    if column.offsets is None:
        return column.ids[column.codes[row : row + 1]]
    return column.ids[column.codes[column.offsets[row] : column.offsets[row + 1]]]


class BruteForce:
    """Logistic regression with Adagrad on summed gradients, in float64 dictionaries."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.rows: dict[int, list[float]] = {}
        self.dense = np.zeros(3)  # two number weights, then the bias
        self.dense[2] = design.bias
        self.slots = np.full(3, design.recipe.start_bias)

    def logit(self, rows: Examples, numbers: np.ndarray, row: int) -> float:
        total = self.dense[2] + float(numbers[row] @ self.dense[:2])
        for name in self.design.fields["linear"].order:
            ids = lists_of(rows.columns[name], row)
            total += sum(self.rows.get(int(id_), [0.0, 1.0])[0] for id_ in ids) / max(len(ids), 1)
        return total

    def learn(self, rows: Examples, numbers: np.ndarray, batch: int) -> np.ndarray:
        logits = np.zeros(len(rows))
        for start in range(0, len(rows), batch):
            here = range(start, min(start + batch, len(rows)))
            sums: dict[int, float] = {}
            dense = np.zeros(3)
            for row in here:
                logits[row] = self.logit(rows, numbers, row)
                error = 1 / (1 + np.exp(-logits[row])) - float(rows.labels[row])
                dense += error * np.append(numbers[row], 1)
                for name in self.design.fields["linear"].order:
                    ids = lists_of(rows.columns[name], row)
                    for id_ in ids:
                        sums[int(id_)] = sums.get(int(id_), 0.0) + error / len(ids)
            self._apply(sums, dense)
        return logits

    def _apply(self, sums: dict[int, float], dense: np.ndarray) -> None:
        for id_, gradient in sums.items():
            value = self.rows.setdefault(id_, [0.0, 1.0])
            value[1] += gradient**2
            value[0] -= self.design.recipe.rate_linear * gradient / (value[1] ** 0.5 + 1e-7)
        self.slots += dense**2
        self.dense -= self.design.recipe.rate_bias * dense / (np.sqrt(self.slots) + 1e-7)


@pytest.fixture(scope="module")
def learner_of() -> Any:
    from training.step import Learner

    return Learner


@pytest.mark.parametrize("batch", [1, 8, 50])
def test_lr_learns_as_brute_force_does(batch: int, learner_of: Any, made_up: Any) -> None:
    settings, rows = made_up("lr", 120)
    design = design_of(settings, settings.schema())
    numbers = standardised(rows.numbers, UNIT)
    learner, reference = learner_of(design), BruteForce(design)
    logits = learner.learn(rows, numbers, batch)
    np.testing.assert_allclose(logits, reference.learn(rows, numbers, batch), rtol=1e-4, atol=1e-5)
    table = learner.tables["linear"]
    weights = table.read(np.arange(table.index.used, dtype=np.int32))[:, 0]
    expected = [reference.rows[id_][0] for id_ in table.index.ids.tolist()]
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learner.weights["bias"].numpy(), reference.dense[2:], rtol=1e-4)


def test_without_adding_up_repeated_rows_the_result_is_another(learner_of: Any, made_up: Any) -> None:
    """The twin: what a sparse update of repeated rows gives is not Adagrad on the summed gradient."""
    from training.optimizers import sparse_adagrad
    from training.runtime import tf

    gradient, rows = np.ones((3, 1), np.float32), np.array([0, 0, 0], np.int32)
    table, slots = tf.Variable([[0.0]]), tf.Variable([[1.0]])
    sparse_adagrad(table, slots, gradient, rows, 0.1)
    once, once_slots = tf.Variable([[0.0]]), tf.Variable([[1.0]])
    sparse_adagrad(once, once_slots, gradient.sum(0, keepdims=True), rows[:1], 0.1)
    assert slots.numpy() == 2
    assert once_slots.numpy() == 10


@pytest.mark.parametrize("kind", ["mlp", "dcn_v2"])
def test_deep_models_learn_as_the_tape_over_whole_tables_says(kind: str, learner_of: Any, made_up: Any) -> None:
    """An independent forward pass over dense tables; TensorFlow's own gradients of tables; numpy Adagrad."""
    from training.models import tower
    from training.runtime import tf

    settings, rows = made_up(kind, 40)
    design = design_of(settings, settings.schema())
    numbers = standardised(rows.numbers, UNIT)
    learner = learner_of(design)
    fresh = learner_of(design)
    for name, table in fresh.tables.items():
        for feature in (*design.fields[name].single, *design.fields[name].lists):
            table.rows_of(rows.columns[feature].ids)
    tables = {name: tf.Variable(table.weights.value()) for name, table in fresh.tables.items()}
    places = {
        name: [
            [
                fresh.tables[name].index.find(lists_of(rows.columns[feature], row))
                for feature in design.fields[name].order
            ]
            for row in range(len(rows))
        ]
        for name in tables
    }

    def fields(name: str) -> Any:
        zero = tf.zeros([fresh.tables[name].width])
        return tf.stack(
            [
                tf.stack([tf.reduce_mean(tf.gather(tables[name], at), 0) if len(at) else zero for at in row])
                for row in places[name]
            ]
        )

    watched = [*tables.values(), *fresh.weights.values()]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        logit = tf.reduce_sum(fields("linear"), [1, 2]) + tower(
            design.shape, fresh.weights, fields("embedding"), tf.constant(numbers)
        )
        loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=rows.labels, logits=logit))
    gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(loss, watched)]
    np.testing.assert_allclose(learner.learn(rows, numbers, 64), logit.numpy(), rtol=1e-5, atol=1e-5)
    recipe = design.recipe
    rates = [recipe.rate_linear, recipe.rate_embedding]
    for gradient, rate, name in zip(gradients[:2], rates, tables, strict=True):
        expected = tables[name].numpy() - rate * gradient / (np.sqrt(1 + gradient**2) + 1e-7)
        used = learner.tables[name].index.used
        here = learner.tables[name].index.find(fresh.tables[name].index.ids)
        assert used == fresh.tables[name].index.used
        np.testing.assert_allclose(learner.tables[name].read(here), expected[:used], rtol=1e-4, atol=1e-6)
    for gradient, (name, variable) in zip(gradients[2:], fresh.weights.items(), strict=True):
        linear = name in ("bias", "numbers")
        start, rate = (recipe.start_bias, recipe.rate_bias) if linear else (recipe.start_dense, recipe.rate_dense)
        expected = variable.numpy() - rate * gradient / (np.sqrt(start + gradient**2) + 1e-7)
        np.testing.assert_allclose(learner.weights[name].numpy(), expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_logits_are_from_before_each_update_and_sizes_do_not_retrace(learner_of: Any, made_up: Any) -> None:
    settings, rows = made_up("dcn_v2", 30)
    design = design_of(settings, settings.schema())
    numbers = standardised(rows.numbers, UNIT)
    one, other = learner_of(design), learner_of(design)
    first = one.learn(rows, numbers, 1000)
    np.testing.assert_array_equal(other.learn(rows, numbers, 10)[:10], first[:10])
    again = one.learn(rows, numbers, 7)
    assert not np.array_equal(again[:7], first[:7])
    assert not np.array_equal(one.learn(rows, numbers, 10)[10:], other.learn(rows, numbers, 10)[10:])


def test_learners_of_one_design_share_the_graph_and_no_weight(learner_of: Any, made_up: Any) -> None:
    settings, rows = made_up("mlp", 30)
    design = design_of(settings, settings.schema())
    numbers = standardised(rows.numbers, UNIT)
    one, other = learner_of(design), learner_of(design)
    assert one._learn.func is other._learn.func
    before = {name: value.numpy() for name, value in other.weights.items()}
    first = one.learn(rows, numbers, 10)
    for name, value in before.items():
        np.testing.assert_array_equal(other.weights[name].numpy(), value)
    np.testing.assert_array_equal(other.learn(rows, numbers, 10), first)
    for name, table in one.tables.items():
        every = np.arange(table.index.used, dtype=np.int32)
        np.testing.assert_array_equal(other.tables[name].read(every), table.read(every))
    slower = design_of(settings.replace("train", lr_dense=0.001), settings.schema())
    assert learner_of(slower)._learn.func is not one._learn.func


def test_interleaving_puts_the_lists_of_a_row_together() -> None:
    from training.step import interleaved

    random = np.random.default_rng(0)
    lists = []
    for _ in range(3):
        offsets = np.concatenate([[0], np.cumsum(random.integers(0, 4, 9))])
        lists.append((random.integers(0, 99, offsets[-1]).astype(np.int32), offsets))
    rows, offsets = interleaved(lists, 9)
    expected = [flat[at[row] : at[row + 1]].tolist() for row in range(9) for flat, at in lists]
    assert [rows[a:b].tolist() for a, b in itertools.pairwise(offsets)] == expected
