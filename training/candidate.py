"""A candidate: records learned in memory, encoded as a delta and measured, not yet decided on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.failpoints import hit
from headrace.scoring import Inputs, Scorer
from training.evaluate import measured
from training.gate import Golden, Report
from training.golden import golden
from training.publish import delta_of, learned_rows
from training.surprise import Excess, excess_of
from training.tower import Template, has_tower

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from headrace.delta import Delta
    from headrace.published import PublishedTable
    from headrace.shard import ShardRecord
    from training.examples import Examples
    from training.recipe import Design
    from training.state import State

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """records: what was learned, in order; newest: the rows of the last record that has any.

    excesses: of each record that has rows (training/surprise.py). seconds, steps: that learning took.
    """

    records: tuple[ShardRecord, ...]
    newest: Examples
    evaluation: Mapping[str, Any]
    excesses: tuple[Excess, ...] = ()
    seconds: float = 0.0
    steps: int = 0


@dataclass(frozen=True)
class Encoding:
    """What a candidate is encoded as. norm_before: of the tower of `base`, None if it has learned nothing."""

    version: int
    base: int
    eps: float
    golden: int
    norm_before: float | None


@dataclass(frozen=True)
class Encoded:
    """delta: None if the candidate is not finite; offset: of the version record; report: for the gate.

    inverse: takes the delta back from the published table.
    """

    delta: Delta | None
    inverse: Delta | None
    offset: float
    report: Report

    @property
    def learned_offset(self) -> float:
        """`offset` without what late positives add."""
        return self.offset - self.report.correction


def learned(
    state: State,
    records: Sequence[ShardRecord],
    examples: Iterable[Examples],
    frozen: Scorer | None,
    look: Callable[[Examples], None] = lambda _: None,
    batch: int | None = None,
) -> Candidate | None:
    """Steps 1 and 2 of the commit order: scores the rows with the frozen reference, then learns them.

    examples: of each record, in order; look: at each before it is learned; batch: rows of a step. None if no record
    has a row. Begins the journal: `state.undo` takes it back.
    """
    state.begin()
    labels, reference, logits, newest = [], [], [], None
    seconds, steps = 0.0, state.steps
    for rows in examples:
        if not len(rows):
            continue
        if frozen is not None:
            reference.append(frozen.logits(Inputs.of(rows.encoded)))
        look(rows)
        hit("trainer.scored")
        began_s = time.monotonic()
        logits.append(state.learn(rows, batch))
        seconds += time.monotonic() - began_s
        labels.append(rows.labels)
        newest = rows
    if newest is None:
        return None
    hit("trainer.learned")
    evaluation: dict[str, Any] = {"live": measured(np.concatenate(labels), np.concatenate(logits))}
    if reference:
        evaluation["frozen"] = {"of": state.frozen_of, **measured(np.concatenate(labels), np.concatenate(reference))}
    found = [excess_of(y, z) for y, z in zip(labels, logits, strict=True)]
    overall = excess_of(np.concatenate(labels), np.concatenate(logits))
    evaluation["live"]["excess"] = overall.mean if overall is not None else None
    excesses = tuple(excess for excess in found if excess is not None)
    return Candidate(tuple(records), newest, evaluation, excesses, seconds, state.steps - steps)


def encoded(
    state: State, published: PublishedTable, template: Template | None, newest: Examples, like: Encoding
) -> Encoded:
    """Step 3: the delta of what was learned; applied to `published`, so that golden scores are of what goes out."""
    design, weights = state.design, state.tower_weights()
    rows = learned_rows(design.tables, state.learner.tables)
    correction = state.correction()
    offset = offset_of(design, weights) + correction
    finite = all(np.isfinite(value).all() for value in (*weights.values(), *(part.rows for part in rows)))
    delta: Delta | None = None
    inverse: Delta | None = None
    scored: Golden | None = None
    if finite:
        delta = delta_of(
            like.version,
            like.base,
            rows,
            published,
            eps=like.eps,
            tower=template.patched(weights) if template else None,
            numbers=state.running.numbers(),
        )
        inverse = published.inverse(delta)
        published.apply(delta)
        scored = golden(
            design, published, state.learner, newest, offset=offset, correction=correction, wanted=like.golden
        )
    shapes = all(part.rows.shape[1] == part.spec.width for part in rows)
    hit("trainer.encoded")
    report = Report(finite, shapes, norm_of(weights), like.norm_before, scored, correction=correction)
    return Encoded(delta, inverse, offset, report)


def offset_of(design: Design, weights: Mapping[str, Floats]) -> float:
    """What is added to every logit: the bias of a model that has no tower to hold it."""
    return 0.0 if has_tower(design.shape) else float(weights["bias"][0])


def norm_of(weights: Mapping[str, Floats]) -> float:
    """Euclidean norm of all tower weights."""
    return float(np.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in weights.values())))
