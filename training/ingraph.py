"""Raw values to ids and numbers inside a TensorFlow graph: what `headrace.encode` does, for exports.

    kind          raw value                      where it is missing      encoded
    id, category  string [n], UTF-8: `MISSING`   the byte FF              int64 [n], an id
                  integers in decimal, true, false
    ids           string [n, L], ends with       no values: all PADDING   int64 [n, max], ids, -1 = none
                  `PADDING`, the byte FE
    bucket        float64 [n]                    NaN                      int64 [n]
    number        float64 [n]                    NaN                      float32 [n]
    time          int64 [n], us since 1970 UTC   -2^63                    int64 [n]
    cross         made of its members                                     int64 [n]

FE and FF are no UTF-8, so no text is taken for them. Ids are those of `headrace.ids`: TensorFlow's `fingerprint` is
the same Fingerprint64. A graph cannot refuse: an infinite number falls into the outermost bucket, a time outside the
years 1000 to 2999 and log1p of what is not above -1 are missing.
"""

from __future__ import annotations

from functools import cache
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.ids import MASK
from headrace.times import FIRST_US, LAST_US
from training.runtime import tf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headrace.features import Feature
    from headrace.schema import Schema

Times = npt.NDArray[np.int64]

MISSING: Final = b"\xff"
PADDING: Final = b"\xfe"
MISSING_TIME: Final = -(2**63)
NO_ID: Final = -1

_DAY_US: Final = 86_400 * 10**6
_LOOK_US: Final = 6 * 3_600 * 10**6  # no zone changes its clocks twice in six hours
_FIRST_LOOK_US, _LAST_LOOK_US = (
    -3_800_000_000 * 10**6,
    2_300_000_000 * 10**6,
)  # 1849 to 2042: before and after, no changes


def raw_signature(schema: Schema) -> dict[str, Any]:
    """Feature -> tf.TensorSpec of its raw values; crosses have none."""
    names = input_names(f.name for f in schema.features)
    return {f.name: _spec(names[f.name], *_RAW[f.kind]) for f in schema.features if f.kind != "cross"}


def encoded_signature(schema: Schema) -> dict[str, Any]:
    """Feature -> tf.TensorSpec of its encoded values, crosses too."""
    names = input_names(f.name for f in schema.features)
    return {f.name: _spec(names[f.name], *_ENCODED.get(f.kind, ("int64", 1))) for f in schema.features}


def encoded(schema: Schema, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Feature -> encoded tensor, of raw ones, which have n lines or one that all share; crosses have the most."""
    columns: dict[str, Any] = {}
    for feature in schema.features:
        if feature.kind != "cross":
            columns[feature.name] = _ENCODERS[feature.kind](feature, raw[feature.name])
    for feature in schema.features:
        if feature.kind == "cross":
            columns[feature.name] = _cross(feature.name, [columns[member] for member in feature.of])
    return {feature.name: columns[feature.name] for feature in schema.features}


def _spec(name: str, dtype: str, rank: int) -> Any:
    return tf.TensorSpec([None] * rank, tf.dtypes.as_dtype(dtype), name=name)


def input_names(features: Iterable[str]) -> dict[str, str]:
    """Feature -> the name of its input: its own, with `_` where it is a word of Python, `self`, or differs from one
    before in nothing but capitals, which TensorFlow does not take.

    >>> input_names(["user", "class", "User", "self"])
    {'user': 'user', 'class': 'class_', 'User': 'User_', 'self': 'self_'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for feature in features:
        name = feature
        while iskeyword(name) or name == "self" or name.lower() in taken:
            name += "_"
        names[feature] = name
        taken.add(name.lower())
    return names


def _fingerprint(texts: Any) -> Any:
    """string [n] -> int64 [n]: Fingerprint64 & (2^63 - 1)."""
    return tf.bitcast(tf.fingerprint(texts), tf.int64) & MASK


def _ids(name: str, texts: Any) -> Any:
    """string [n] -> int64 [n]."""
    return _fingerprint(tf.where(texts == MISSING, name, tf.strings.join([f"{name}=", texts])))


def _id(feature: Feature, texts: Any) -> Any:
    return _ids(feature.name, texts)


def _list(feature: Feature, texts: Any) -> Any:
    """string [n, L] -> int64 [n, max]: the first `max` values that are no padding."""
    kept = tf.ragged.boolean_mask(texts, texts != PADDING)[:, : feature.max]
    return kept.with_values(_ids(feature.name, kept.values)).to_tensor(NO_ID, shape=[None, feature.max])


def _bucket(feature: Feature, values: Any) -> Any:
    edges = tf.constant(feature.edges, tf.float64)
    k = tf.searchsorted(edges, values, side="right")
    return _ids(feature.name, tf.where(tf.math.is_nan(values), MISSING, tf.strings.as_string(k)))


def _number(feature: Feature, values: Any) -> Any:
    if feature.transform == "log1p":
        values = tf.where(values > -1, tf.math.log1p(values), tf.constant(np.nan, tf.float64))
    return tf.cast(values, tf.float32)


def _time(feature: Feature, times_us: Any) -> Any:
    missing = (times_us < FIRST_US) | (times_us > LAST_US)
    times_us = tf.where(missing, tf.zeros_like(times_us), times_us)
    changes_us, offsets_us = offsets_of(feature.time_zone)
    local_us = times_us + tf.gather(offsets_us, tf.searchsorted(changes_us, times_us, side="right"))
    part = _PARTS[feature.part](local_us)
    return _ids(feature.name, tf.where(missing, MISSING, tf.strings.as_string(part)))


def _cross(name: str, members: list[Any]) -> Any:
    lines = tf.reduce_max(tf.stack([tf.shape(member)[0] for member in members]))
    texts = [tf.strings.as_string(tf.broadcast_to(member, [lines])) for member in members]
    return _fingerprint(tf.strings.join([f"{name}=", tf.strings.join(texts, ",")]))


def _day_of_month(local_us: Any) -> Any:
    """Hinnant's civil_from_days: https://howardhinnant.github.io/date_algorithms.html."""
    z = local_us // _DAY_US + 719_468
    of_era = z % 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    return of_year - (153 * month + 2) // 5 + 1


@cache
def offsets_of(zone: str) -> tuple[Times, Times]:
    """(times int64 [k] in us at which the clocks of a zone change, offsets from UTC int64 [k + 1] in us), as Arrow has
    them.

    >>> changes_us, offsets_us = offsets_of("Asia/Kolkata")
    >>> int(offsets_us[-1]) // 60_000_000
    330
    """
    looks_us = np.arange(_FIRST_LOOK_US, _LAST_LOOK_US, _LOOK_US)
    offsets_us = _offsets_at(looks_us, zone)
    after = np.flatnonzero(np.diff(offsets_us))
    low_s, high_s = looks_us[after] // 10**6, looks_us[after + 1] // 10**6
    while (high_s - low_s > 1).any():  # clocks change at whole seconds
        middle_s = (low_s + high_s) // 2
        old = _offsets_at(middle_s * 10**6, zone) == offsets_us[after]
        low_s, high_s = np.where(old, middle_s, low_s), np.where(old, high_s, middle_s)
    return high_s * 10**6, np.concatenate([offsets_us[:1], offsets_us[after + 1]])


def _offsets_at(times_us: Times, zone: str) -> Times:
    local = pc.local_timestamp(pa.array(times_us, pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone)))
    offsets_us: Times = local.cast(pa.int64()).to_numpy() - times_us
    return offsets_us


_RAW: Final = {
    "id": ("string", 1),
    "category": ("string", 1),
    "ids": ("string", 2),
    "bucket": ("float64", 1),
    "number": ("float64", 1),
    "time": ("int64", 1),
}
_ENCODED: Final = {"ids": ("int64", 2), "number": ("float32", 1)}
_ENCODERS: Final[dict[str, Any]] = {
    "id": _id,
    "category": _id,
    "ids": _list,
    "bucket": _bucket,
    "number": _number,
    "time": _time,
}
_PARTS: Final[dict[str, Any]] = {
    "minute": lambda local_us: local_us // (60 * 10**6) % 60,
    "hour": lambda local_us: local_us // (3_600 * 10**6) % 24,
    "weekday": lambda local_us: (local_us // _DAY_US + 3) % 7,  # 1970 began on a Thursday
    "day": _day_of_month,
}
