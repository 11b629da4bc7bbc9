"""Towers of the built-in models.

    logit = sum of the linear rows (ids and crosses) + tower(embeddings, numbers)

    lr       tower = b + n.w
    mlp      x = [e_1 … e_F, n];  h_0 = x;  h_i = relu(h_(i-1) W_i + b_i);  tower = b + n.w + h.o
    dcn_v2   the same h, and beside it c_0 = x;  c_l = x * ((c_(l-1) U_l) V_l + b_l) + c_(l-1);
             tower = b + n.w + [h, c].o

n: numbers, standardised, then their missing flags; e: embedding rows. Crosses of features feed the linear part only.
DCN-v2: Wang et al., WWW 2021 (arXiv 2008.13535), equations 1 and 2, the low-rank form of section 3.2 without experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from training.runtime import tf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from training.recipe import Architecture

Floats = npt.NDArray[np.float32]
LINEAR_PART = ("bias", "numbers")
"""Tower weights that belong to the linear part: they learn at `rate_bias`."""


def initial_weights(shape: Architecture, seed: int) -> dict[str, Floats]:
    """Name -> float32 array, in a fixed order: zeros, and Glorot-uniform kernels that depend on the seed alone."""
    sizes = weight_shapes(shape)
    weights = {}
    for number, (name, size) in enumerate(sizes.items()):
        if len(size) == 2 and name not in LINEAR_PART:
            limit = (6.0 / sum(size)) ** 0.5
            weights[name] = tf.random.stateless_uniform(size, [seed, number], -limit, limit).numpy()
        else:
            weights[name] = np.zeros(size, np.float32)
    return weights


def weight_shapes(shape: Architecture) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight of a tower, in a fixed order."""
    sizes: dict[str, tuple[int, ...]] = {"bias": (1,)}
    if shape.numbers:
        sizes["numbers"] = (2 * shape.numbers, 1)
    if shape.kind == "lr":
        return sizes
    width = shape.inputs
    for layer, units in enumerate(shape.hidden):
        sizes[f"hidden{layer}/kernel"] = (width, units)
        sizes[f"hidden{layer}/bias"] = (units,)
        width = units
    if shape.kind == "dcn_v2":
        for layer in range(shape.cross_layers):
            sizes[f"cross{layer}/in"] = (shape.inputs, shape.cross_rank)
            sizes[f"cross{layer}/out"] = (shape.cross_rank, shape.inputs)
            sizes[f"cross{layer}/bias"] = (shape.inputs,)
        width += shape.inputs
    sizes["out"] = (width, 1)
    return sizes


def tower(shape: Architecture, weights: Mapping[str, Any], embeddings: Any, numbers: Any) -> Any:
    """embeddings float32 [n, F, d], numbers float32 [n, 2k] (None where F or k is 0) -> logit float32 [n].

    A model without embeddings and without numbers gives its bias, float32 [1], which counts for every example.
    """
    logit = weights["bias"]
    if shape.numbers:
        logit = logit + tf.linalg.matmul(numbers, weights["numbers"])[:, 0]
    if shape.kind == "lr":
        return logit
    return logit + _DEEP[shape.kind](shape, weights, _inputs(shape, embeddings, numbers))


def _inputs(shape: Architecture, embeddings: Any, numbers: Any) -> Any:
    parts = [tf.reshape(embeddings, [-1, shape.fields * shape.dim])] if shape.fields else []
    return tf.concat([*parts, numbers], 1) if shape.numbers else parts[0]


def _mlp(shape: Architecture, weights: Mapping[str, Any], x: Any) -> Any:
    return tf.linalg.matmul(_hidden(shape, weights, x), weights["out"])[:, 0]


def _dcn_v2(shape: Architecture, weights: Mapping[str, Any], x: Any) -> Any:
    crossed = x
    for layer in range(shape.cross_layers):
        low = tf.linalg.matmul(crossed, weights[f"cross{layer}/in"])
        crossed = x * (tf.linalg.matmul(low, weights[f"cross{layer}/out"]) + weights[f"cross{layer}/bias"]) + crossed
    return tf.linalg.matmul(tf.concat([_hidden(shape, weights, x), crossed], 1), weights["out"])[:, 0]


def _hidden(shape: Architecture, weights: Mapping[str, Any], x: Any) -> Any:
    for layer in range(len(shape.hidden)):
        x = tf.nn.relu(tf.linalg.matmul(x, weights[f"hidden{layer}/kernel"]) + weights[f"hidden{layer}/bias"])
    return x


_DEEP: Mapping[str, Callable[[Architecture, Mapping[str, Any], Any], Any]] = {"mlp": _mlp, "dcn_v2": _dcn_v2}
