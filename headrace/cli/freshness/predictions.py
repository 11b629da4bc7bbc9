"""Scores that another model gave, from a file: what `--compare` sets beside the curves of a backtest.

One line per event: its id, in the column that `[streams.impression] id` names, and a score, the probability of a
positive, strictly between 0 and 1. Parquet, CSV with a header, or JSON lines, these two also as .gz and .zst. Ids are
the same when their texts are (headrace/ids.py): 7, 7.0 and "7" are one. Other columns are passed over.
"""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import HeadraceError, SettingsError
from headrace.ids import ids_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SCORE: Final = "score"
PACKED: Final = (".gz", ".zst")
SHOWN: Final = 3
LOGITS: Final = "are they log-odds? 1 / (1 + exp(-x)) makes probabilities of them"
PERCENT: Final = "are they per cent? divide them by 100"
CERTAIN: Final = "nothing is certain: bring them inside, for example to between 1e-6 and 1 - 1e-6"


@dataclass(frozen=True)
class Predictions:
    """keys: int64 [n], sorted, each once; scores: float64 [n], in (0, 1); column: where they stood."""

    path: Path
    column: str
    keys: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, event_ids: pa.ChunkedArray) -> NDArray[np.float64]:
        """The score of each of n events, NaN where there is none: float64 [n]. SettingsError where no event has one."""
        wanted = ids_of("event", event_ids)
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found = self.keys[at] == wanted
        if not found.any():
            raise SettingsError(
                f"--compare {self.path}: none of its {len(self):,} ids is one of the {len(wanted):,} impressions that "
                f"are scored, such as {_some(event_ids.slice(0, SHOWN).to_pylist())}",
                hint="do the ids mean the same events, and of the same time? Scored is what comes after --warmup",
                path=self.path,
            )
        return np.where(found, self.scores[at], np.nan)


def read_predictions(path: Path, *, id_column: str, score_column: str | None = None) -> Predictions:
    """The scores in a file. score_column: None = `score`, or the only column beside the ids. SettingsError."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise SettingsError(f"--compare {path} {what}", hint="name a Parquet, CSV or JSON lines file", path=path)
    kind = path.with_suffix("").suffix if path.suffix in PACKED else path.suffix
    readers = {".parquet": _parquet, ".csv": _csv, ".json": _lines, ".jsonl": _lines, ".ndjson": _lines}
    if kind not in readers or (kind == ".parquet" and path.suffix in PACKED):
        raise SettingsError(
            f"--compare {path}: its name does not say what it is",
            hint="write Parquet (.parquet), CSV (.csv) or JSON lines (.jsonl)",
            path=path,
        )
    try:
        ids, scores, column = readers[kind](path, id_column, score_column)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as broken:
        words = str(broken).splitlines()[0]
        hint = "is it whole, and of the format that its name says?"
        raise SettingsError(f"--compare {path} cannot be read: {words}", hint=hint, path=path) from None
    return _checked(path, id_column, column, ids, scores)


def _parquet(path: Path, id_column: str, score_column: str | None) -> tuple[pa.ChunkedArray, pa.ChunkedArray, str]:
    import pyarrow.parquet as pq

    column = _column_of(path, pq.read_schema(path).names, id_column, score_column)
    table = pq.read_table(path, columns=[id_column, column])
    return table.column(id_column), table.column(column), column


def _csv(path: Path, id_column: str, score_column: str | None) -> tuple[pa.ChunkedArray, pa.ChunkedArray, str]:
    from pyarrow import csv

    with pa.input_stream(str(path), compression="detect") as stream:
        table = csv.read_csv(  # ids as they are written: 007 is not 7
            stream, convert_options=csv.ConvertOptions(column_types={id_column: pa.string()})
        )
    column = _column_of(path, table.column_names, id_column, score_column)
    return table.column(id_column), table.column(column), column


def _lines(path: Path, id_column: str, score_column: str | None) -> tuple[pa.ChunkedArray, pa.ChunkedArray, str]:
    ids: list[str | None] = []
    scores: list[Any] = []
    column = ""
    with pa.input_stream(str(path), compression="detect") as stream:
        for number, line in enumerate(stream.read().splitlines(), 1):
            if not line.strip():
                continue
            row = _object(path, number, line)
            column = column or _column_of(path, list(row), id_column, score_column)
            ids.append(_text(row.get(id_column)))
            scores.append(row.get(column))
    return _texts(path, id_column, ids), _numbers(path, column, scores), column or SCORE


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise SettingsError(
            f"--compare {path}, line {number}: this is no JSON object",
            hint='each line is one, such as {"id": "a7", "score": 0.03}',
            path=path,
        )
    return row


def _text(value: Any) -> str | None:
    """An id as text, as headrace/ids.py says; None = missing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


def _texts(path: Path, column: str, texts: Sequence[str | None]) -> pa.ChunkedArray:
    """A column of texts. SettingsError for one that UTF-8 cannot write: JSON may spell half a character."""
    try:
        return pa.chunked_array([pa.array(texts, pa.string())])
    except UnicodeEncodeError as broken:
        raise SettingsError(
            f"--compare {path}: {broken.object[:80]!r} in '{column}' is no text: it has half a character",
            hint="\\ud800 to \\udfff mean nothing alone: write the text again, or leave the row out",
            path=path,
        ) from None


def _numbers(path: Path, column: str, scores: Sequence[Any]) -> pa.ChunkedArray:
    """Float64, or text where one is no number."""
    plain = all(one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in scores)
    if plain:
        return pa.chunked_array([pa.array([None if one is None else _float(one) for one in scores], pa.float64())])
    return _texts(path, column, [None if one is None else _text(one) for one in scores])


def _float(number: float) -> float:
    """Infinite where a float does not reach: JSON's integers have no end."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _column_of(path: Path, columns: Sequence[str], id_column: str, score_column: str | None) -> str:
    """The column of the scores. SettingsError unless it and that of the ids are there."""
    if id_column not in columns:
        raise SettingsError(
            f"--compare {path} has no column '{id_column}', only {_some(columns, 8)}",
            hint=f"call the column of the event's id '{id_column}', as [streams.impression] id does",
            path=path,
        )
    others = [name for name in columns if name != id_column]
    chosen = score_column or (SCORE if SCORE in others else others[0] if len(others) == 1 else None)
    for name in (id_column, chosen):
        if columns.count(name) > 1:
            raise SettingsError(
                f"--compare {path} has the column '{name}' {columns.count(name)} times",
                hint="give each a name of its own",
                path=path,
            )
    if chosen in others:
        return chosen
    near = difflib.get_close_matches(score_column or SCORE, others, 1)
    named = f"'{near[0]}'" if near else "one of them"
    raise SettingsError(
        f"--compare {path} has no column '{score_column}', only {_some(columns, 8)}"
        if score_column
        else f"--compare {path} does not say which column has the scores: {_some(others, 8) or 'there is only the id'}",
        hint=f"name it: --score {near[0] if near else 'COLUMN'}" + (f", or call {named} '{SCORE}'" if others else ""),
        path=path,
    )


def _checked(path: Path, id_column: str, column: str, ids: pa.ChunkedArray, scores: pa.ChunkedArray) -> Predictions:
    if not len(ids):
        raise SettingsError(f"--compare {path} has no row", hint="one row per event: its id, its score", path=path)
    values = _values(path, column, ids, scores)
    _check_range(path, column, ids, values)
    texts = ids.cast(pa.string()) if pa.types.is_dictionary(ids.type) else ids
    empty = pc.is_null(texts, nan_is_null=True).to_numpy()
    if pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type):
        empty |= pc.fill_null(pc.equal(texts, ""), True).to_numpy()
    if empty.any():
        raise SettingsError(
            f"--compare {path}: {int(empty.sum()):,} rows have no '{id_column}', the first is row {_first(empty)}",
            hint="leave them out: without its id no score can be matched",
            path=path,
        )
    try:
        keys = ids_of("event", ids)
    except HeadraceError as wrong:
        hint = "write ids as text or as integers"
        raise SettingsError(f"--compare {path}: {wrong.message}", hint=hint, path=path) from None
    order = np.argsort(keys, kind="stable")
    again = np.zeros(len(keys), bool)
    again[order[1:]] = keys[order][1:] == keys[order][:-1]
    if again.any():
        some = ids.filter(pa.array(again)).slice(0, SHOWN).to_pylist()
        raise SettingsError(
            f"--compare {path}: {int(again.sum()):,} ids come more than once, such as {_some(some)}",
            hint="keep one row per event: the score that was answered when it happened",
            path=path,
        )
    return Predictions(path, column, keys[order], values[order])


def _values(path: Path, column: str, ids: pa.ChunkedArray, scores: pa.ChunkedArray) -> NDArray[np.float64]:
    """float64 [n]. SettingsError for what is missing or no number."""
    kind = scores.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        some = scores.drop_null().slice(0, 1).to_pylist()
        raise SettingsError(
            f"--compare {path}: '{column}' has {kind}, not numbers" + (f", such as {_some(some)}" if some else ""),
            hint="write scores as numbers between 0 and 1, or name another column with --score",
            path=path,
        )
    values: NDArray[np.float64] = scores.cast(pa.float64()).to_numpy()
    missing = np.isnan(values)
    if missing.any():
        first = _first(missing)
        raise SettingsError(
            f"--compare {path}: {int(missing.sum()):,} rows have no '{column}', the first is row {first} "
            f"({_some([ids[first - 1].as_py()])})",
            hint="leave out events that your model did not score: they are left out for every curve",
            path=path,
        )
    return values


def _check_range(path: Path, column: str, ids: pa.ChunkedArray, values: NDArray[np.float64]) -> None:
    outside = (values <= 0) | (values >= 1)
    if not outside.any():
        return
    first = _first(outside)
    if (values < 0).any():
        hint = LOGITS
    elif (values > 1).any():
        hint = PERCENT if values.max() <= 100 else LOGITS
    else:
        hint = CERTAIN
    raise SettingsError(
        f"--compare {path}: {int(outside.sum()):,} of {len(values):,} scores in '{column}' are not between 0 and 1, "
        f"the first is row {first} ({_some([ids[first - 1].as_py()])}): {values[first - 1]:g}",
        hint=hint,
        path=path,
    )


def _first(bad: NDArray[np.bool_]) -> int:
    """The number of the first row that is, from 1."""
    return int(np.flatnonzero(bad)[0]) + 1


def _some(values: Sequence[Any], most: int = SHOWN) -> str:
    shown = ", ".join(repr(value) for value in values[:most])
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown
