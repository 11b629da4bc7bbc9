"""From a request to the encoded features of its candidates, checked: every rule that is broken is one InvalidRequest.

A request names every feature of the schema once, with one value for each candidate or one that all share; the longest
feature says how many candidates there are. Raw values are encoded as events are (`headrace.encode.encode_values`), each
shared one once. Ids come hashed by the client, who must say for which schema. Crosses are made from their members and
are as long as the widest of them, or come as ids. Missing values are positions in `missing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from headrace.encode import encode_values, requested
from headrace.errors import EventError, InvalidRequest, NotReady, SettingsError
from headrace.features import nearest
from headrace.ids import cross_of, null_id
from headrace.scoring import Floats, Ids, Inputs, Ragged
from paramserver.packed import content_of, typed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headrace.features import Feature
    from headrace.schema import Schema
    from paramserver.packed import Request
    from protos import headrace_pb2 as wire

_MOST_IDS: Final = 2**63
_ARROW: Final = {"strings": pa.string(), "ints": pa.int64(), "floats": pa.float64(), "bools": pa.bool_()}


def inputs_of(request: Request, schema: Schema, max_candidates: int) -> Inputs:
    """The candidates of `request`. InvalidRequest, WrongType; NotReady if its ids were hashed for another schema."""
    features = _named(request.message.features, schema)
    _check_fingerprint(request, schema)
    ids, numbers = _packed(features) if request.packed else ({}, {})
    lists: dict[str, Ragged] = {}
    for feature, values in features:
        if feature.name in ids or feature.name in numbers or values is None:
            continue
        generated = typed(values) if request.packed else values
        if feature.kind == "ids":
            lists[feature.name] = _lists(feature, generated)
        elif feature.kind == "number":
            numbers[feature.name] = _numbers(feature, generated)
        else:
            ids[feature.name] = _ids(feature, generated)
    lines = {name: len(column) for name, column in (ids | numbers).items()}
    lines |= {name: ragged.lines for name, ragged in lists.items()}
    n = _candidates(lines, max_candidates)
    for feature, values in features:
        if values is None:
            ids[feature.name] = cross_of(feature.name, _members(feature, ids))
    return Inputs(n, ids, lists, numbers)


def _named(given: Mapping[str, Any], schema: Schema) -> list[tuple[Feature, Any]]:
    """Every feature with what the request has for it; None for a cross that is to be made."""
    features = [(feature, given.get(feature.name)) for feature in schema.features]
    named = sum(values is not None for _, values in features)
    if named < len(given) or named < len(features):
        _check_names(given, schema)
    return features


def _packed(features: Sequence[tuple[Feature, Any]]) -> tuple[dict[str, Ids], dict[str, Floats]]:
    """The ids of features with one id, and the numbers, that are bytes and nothing else: most are, in a fast client."""
    numbers: dict[str, Floats] = {}
    names, contents, ends = [], [], [0]
    for feature, values in features:
        if values is None or feature.kind == "ids":
            continue
        content = content_of(values, "floats" if feature.kind == "number" else "ids")
        if content is None or len(content) % 8:
            continue
        if feature.kind == "number":
            numbers[feature.name] = _number_column(feature, pa.array(np.frombuffer(content, "<f8")))
        else:
            names.append(feature.name)
            contents.append(content)
            ends.append(ends[-1] + len(content) // 8)
    flat = np.frombuffer(b"".join(contents), "<i8")
    if len(flat) and flat.min() < 0:  # 2^63 or more: which feature, is found the slow way
        return {}, numbers
    return {name: flat[start:end] for name, start, end in zip(names, ends, ends[1:], strict=False)}, numbers


def _check_names(given: Mapping[str, Any], schema: Schema) -> None:
    names = [feature.name for feature in schema.features]
    for name in given:
        if name not in names:
            hint = nearest(name, names) or f"the features are: {', '.join(names)}"
            raise InvalidRequest(f"unknown feature '{name}'", hint=hint, feature=name)
    absent = [f.name for f in schema.features if f.kind != "cross" and f.name not in given]
    if absent:
        raise InvalidRequest(
            f"missing feature{'s' if len(absent) > 1 else ''} {', '.join(repr(name) for name in absent)}",
            hint="a request names every feature once; where a value is not known, say so: null, or on the command line "
            f"`{absent[0]}=`",
            features=absent,
        )


def _check_fingerprint(request: Request, schema: Schema) -> None:
    given = request.message.schema_fingerprint
    hashed = [] if given else [name for name, values in _generated(request) if values.WhichOneof("values") == "ids"]
    if hashed:
        raise InvalidRequest(
            f"feature '{hashed[0]}' comes as ids, but the request has no schema_fingerprint",
            hint=f"the schema served is {schema.fingerprint} (see Status)",
            feature=hashed[0],
        )
    if given and given != schema.fingerprint:
        raise NotReady(
            f"the request was made for schema {given}, this version has {schema.fingerprint}",
            hint="read the schema from Status and hash again, or send raw values",
            given=given,
        )


def _generated(request: Request) -> Iterator[tuple[str, wire.Values]]:
    for name, values in request.message.features.items():
        yield name, typed(values) if request.packed else values


def _candidates(lines: dict[str, int], max_candidates: int) -> int:
    n = max(lines.values())
    if n > max_candidates:
        raise InvalidRequest(
            f"{n} candidates; this server takes at most {max_candidates} in one call",
            hint="split the call, or raise serve.max_candidates",
            candidates=n,
        )
    for name, length in lines.items():
        if length not in (1, n):
            raise InvalidRequest(
                f"feature '{name}' has {length} values, but there are {n} candidates",
                hint=f"give {n} values, or one that all candidates share",
                feature=name,
            )
    return n


def _members(feature: Feature, ids: dict[str, Ids]) -> list[Ids]:
    n = max(len(ids[member]) for member in feature.of)
    return [np.broadcast_to(ids[member], n) for member in feature.of]


def _ids(feature: Feature, values: wire.Values) -> Ids:
    _check_single(feature, values)
    if values.WhichOneof("values") != "ids":
        encoded: Ids = _encoded(feature, _raw(feature, values)).to_numpy(zero_copy_only=False)
        return encoded
    ids = _hashed(feature, values)
    ids[_missing(feature, values, len(ids))] = null_id(feature.name)
    return ids


def _numbers(feature: Feature, values: wire.Values) -> Floats:
    _check_single(feature, values)
    if values.WhichOneof("values") == "ids":
        raise InvalidRequest(f"feature '{feature.name}' is a number and has no ids", feature=feature.name)
    return _number_column(feature, _raw(feature, values))


def _number_column(feature: Feature, values: pa.Array) -> Floats:
    encoded: Floats = _encoded(feature, values).to_numpy(zero_copy_only=False)
    return encoded.astype(np.float32, copy=False)  # null is NaN


def _lists(feature: Feature, values: wire.Values) -> Ragged:
    """Without `lengths`: one list that all candidates share."""
    hashed = values.WhichOneof("values") == "ids"
    flat = None if hashed else _flat(values)
    given: Any = _hashed(feature, values) if flat is None else flat
    lengths = np.array(values.lengths or _unlisted(feature, values, len(given)), np.int64)
    if lengths.sum() != len(given):
        raise InvalidRequest(
            f"the lengths of feature '{feature.name}' add up to {lengths.sum()}, but it has {len(given)} values",
            feature=feature.name,
        )
    missing = _missing(feature, values, len(lengths))
    if missing:  # a missing list is an empty one, whatever stands there
        listed = np.ones(len(lengths), np.bool_)
        listed[missing] = False
        kept = np.repeat(listed, lengths)
        lengths[missing] = 0
        given = given.filter(pa.array(kept)) if flat is not None else given[kept]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    if flat is not None:
        column = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), given)
        return Ragged.of(_encoded(feature, column))
    return _first(given, offsets, feature.max)


def _unlisted(feature: Feature, values: wire.Values, n: int) -> list[int]:
    """Lengths of `n` values that come without: one list, or, where all are missing, that many missing lists."""
    if not values.missing:
        return [n]
    if len(set(values.missing)) < n:
        raise InvalidRequest(
            f"feature '{feature.name}' has a missing value inside a list",
            hint="leave it out; of several candidates give each a list: [[…], …]",
            feature=feature.name,
        )
    return [1] * n or [0]


def _encoded(feature: Feature, values: pa.Array) -> pa.Array:
    try:
        return encode_values(requested(feature, values.type), values)
    except (EventError, SettingsError) as wrong:  # settings: a time whose form the schema does not say
        if feature.kind != "time":
            raise InvalidRequest(wrong.message, hint=wrong.hint, feature=feature.name) from None
        value = next((value for value in values.to_pylist() if value is not None), None)
        raise InvalidRequest(
            f"feature '{feature.name}' wants a time, of which it takes the {feature.part}; {value!r} is none that can "
            "be read",
            hint=f"send it as ISO 8601 text: {feature.name}=2026-11-22T21:30:00Z",
            feature=feature.name,
        ) from None


def _first(ids: Ids, offsets: Ids, most: int) -> Ragged:
    """The first `most` ids of each list."""
    lengths = np.diff(offsets)
    place = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths)
    kept = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.minimum(lengths, most))])
    return Ragged(ids[place < most], kept)


def _check_single(feature: Feature, values: wire.Values) -> None:
    if values.lengths:
        raise InvalidRequest(
            f"feature '{feature.name}' has lengths, but its kind is {feature.kind}",
            hint="lengths are for features of kind ids",
            feature=feature.name,
        )
    if feature.kind == "cross" and values.WhichOneof("values") != "ids":
        raise InvalidRequest(
            f"feature '{feature.name}' is a cross and has no raw values",
            hint=f"leave it out: it is made from {', '.join(feature.of)}",
            feature=feature.name,
        )


def _raw(feature: Feature, values: wire.Values) -> pa.Array:
    """Raw values [n], null where missing."""
    column = _flat(values)
    if not len(column):
        raise InvalidRequest(
            f"feature '{feature.name}' has no values",
            hint="give one value for each candidate, or one that all share",
            feature=feature.name,
        )
    places = _missing(feature, values, len(column))
    if len(places) == len(column):
        return pa.nulls(len(column))
    if not places:
        return column
    items = column.to_pylist()
    for place in places:
        items[place] = None
    return pa.array(items, column.type)


def _flat(values: wire.Values) -> pa.Array:
    kind = values.WhichOneof("values") or "strings"
    return pa.array(list(getattr(values, kind).values), _ARROW[kind])


def _hashed(feature: Feature, values: wire.Values) -> Ids:
    ids = np.array(values.ids.values, np.uint64)
    if not len(ids) and feature.kind != "ids":
        raise InvalidRequest(f"feature '{feature.name}' has no ids", feature=feature.name)
    if (ids >= _MOST_IDS).any():
        raise InvalidRequest(
            f"feature '{feature.name}' has an id of 2^63 or more",
            hint="ids are Fingerprint64(name + '=' + text) & (2^63 - 1)",
            feature=feature.name,
        )
    return ids.astype(np.int64)


def _missing(feature: Feature, values: wire.Values, n: int) -> list[int]:
    places = list(values.missing)
    if places and max(places) >= n:
        raise InvalidRequest(
            f"position {max(places)} of feature '{feature.name}' is said to be missing, but it has {n} values",
            feature=feature.name,
        )
    return places
