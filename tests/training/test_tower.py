"""The tower in LiteRT: equal scores, patches equal to fresh conversions, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.errors import TowerRefused
from headrace.tower import Tower
from training.recipe import Architecture

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]

SHAPES = [
    Architecture("lr", fields=0, numbers=3),
    Architecture("mlp", fields=4, numbers=0),
    Architecture("mlp", fields=0, numbers=2),
    Architecture("mlp", fields=1, numbers=1, dim=4, hidden=(8, 8, 8)),
    Architecture("dcn_v2", fields=5, numbers=2),
    Architecture("dcn_v2", fields=1, numbers=0, dim=1, hidden=(1,), cross_layers=1, cross_rank=1),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_patched_tower_scores_as_tensorflow_does(shape: Architecture) -> None:
    from training.models import initial_weights, tower
    from training.tower import template_of

    random = np.random.default_rng(0)
    weights = {name: random.normal(size=w.shape).astype(np.float32) for name, w in initial_weights(shape, 0).items()}
    template = template_of(shape, {name: value.shape for name, value in weights.items()})
    runner = Tower(template.patched(weights))
    for rows in (1, 2, 33):
        embeddings = random.normal(size=(rows, shape.fields, shape.dim)).astype(np.float32)
        numbers = random.normal(size=(rows, 2 * shape.numbers)).astype(np.float32)
        served = runner.logits(embeddings if shape.fields else None, numbers if shape.numbers else None)
        expected = tower(shape, weights, embeddings, numbers).numpy()
        np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-4)


def test_a_patch_gives_the_bytes_of_a_fresh_conversion() -> None:
    from training import tower
    from training.models import initial_weights

    shape = Architecture("dcn_v2", fields=3, numbers=1)
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=w.shape).astype(np.float32) for name, w in initial_weights(shape, 0).items()}
    template = tower.template_of(shape, {name: value.shape for name, value in weights.items()})
    assert template.patched(weights) == tower._converted(shape, weights)
    assert template.patched(weights) != template.content


def test_a_weight_that_is_not_in_exactly_one_buffer_is_refused() -> None:
    from training import tower
    from training.models import initial_weights

    shape = Architecture("mlp", fields=2, numbers=0)
    weights = initial_weights(shape, 0)  # its biases are zeros: the converter folds them away
    with pytest.raises(TowerRefused, match="stands in 0 buffers"):
        tower._places(tower._converted(shape, weights), weights)


def test_a_tower_that_scores_otherwise_is_refused() -> None:
    from training import tower
    from training.models import initial_weights

    shape = Architecture("mlp", fields=2, numbers=1)
    sizes = {name: value.shape for name, value in initial_weights(shape, 0).items()}
    template = tower.template_of(shape, sizes)
    places = dict(template.places)
    places["out"] = tower.Place(places["hidden0/bias"].offset, transposed=False)
    with pytest.raises(TowerRefused, match="LiteRT and TensorFlow differ"):
        tower.checked(tower.Template(template.content, places), shape, sizes)


def test_a_model_with_nothing_to_read_has_no_tower() -> None:
    from training.tower import has_tower

    assert not has_tower(Architecture("lr", fields=0, numbers=0))
    assert has_tower(Architecture("lr", fields=0, numbers=1))
