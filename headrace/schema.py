"""The features of a model, in order: their fingerprint, their columns, and the one way to encode events.

Encoding is `headrace.encode`, ids are `headrace.ids`; both are reached from here. A *schema* is what pipelines,
trainer and server must agree on: shards, versions and requests carry its *fingerprint*, the first 16 hex digits of the
SHA-256 of the canonical JSON (sorted keys, no spaces, ASCII) of

    [{"name", "kind", "of", "edges", "transform", "part", "time_zone", "max"}, …]

with only the keys that the kind uses. Where the raw value stands in the events is not part of it: a producer may rename
a column without costing the model its memory.

JSON of a schema: {"format": 1, "features": [every field of Feature that is not its default, …]}.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from headrace.column import plain
from headrace.encode import column_type, encode_values, misfits, raw_values
from headrace.errors import MissingFeature, NewerFormat
from headrace.features import SPARSE_KINDS, Feature, check_features
from headrace.ids import Ids, cross_of, id_of, ids_of, null_id, unknown_id

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Feature",
    "Ids",
    "Schema",
    "cross_of",
    "encode_values",
    "id_of",
    "ids_of",
    "misfits",
    "null_id",
    "unknown_id",
]

FORMAT: Final = 1

_FINGERPRINTED: Final = {
    "bucket": ("edges",),
    "time": ("part", "time_zone"),
    "cross": ("of",),
    "ids": ("max",),
    "number": ("transform",),
}


@dataclass(frozen=True)
class Schema:
    """Features in order. SettingsError if they break a rule (`headrace.features.check_features`)."""

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        check_features(self.features)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits; equal if and only if the encoded columns mean the same."""
        words = [
            {"name": f.name, "kind": f.kind, **{key: getattr(f, key) for key in _FINGERPRINTED.get(f.kind, ())}}
            for f in self.features
        ]
        text = json.dumps(words, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def sparse(self) -> tuple[str, ...]:
        """Names of the features with one id per row."""
        return tuple(f.name for f in self.features if f.kind in SPARSE_KINDS)

    @cached_property
    def lists(self) -> tuple[str, ...]:
        """Names of the features with several ids per row."""
        return tuple(f.name for f in self.features if f.kind == "ids")

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Names of the features that are numbers."""
        return tuple(f.name for f in self.features if f.kind == "number")

    def __getitem__(self, name: str) -> Feature:
        """The feature of that name; KeyError."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Feature]:
        return {feature.name: feature for feature in self.features}

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "features": [_feature_json(feature) for feature in self.features]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """Inverse of `to_json`. NewerFormat if this headrace does not know the format."""
        if data["format"] != FORMAT:
            raise NewerFormat(
                f"the schema has format {data['format']}; this headrace reads {FORMAT}",
                hint="use the headrace that wrote it, or a newer one",
            )
        return cls(tuple(_feature_of(item) for item in data["features"]))

    def arrow(self) -> pa.Schema:
        """Arrow schema of the encoded columns."""
        return pa.schema([pa.field(f.name, column_type(f), nullable=f.kind == "number") for f in self.features])

    def encode(self, events: pa.Table) -> pa.Table:
        """Raw events [n] -> encoded columns [n] in schema order. MissingFeature, WrongType name the feature."""
        columns = {f.name: encode_values(f, raw_values(f, events)) for f in self.features if f.kind != "cross"}
        return self._complete(columns)

    def encode_features(self, values: Mapping[str, pa.Array]) -> pa.Table:
        """Like `encode`, for raw values [n] that are already given under the names of their features (a request)."""
        columns = {}
        for feature in self.features:
            if feature.kind == "cross":
                continue
            if feature.name not in values:
                raise MissingFeature(f"feature '{feature.name}' is missing", feature=feature.name)
            columns[feature.name] = encode_values(feature, plain(values[feature.name]))
        return self._complete(columns)

    def _complete(self, columns: Mapping[str, pa.Array]) -> pa.Table:
        """Encoded columns without the crosses -> all; a cross is made of its members' ids."""
        ids = {name: columns[name].to_numpy() for name in self.sparse if name in columns}
        arrays = [
            pa.array(cross_of(f.name, [ids[member] for member in f.of])) if f.kind == "cross" else columns[f.name]
            for f in self.features
        ]
        return pa.Table.from_arrays(arrays, schema=self.arrow())


def _feature_json(feature: Feature) -> dict[str, Any]:
    values = {field.name: (getattr(feature, field.name), field.default) for field in dataclasses.fields(feature)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, (value, default) in values.items()
        if value != default
    }


def _feature_of(item: Mapping[str, Any]) -> Feature:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
    return Feature(**fields)
