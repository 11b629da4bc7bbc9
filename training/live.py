"""What a trainer has in memory as of the newest version: the live weights, and beside them what replicas hold.

A candidate moves both: it is learned (steps 1 and 2 of the commit order, training/trainer.py) and encoded (3). Then it
is settled, before its files are written, or undone to the last bit. What an error leaves in between is not to be used:
`recover` makes all of it anew.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from headrace import lines
from headrace.errors import NotFound
from training.candidate import Candidate, Encoded, Encoding, encoded, learned, norm_of
from training.golden import frozen_scorer
from training.judge import Judge
from training.publish import differing
from training.recover import plan_of, published_at, published_since, recovered
from training.tower import has_tower, template_of
from training.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headrace.config import Settings
    from headrace.published import PublishedTable
    from headrace.scoring import Scorer
    from headrace.shard import ShardRecord
    from headrace.store import Store
    from training.examples import Examples
    from training.gate import Report
    from training.head import Head
    from training.recipe import Design
    from training.state import State
    from training.tower import Template
    from training.trial import Sums


class Live:
    """state: all that training moves; published: what replicas hold; judge: the trial of what is served."""

    state: State
    published: PublishedTable
    judge: Judge
    _norm: float | None
    _reference: Scorer | None

    def __init__(self, store: Store, design: Design, head: Head, settings: Settings) -> None:
        self._store, self._design, self._head = store, design, head
        self._eps, self._golden = settings.train.eps, settings.gate.golden
        self._template: Template | None = None

    def recover(self, examples_of: Callable[[int], Examples]) -> None:
        """As of the head. examples_of: the rows of a shard record, by its number."""
        plan = plan_of(self._head.version, self._head.history)
        self.state = recovered(self._store, self._design, plan, examples_of)
        self.published, self.judge = self._judged()
        if differing(self.state.learner.tables, self.published) and self.state.rows:  # imported rows differ, too
            lines.TRAINER_OTHER_ROWS("learned again with other settings; the next version says what differs")
        self._reference = None
        weights = self.state.tower_weights()
        self._norm = norm_of(weights) if self.state.rows else None
        if self._template is None and has_tower(self._design.shape):
            self._template = template_of(self._design.shape, {name: value.shape for name, value in weights.items()})
        lines.TRAINER_RECOVERED(version=self._head.version, replayed=len(plan.replay))

    def learn(
        self,
        records: Sequence[ShardRecord],
        examples: Iterable[Examples],
        *,
        batch: int | None = None,
    ) -> Candidate | None:
        """Steps 1 and 2; None if no record has a row. batch: rows of a step."""
        self.judge.begin()
        return learned(self.state, records, examples, self._frozen(), self._look, batch)

    def encode(self, candidate: Candidate) -> Encoded:
        """Step 3: `published` is that of the candidate from here on."""
        like = Encoding(
            version=self._head.version + 1,
            base=self._head.version,
            eps=self._eps,
            golden=self._golden,
            norm_before=self._norm,
        )
        return encoded(self.state, self.published, self._template, candidate.newest, like)

    def report(self, candidate: Candidate, result: Encoded) -> Report:
        """What the gate decides on: that of the encoding, with how surprising the labels were, and the shift."""
        past, finite = self._head.past, result.report.finite
        return replace(
            result.report,
            surprise=past.surprise(candidate.excesses),
            greatest=past.greatest,
            shift=self.judge.shift(self.published, result.learned_offset) if finite else None,
        )

    def beside(self, result: Encoded, rows: Examples) -> Sums:
        """The candidate beside the version that it changes, on rows that neither has learned."""
        assert result.inverse is not None
        return self.judge.beside(self.published, result.learned_offset, result.inverse, self._head.version, rows)

    def settle(self, result: Encoded) -> None:
        """The candidate is published."""
        if self.state.frozen_of is None:
            self.state.frozen_of = self._head.version + 1
        self.state.settle()
        self._norm = result.report.norm

    def undo(self, result: Encoded) -> None:
        """The candidate is refused."""
        self.state.undo()
        if result.inverse is not None:
            self.published.apply(result.inverse)

    def _look(self, rows: Examples) -> None:
        self.judge.look(self.published, self._head.version, rows)

    def _judged(self) -> tuple[PublishedTable, Judge]:
        """The published table, and the trial that the newest record tells of; a new one if its anchor is gone."""
        told, version, history = self._head.record.gate.get("trial"), self._head.version, self._head.history
        if told is not None:
            trial = Trial.from_json(told)
            with contextlib.suppress(NotFound):
                table, inverses = published_since(self._store, self._design, trial.anchor, version, history)
                return table, Judge(self._design, trial, inverses, history.offset)
        table = published_at(self._store, self._design, version, history)
        return table, Judge(self._design, Trial(version) if self.state.rows else None, (), history.offset)

    def _frozen(self) -> Scorer | None:
        """The first version of the lineage that learned anything, as published, but for what late positives add.

        Labels are those after `wait_s`, of which the live weights know only these. Made when first needed.
        """
        of, history = self.state.frozen_of, self._head.history
        if of is not None and self._reference is None:
            try:
                published = published_at(self._store, self._design, of, history)
            except NotFound:  # collected, and this process has not held it since before
                lines.TRAINER_FROZEN_COLLECTED(f"what is frozen now is version {self._head.version}", version=of)
                of = self.state.frozen_of = self._head.version
                published = published_at(self._store, self._design, of, history)
            record = history(of)
            self._reference = frozen_scorer(self._design, published, record.offset - record.gate.get("correction", 0.0))
        return self._reference
