"""What stands in the features, and how it changes from day to day.

Drift of a feature on a day is the total variation distance to the days before, beyond what chance gives: the share of
events whose value would have to be another one for the two to be alike, less that of a random split of the same events,
0 to 1; of a number, in twenty bins of equal counts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headrace.clock import SECOND_US
from headrace.ids import null_id

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from headrace.cli.inspect.events import Sample
    from headrace.schema import Feature, Schema

__all__ = ["Day", "Values", "days_of", "values_of"]

BINS: Final = 20
COMPARED: Final = 20_000  # events of a side
HOUR_S, DAY_S = 3_600, 86_400
FEW_DAYS: Final = 2  # spans of fewer are told by the hour
MOST: Final = 40  # spans that are told


@dataclass(frozen=True)
class Values:
    """One feature. distinct, once: ids, and ids seen once (None of numbers); most: share of the most frequent value."""

    name: str
    kind: str
    missing: float
    distinct: int | None
    once: int | None
    most: float | None
    mean: float | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Day:
    """A span of time. drift: by feature, to the spans before; positive_rate: of impressions with a label."""

    start_us: int
    span_s: int
    events: int
    positive_rate: float | None
    drift: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def values_of(schema: Schema, features: pa.Table) -> list[Values]:
    """Of encoded columns [n], in schema order."""
    return [_values(feature, *_flat(feature, features)) for feature in schema.features]


def days_of(schema: Schema, sample: Sample, label: NDArray[np.float64]) -> list[Day]:
    """Days (hours where there are fewer than three), the last `MOST`; label float64 [n], NaN = none."""
    if not len(sample.ts_us):
        return []
    spent_s = (sample.ts_us[-1] - sample.ts_us[0]) / SECOND_US
    span_s = DAY_S if spent_s > FEW_DAYS * DAY_S else HOUR_S
    number = sample.ts_us // (span_s * SECOND_US)
    starts, cuts = np.unique(number, return_index=True)
    edges = [*cuts.tolist(), len(number)]
    turning = {f.name for f in schema.features if f.kind == "time"}  # hours are others in every span
    told = [f for f in schema.features if f.kind not in ("ids", "time") and turning.isdisjoint(f.of)]
    coded = {f.name: _coded(f, sample.features) for f in told}
    found = []
    for at in range(max(0, len(starts) - MOST), len(starts)):
        low, high = edges[at], edges[at + 1]
        known = label[low:high][~np.isnan(label[low:high])]
        drift = {name: _drift(codes[:low], codes[low:high]) for name, codes in coded.items()} if low else {}
        rate = float(known.mean()) if len(known) else None
        found.append(Day(int(starts[at]) * span_s * SECOND_US, span_s, high - low, rate, drift))
    return found


def _flat(feature: Feature, features: pa.Table) -> tuple[NDArray[Any], int]:
    """(values of all rows, rows without one)."""
    column = features[feature.name].combine_chunks()
    if feature.kind == "ids":
        return column.flatten().to_numpy(), int(sum(length == 0 for length in column.value_lengths().to_pylist()))
    values = column.to_numpy(zero_copy_only=False)
    if feature.kind == "number":
        return values[~np.isnan(values)], int(np.isnan(values).sum())
    missing = values == np.uint64(null_id(feature.name))
    return values, int(missing.sum())


def _values(feature: Feature, values: NDArray[Any], missing: int) -> Values:
    rows = len(values) + (missing if feature.kind == "number" else 0)
    share = missing / rows if rows else 0.0
    if feature.kind == "number":
        some = (float(values.mean()), float(values.min()), float(values.max())) if len(values) else (None, None, None)
        return Values(feature.name, feature.kind, share, None, None, None, *some)
    counts = np.unique(values, return_counts=True)[1]
    most = float(counts.max() / counts.sum()) if len(counts) else None
    return Values(feature.name, feature.kind, share, len(counts), int((counts == 1).sum()), most, None, None, None)


def _coded(feature: Feature, features: pa.Table) -> NDArray[np.int64]:
    """Values [n] as small whole numbers."""
    values = features[feature.name].combine_chunks().to_numpy(zero_copy_only=False)
    if feature.kind != "number":
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    known = values[~np.isnan(values)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else np.zeros(0)
    return np.where(np.isnan(values), BINS, np.searchsorted(edges, values)).astype(np.int64)


def _drift(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Of codes [n], [m]; without the second term a few events of many ids would look like another world."""
    before, now = _some(before), _some(now)
    mixed = np.random.default_rng(0).permutation(np.concatenate([before, now]))
    return max(0.0, _distance(before, now) - _distance(mixed[: len(before)], mixed[len(before) :]))


def _some(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Drawn, not each so-manieth: what takes turns in the log would keep step with that."""
    return codes if len(codes) <= COMPARED else np.random.default_rng(1).choice(codes, COMPARED, replace=False)


def _distance(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    size = int(max(before.max(), now.max())) + 1
    shares = [np.bincount(codes, minlength=size) / len(codes) for codes in (before, now)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
