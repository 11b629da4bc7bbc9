"""Scoring: the one piece of code that turns encoded features into probabilities, for server and trainer's gate alike.

For n candidates, with the tables of a version (headrace/delta.py) and its tower,

    row(t, f, id)   = the row of `id` in table t, else the row of `unknown_id(f)` in t (headrace/ids.py), else zeros
    field(t, f)     = row(t, f, id) for a feature with one id; the mean over its ids for a feature of kind `ids`
                      (no ids: zeros)
    z_k, m_k        = clip((x_k - mean_k) * scale_k, -5, 5) and 0 for a number; 0 and 1 where it is missing (NaN)
    logit           = offset + sum over features f of field(linear, f)
                             + tower(embeddings [n, F, d] = field(embedding, f), numbers [n, 2 k] = z_1 … z_k m_1 … m_k)
    score           = 1 / (1 + exp(-logit));  the prior, as long as nothing was learned (no row, no tower)

Tables of width 1 are linear, the other one is the embedding; F are its features in order. Rows are gathered straight
into the input of the tower's interpreter (`numpy.take(out=…)`, headrace/tower.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from headrace.delta import Numbers, TableSpec
from headrace.idindex import IdIndex
from headrace.ids import unknown_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa

    from headrace.tower import Fill, Tower

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]

ZERO_ROW: Final = 0
_CLIP: Final = 5.0
_NO_NUMBERS: Final = Numbers()
_LOGIT_BOUND: Final = 87.0  # exp(87) is still finite in float32


@dataclass(frozen=True)
class TableView:
    """Decoded rows to score with. `values` float32 [m, width]; line 0 is zeros; `index` gives the line of an id."""

    spec: TableSpec
    index: IdIndex
    values: Floats

    @classmethod
    def of(cls, spec: TableSpec, ids: Ids, rows: Floats) -> TableView:
        """A view of `rows` float32 [n, width] for unique `ids` int64 [n]."""
        values = np.concatenate([np.zeros((1, spec.width), np.float32), rows])
        index = IdIndex.empty(len(ids))
        index.put(ids, np.arange(1, len(ids) + 1, dtype=np.int32))
        return cls(spec, index, values)


@dataclass(frozen=True)
class Ragged:
    """Ids of a feature of kind `ids`: candidate i has `values[offsets[i] : offsets[i + 1]]`."""

    values: Ids
    offsets: Ids

    @classmethod
    def of(cls, column: pa.ListArray) -> Ragged:
        """From an encoded column; a null list is empty."""
        lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        return cls(column.flatten().to_numpy(zero_copy_only=False), offsets)

    @property
    def lines(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Inputs:
    """Encoded features of n candidates, by name. An entry has n lines, or 1 that all candidates share."""

    n: int
    ids: Mapping[str, Ids] = field(default_factory=dict)
    lists: Mapping[str, Ragged] = field(default_factory=dict)
    numbers: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def of(cls, encoded: pa.Table) -> Inputs:
        """From the columns that `Schema.encode` gives: int64, list<int64> and float32 (null = missing)."""
        ids, lists, numbers = {}, {}, {}
        for name in encoded.column_names:
            column = encoded.column(name).combine_chunks()
            if str(column.type) == "int64":
                ids[name] = column.to_numpy(zero_copy_only=False)
            elif str(column.type) == "float":
                numbers[name] = column.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
            else:
                lists[name] = Ragged.of(column)
        return cls(encoded.num_rows, ids, lists, numbers)


class Scorer:
    """Scores by one version; immutable, for any number of threads."""

    def __init__(
        self,
        tables: Sequence[TableView],
        tower: Tower | None,
        *,
        prior: float,
        offset: float = 0.0,
        numbers: Numbers = _NO_NUMBERS,
        number_names: Sequence[str] = (),
    ) -> None:
        self.tower = tower
        self._linear = [_Fields(table) for table in tables if table.spec.width == 1]
        self._embedding = next((_Fields(table) for table in tables if table.spec.width > 1), None)
        self._offset = np.float32(offset)
        self._prior = np.float32(np.log(prior) - np.log1p(-prior))
        self._learned = tower is not None or any(len(table.index) for table in tables)
        self._names = tuple(number_names)
        self._mean = np.asarray(numbers.mean or [0.0] * len(self._names), np.float32)
        self._scale = np.asarray(numbers.scale or [1.0] * len(self._names), np.float32)

    def score(self, inputs: Inputs) -> Floats:
        """Probabilities float32 [n]."""
        bounded = self.logits(inputs).clip(-_LOGIT_BOUND, _LOGIT_BOUND)
        scores: Floats = np.float32(1) / (np.float32(1) + np.exp(-bounded))
        return scores

    def logits(self, inputs: Inputs) -> Floats:
        """float32 [n]."""
        if not self._learned:
            return np.full(inputs.n, self._prior)
        total = np.full(inputs.n, self._offset)
        for table in self._linear:
            total += table.sums(inputs)
        if self.tower is not None:
            total += self.tower.run(inputs.n, self._filler(inputs))
        return total

    def _filler(self, inputs: Inputs) -> Fill:
        gather = self._embedding.gatherer(inputs) if self._embedding else None
        standardised = self._standardised(inputs)

        def fill(start: int, end: int, embeddings: Floats | None, numbers: Floats | None) -> None:
            if embeddings is not None and gather is not None:
                gather(start, end, embeddings)
            if numbers is not None:
                numbers[: end - start] = standardised[start:end]

        return fill

    def _standardised(self, inputs: Inputs) -> Floats:
        k = len(self._names)
        both = np.zeros((inputs.n, 2 * k), np.float32)
        for j, name in enumerate(self._names):
            both[:, j] = inputs.numbers[name]
        values, flags = both[:, :k], both[:, k:]
        np.isnan(values, out=flags, casting="unsafe")
        values -= self._mean
        values *= self._scale
        np.clip(values, -_CLIP, _CLIP, out=values)
        values[flags == 1] = 0
        return both


class _Fields:
    """The features of one table, ready to be looked up."""

    def __init__(self, table: TableView) -> None:
        self._table = table
        self._features = table.spec.features
        unknown = table.index.find(np.array([unknown_id(name) for name in self._features], np.int64))
        self._unknown = np.maximum(unknown, ZERO_ROW).astype(np.int32)  # int32 [F]

    def sums(self, inputs: Inputs) -> Floats:
        """Sum of the fields of a table of width 1: float32 [n]."""
        values = self._table.values[:, 0]
        single = [j for j, name in enumerate(self._features) if name in inputs.ids]
        total: Floats = values.take(self._rows(inputs, single), mode="clip").sum(axis=1)
        for j, name in enumerate(self._features):
            if name in inputs.lists:
                total += self._pooled(inputs.lists[name], j)[:, 0]
        return total

    def gatherer(self, inputs: Inputs) -> Callable[[int, int, Floats], None]:
        """A function (start, end, out) that writes the fields of candidates [start, end) to `out` [b, F, width]."""
        single = [j for j, name in enumerate(self._features) if name in inputs.ids]
        rows = np.full((inputs.n, len(self._features)), ZERO_ROW, np.int32)
        rows[:, single] = self._rows(inputs, single)
        pooled = {j: self._pooled(inputs.lists[name], j) for j, name in enumerate(self._features) if j not in single}
        values = self._table.values

        def gather(start: int, end: int, out: Floats) -> None:
            chunk = rows[start:end]
            if end - start < len(out):
                chunk = np.concatenate([chunk, np.full((len(out) - len(chunk), chunk.shape[1]), ZERO_ROW, np.int32)])
            values.take(chunk, axis=0, out=out, mode="clip")
            for j, means in pooled.items():
                out[: end - start, j] = means[start:end] if len(means) > 1 else means

        return gather

    def _rows(self, inputs: Inputs, features: Sequence[int]) -> Rows:
        """Line numbers int32 [n, len(features)]: one look-up for all, shared features once."""
        matrix = np.empty((inputs.n, len(features)), np.int32)
        if not features:
            return matrix
        columns = [inputs.ids[self._features[j]] for j in features]
        found = self._table.index.find(np.concatenate(columns))
        start = 0
        for at, (j, column) in enumerate(zip(features, columns, strict=True)):
            part = found[start : start + len(column)]
            matrix[:, at] = np.where(part < 0, self._unknown[j], part)
            start += len(column)
        return matrix

    def _pooled(self, lists: Ragged, feature: int) -> Floats:
        """Mean of the rows of each line's ids: float32 [lines, width]."""
        found = self._table.index.find(lists.values)
        rows = self._table.values.take(np.where(found < 0, self._unknown[feature], found), axis=0, mode="clip")
        lengths = np.diff(lists.offsets)
        means = np.zeros((lists.lines, self._table.spec.width), np.float32)
        filled = lengths > 0
        if filled.any():
            means[filled] = np.add.reduceat(rows, lists.offsets[:-1][filled], axis=0)
            means[filled] /= lengths[filled, None].astype(np.float32)
        return means
