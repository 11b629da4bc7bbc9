"""The tower as a LiteRT flatbuffer: converted once per process, patched for every version.

A conversion costs 0.7-1.9 s, a patch 0.04 ms, and both give the same bytes. The template is converted from *sentinel*
weights: random, so that no two buffers are equal (the converter merges equal ones) and none is folded away. Each weight
must then be found in exactly one buffer, as it is or transposed; another count refuses the tower. Weights enter the
conversion as constants: passing variables or a Keras model as trackable objects converts without complaint and then
returns NaN. `checked` compares TensorFlow and LiteRT before the first version is made.

Inputs `embeddings` [n, F, d] and `numbers` [n, 2k], one left out where it would be empty; output: logit [n]. A model
with neither (lr without numbers) has no tower: its bias is the offset of the version record.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.errors import TowerRefused
from headrace.tower import Tower
from training.models import tower
from training.runtime import tf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from training.recipe import Architecture

Floats = npt.NDArray[np.float32]

TOLERANCE = 1e-5
_CHECKED_ROWS = (1, 7)


@dataclass(frozen=True)
class Place:
    """Where the bytes of a weight stand in the flatbuffer."""

    offset: int
    transposed: bool


@dataclass(frozen=True)
class Template:
    """A converted tower and the place of each weight."""

    content: bytes
    places: Mapping[str, Place]

    def patched(self, weights: Mapping[str, Floats]) -> bytes:
        """The flatbuffer with these weights."""
        content = bytearray(self.content)
        for name, place in self.places.items():
            value = weights[name].T if place.transposed else weights[name]
            content[place.offset : place.offset + value.nbytes] = np.ascontiguousarray(value).tobytes()
        return bytes(content)

    def weights_of(self, content: bytes, sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Floats]:
        """The inverse of `patched`; sizes: weight name -> shape. TowerRefused for a flatbuffer of another template."""
        weights = {}
        for name, place in self.places.items():
            size = sizes[name][::-1] if place.transposed else sizes[name]
            value = np.frombuffer(content, np.float32, int(np.prod(size)), place.offset).reshape(size)
            weights[name] = (value.T if place.transposed else value).copy()
        if self.patched(weights) != content:
            raise TowerRefused(
                "the tower was converted by another TensorFlow than this one",
                hint="use the headrace that trained it, or export a version that this one trained",
            )
        return weights


def has_tower(shape: Architecture) -> bool:
    """Whether there is anything for a tower to read."""
    return shape.fields > 0 or shape.numbers > 0


def template_of(shape: Architecture, sizes: Mapping[str, tuple[int, ...]]) -> Template:
    """Converts the tower of `shape`; `sizes`: weight name -> shape. TowerRefused unless every weight can be patched."""
    return _template_of(shape, tuple(sizes.items()))


@lru_cache(maxsize=16)
def _template_of(shape: Architecture, pairs: tuple[tuple[str, tuple[int, ...]], ...]) -> Template:
    sizes = dict(pairs)
    generator = np.random.default_rng(7)
    sentinels = {name: generator.normal(0, 0.15, size).astype(np.float32) for name, size in sizes.items()}
    content = _converted(shape, sentinels)
    template = Template(content, _places(content, sentinels))
    return checked(template, shape, sizes)


def checked(template: Template, shape: Architecture, sizes: Mapping[str, tuple[int, ...]]) -> Template:
    """The template, once other weights patched into it score as TensorFlow does, for one row and for several."""
    generator = np.random.default_rng(8)
    weights = {name: generator.normal(0, 0.15, size).astype(np.float32) for name, size in sizes.items()}
    runner = Tower(template.patched(weights))
    for rows in _CHECKED_ROWS:
        inputs = [
            generator.normal(0, 0.5, (rows, *tail)).astype(np.float32) if tail else None for tail in _tails(shape)
        ]
        difference = np.abs(runner.logits(*inputs) - tower(shape, weights, *inputs).numpy())
        if not (difference <= TOLERANCE * 10).all():
            raise TowerRefused(
                f"LiteRT and TensorFlow differ by {difference.max():.2g} on {rows} rows of this {shape.kind} tower",
                hint="this is a defect of headrace or LiteRT: please report it with your [model] settings",
            )
    return template


def _tails(shape: Architecture) -> list[tuple[int, ...]]:
    return [
        (shape.fields, shape.dim) if shape.fields else (),
        (2 * shape.numbers,) if shape.numbers else (),
    ]


def _converted(shape: Architecture, weights: Mapping[str, Floats]) -> bytes:
    names = ("embeddings", "numbers")
    given = [(name, tail) for name, tail in zip(names, _tails(shape), strict=True) if tail]
    signature = [tf.TensorSpec([None, *tail], tf.float32, name=name) for name, tail in given]

    def logit(*inputs: Any) -> Any:
        by_name = dict(zip((name for name, _ in given), inputs, strict=True))
        return tower(shape, weights, by_name.get("embeddings"), by_name.get("numbers"))

    function = tf.function(logit, input_signature=signature, autograph=False).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    content: bytes = converter.convert()
    return content


def _places(content: bytes, weights: Mapping[str, Floats]) -> dict[str, Place]:
    buffers = _buffers(content)
    places = {}
    for name, value in weights.items():
        straight, turned = value.tobytes(), np.ascontiguousarray(value.T).tobytes()
        hits = [Place(offset, data != straight) for offset, data in buffers if data in (straight, turned)]
        if len(hits) != 1:
            raise TowerRefused(
                f"the weight {name} stands in {len(hits)} buffers of the converted tower, not in one",
                hint="train with a built-in model kind and its default layers",
                weight=name,
            )
        places[name] = hits[0]
    return places


def _buffers(content: bytes) -> list[tuple[int, bytes]]:
    """(offset, bytes) of all constant buffers of a LiteRT flatbuffer."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    found = []
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        size = buffer.DataLength()
        if size:
            table = buffer._tab  # noqa: SLF001 - the generated reader has no public offset of a vector
            start = table.Vector(table.Offset(4))
            found.append((start, content[start : start + size]))
    return found
