"""Golden requests: rows of a candidate scored as the server will, and by TensorFlow on the same published rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headrace.delta import decode_rows
from headrace.ids import unknown_id
from headrace.scoring import Inputs, Scorer, TableView
from headrace.tower import Tower
from training.gate import Golden
from training.recipe import EMBEDDING, LINEAR
from training.statistics import standardised

if TYPE_CHECKING:
    from headrace.published import PublishedTable
    from training.before import Before
    from training.examples import Column, Examples
    from training.recipe import Design
    from training.step import Learner

Floats = npt.NDArray[np.float32]
Chosen = npt.NDArray[np.int64]
"""Row numbers of the golden requests among the examples of a candidate's newest record."""


def golden(
    design: Design,
    published: PublishedTable,
    learner: Learner,
    examples: Examples,
    *,
    offset: float,
    correction: float = 0.0,
    wanted: int,
) -> Golden:
    """Scores up to `wanted` rows, evenly spread over `examples`, in both ways.

    correction: the part of `offset` that TensorFlow's logits lack, since training knows nothing of late positives.
    """
    chosen = spread_over(examples, wanted)
    requests = examples.encoded.take(chosen)
    served = _scorer_for(design, published, examples, chosen, offset).score(Inputs.of(requests))
    with np.errstate(over="ignore", invalid="ignore"):
        logits = reference_logits(design, published, learner, examples, chosen)
        expected = 1 / (1 + np.exp(-(logits + np.float32(correction))))
        difference = float(np.abs(served - expected).max())
    return Golden(
        n=len(chosen),
        distinct_inputs=len({repr(request) for request in requests.to_pylist()}),
        finite=bool(np.isfinite(served).all() and np.isfinite(expected).all()),
        difference=difference,
        spread=float(np.ptp(served)),
    )


def logits_of(
    design: Design, published: PublishedTable | Before, examples: Examples, chosen: Chosen, offset: float
) -> Floats:
    """What the server's scorer makes of the chosen rows: logits float32 [n]."""
    scorer = _scorer_for(design, published, examples, chosen, offset)
    return scorer.logits(Inputs.of(examples.encoded.take(chosen)))


def spread_over(examples: Examples, wanted: int) -> Chosen:
    """Up to `wanted` row numbers, evenly spread."""
    return np.unique(np.linspace(0, len(examples) - 1, wanted).astype(np.int64))


def frozen_scorer(design: Design, published: PublishedTable, offset: float) -> Scorer:
    """The server's scorer over a copy of the whole published table."""
    views = [TableView.of(change.spec, change.ids, change.decoded()) for change in published.snapshot(0).changes]
    return _scorer(design, published, views, offset)


def reference_logits(
    design: Design, published: PublishedTable, learner: Learner, examples: Examples, chosen: Chosen
) -> Floats:
    """TensorFlow's logits float32 [n] of the chosen rows, on published rows: shares no code with headrace.scoring."""
    linear = _fields(design, published, LINEAR, examples, chosen).sum((1, 2))
    embeddings = np.empty((len(chosen), 0, design.shape.dim), np.float32)
    if EMBEDDING in design.fields:
        embeddings = _fields(design, published, EMBEDDING, examples, chosen)
    logits: Floats = linear + learner.tower(embeddings, standardised(examples.numbers[chosen], published.numbers))
    return logits


def _scorer_for(
    design: Design, published: PublishedTable | Before, examples: Examples, chosen: Chosen, offset: float
) -> Scorer:
    """The server's scorer over those rows of the published table that the chosen requests need."""
    views = []
    for spec in design.tables:
        columns = [examples.columns[feature] for feature in spec.features]
        needed = [column.ids[np.unique(_codes(column, chosen)[0])] for column in columns]
        ids = np.concatenate([np.array([unknown_id(name) for name in spec.features], np.int64), *needed])
        scale, rows, found = published.lookup(spec.name, ids)
        views.append(TableView.of(spec, ids[found], decode_rows(scale[found], rows[found], spec)))
    return _scorer(design, published, views, offset)


def _scorer(design: Design, published: PublishedTable | Before, views: list[TableView], offset: float) -> Scorer:
    runner = Tower(published.tower) if published.tower is not None else None
    prior = float(1 / (1 + np.exp(-design.bias)))
    return Scorer(views, runner, prior=prior, offset=offset, numbers=published.numbers, number_names=design.numbers)


def _fields(design: Design, published: PublishedTable, table: str, examples: Examples, chosen: Chosen) -> Floats:
    """float32 [n, F, width]: the field of each feature, the mean of its rows where it has several."""
    spec = design.spec(table)
    fields = np.zeros((len(chosen), len(spec.features), spec.width), np.float32)
    for at, feature in enumerate(spec.features):
        column = examples.columns[feature]
        codes, lengths = _codes(column, chosen)
        scale, encoded, found = published.lookup(table, column.ids[codes])
        decoded = decode_rows(scale, encoded, spec)
        unknown = published.lookup(table, np.array([unknown_id(feature)], np.int64))
        lines = np.repeat(np.arange(len(chosen)), lengths)
        np.add.at(fields[:, at], lines, np.where(found[:, None], decoded, decode_rows(*unknown[:2], spec)))
        fields[:, at] /= np.maximum(lengths, 1)[:, None]
    return fields


def _codes(column: Column, chosen: Chosen) -> tuple[npt.NDArray[np.int32], Chosen]:
    """(codes of the chosen rows, one after the other; how many each row has)."""
    if column.offsets is None:
        return column.codes[chosen], np.ones(len(chosen), np.int64)
    bounds = [(column.offsets[row], column.offsets[row + 1]) for row in chosen]
    codes = np.concatenate([column.codes[low:high] for low, high in bounds])
    return codes, np.array([high - low for low, high in bounds], np.int64)
