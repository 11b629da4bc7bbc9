"""Adagrad against numpy, and against TensorFlow's own optimiser."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]


def test_dense_is_the_formula_and_keras() -> None:
    import keras

    from training.optimizers import EPSILON, adagrad
    from training.runtime import tf

    random = np.random.default_rng(0)
    start = random.normal(size=(5, 3)).astype(np.float32)
    ours, accumulator = tf.Variable(start), tf.Variable(np.full((5, 3), 0.5, np.float32))
    theirs = keras.Variable(start)
    optimizer = keras.optimizers.Adagrad(0.05, initial_accumulator_value=0.5, epsilon=EPSILON)
    value, squares = start.astype(np.float64), np.full((5, 3), 0.5)
    for _ in range(20):
        gradient = random.normal(size=(5, 3)).astype(np.float32)
        adagrad(ours, accumulator, gradient, 0.05)
        optimizer.apply([tf.constant(gradient)], [theirs])
        squares += gradient.astype(np.float64) ** 2
        value -= 0.05 * gradient / (np.sqrt(squares) + EPSILON)
    np.testing.assert_allclose(ours.numpy(), value, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(ours.numpy(), theirs.value.numpy(), rtol=2e-5, atol=1e-6)


def test_sparse_moves_the_named_rows_only_as_dense_would() -> None:
    from training.optimizers import adagrad, sparse_adagrad
    from training.runtime import tf

    random = np.random.default_rng(1)
    start = random.normal(size=(6, 4)).astype(np.float32)
    rows, gradient = np.array([4, 1], np.int32), random.normal(size=(2, 4)).astype(np.float32)
    sparse, slots = tf.Variable(start), tf.Variable(np.ones((6, 4), np.float32))
    sparse_adagrad(sparse, slots, gradient, rows, 0.1)
    dense, dense_slots = tf.Variable(start[rows]), tf.Variable(np.ones((2, 4), np.float32))
    adagrad(dense, dense_slots, gradient, 0.1)
    expected = start.copy()
    expected[rows] = dense.numpy()
    np.testing.assert_array_equal(sparse.numpy(), expected)
