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
from headrace.tower import filled_up

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
_NO_IDS: Final = np.empty(0, np.int64)
_MOST_LAYOUTS: Final = 256
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
        features = dict.fromkeys(table.spec.features for table in tables)
        self._groups = [_Group([table for table in tables if table.spec.features == names]) for names in features]
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
        embedding: Callable[[int, int, Floats], None] | None = None
        for group in self._groups:
            for fields in group.fields(inputs):
                if fields.width == 1:
                    total += fields.sums()
                else:
                    embedding = fields.gather
        if self.tower is not None:
            total += self.tower.run(inputs.n, self._filler(inputs, embedding))
        return total

    def _filler(self, inputs: Inputs, gather: Callable[[int, int, Floats], None] | None) -> Fill:
        standardised = self._standardised(inputs) if self._names else None

        def fill(start: int, end: int, embeddings: Floats | None, numbers: Floats | None) -> None:
            if embeddings is not None and gather is not None:
                gather(start, end, embeddings)
            if numbers is not None and standardised is not None:
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


@dataclass(frozen=True)
class _Layout:
    """Where the ids of n candidates stand, for one way of sharing features.

    `owner` int64 [m]: the feature of each id; `lines` int64 [b, F]: the id of each field, m where a field has none. b
    is n filled up as the tower does.
    """

    owner: Ids
    lines: Ids

    @classmethod
    def of(cls, n: int, places: Sequence[int], lengths: Sequence[int], fields: int) -> _Layout:
        """For features at `places` of `fields`, with `lengths` ids each, 1 or n."""
        owner = np.repeat(np.array(places, np.int64), lengths)
        lines = np.full((filled_up(n), fields), len(owner), np.int64)
        start = 0
        for place, length in zip(places, lengths, strict=True):
            lines[:n, place] = start + np.arange(n) if length == n else start
            start += length
        return cls(owner, lines)


class _Group:
    """Tables that have the same features, ready to be looked up: their ids are put together once."""

    def __init__(self, tables: Sequence[TableView]) -> None:
        self.features = tables[0].spec.features
        self._tables = [(table, self._unknown(table)) for table in tables]
        self._layouts: dict[tuple[int, ...], _Layout] = {}

    def fields(self, inputs: Inputs) -> list[_Fields]:
        """What the tables hold for the candidates: shared features are looked up once."""
        places = [place for place, name in enumerate(self.features) if name in inputs.ids]
        columns = [inputs.ids[self.features[place]] for place in places]
        ids = np.concatenate(columns) if columns else _NO_IDS
        layout = self._layout(inputs.n, places, [len(column) for column in columns])
        first = self._tables[0][0].index
        slots = first.slots(ids)
        found = [
            table.index.at(slots) if table.index.shares(first) else table.index.find(ids) for table, _ in self._tables
        ]
        return [
            self._fields(table, unknown, rows, layout, inputs)
            for (table, unknown), rows in zip(self._tables, found, strict=True)
        ]

    def _fields(self, table: TableView, unknown: Rows, found: Rows, layout: _Layout, inputs: Inputs) -> _Fields:
        """found: int32 [m], the row of each id of the layout in `table`, -1 where it has none."""
        rows = np.empty(len(found) + 1, np.int32)
        rows[:-1], rows[-1] = found, ZERO_ROW
        missing = (rows < 0).nonzero()[0]
        rows[missing] = unknown[layout.owner[missing]]
        pooled = {
            place: _pooled(table, inputs.lists[name], unknown[place])
            for place, name in enumerate(self.features)
            if name in inputs.lists
        }
        return _Fields(inputs.n, table.values, rows.take(layout.lines), pooled)

    def _layout(self, n: int, places: Sequence[int], lengths: Sequence[int]) -> _Layout:
        key = (n, *places, *lengths)
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= _MOST_LAYOUTS:
                self._layouts = {}
            layout = self._layouts[key] = _Layout.of(n, places, lengths, len(self.features))
        return layout

    def _unknown(self, table: TableView) -> Rows:
        found = table.index.find(np.array([unknown_id(name) for name in self.features], np.int64))
        return np.maximum(found, ZERO_ROW).astype(np.int32)


@dataclass(frozen=True)
class _Fields:
    """The fields of n candidates in one table: `rows` int32 [b, F] are lines of `values`; means of lists by place."""

    n: int
    values: Floats
    rows: Rows
    pooled: Mapping[int, Floats]

    @property
    def width(self) -> int:
        return int(self.values.shape[1])

    def sums(self) -> Floats:
        """Sum of the fields of a table of width 1: float32 [n]."""
        total: Floats = self.values[:, 0].take(self.rows[: self.n], mode="clip").sum(axis=1)
        for means in self.pooled.values():
            total += means[:, 0]
        return total

    def gather(self, start: int, end: int, out: Floats) -> None:
        """Writes the fields of candidates [start, end) to the first lines of `out` [b, F, width]."""
        self.values.take(self.rows[start : start + len(out)], axis=0, out=out, mode="clip")
        for place, means in self.pooled.items():
            out[: end - start, place] = means[start:end] if len(means) > 1 else means


def _pooled(table: TableView, lists: Ragged, unknown: int) -> Floats:
    """Mean of the rows of each line's ids: float32 [lines, width]."""
    found = table.index.find(lists.values)
    rows = table.values.take(np.where(found < 0, unknown, found), axis=0, mode="clip")
    lengths = np.diff(lists.offsets)
    means = np.zeros((lists.lines, table.spec.width), np.float32)
    filled = lengths > 0
    if filled.any():
        means[filled] = np.add.reduceat(rows, lists.offsets[:-1][filled], axis=0)
        means[filled] /= lengths[filled, None].astype(np.float32)
    return means
