"""Follows a trial (training/trial.py): scores what comes by the version that is served and by the anchor.

One candidate after the other:

1. `look` at each record before it is learned: both versions score up to SAMPLE of its rows. What is served is what the
   published table holds; what the anchor held is seen through the inverses of the deltas since (training/before.py).
2. `shift`, once it is learned and encoded: the candidate beside the version that it changes, on the newest of these
   rows. It has learned them, so if it is worse even there, something broke (G2).
3. `weigh`: the trial with these rows, if the candidate's records are to be believed: those of a refused one do not
   count.
4. `beside`: the candidate beside the version that it changes, on a record that neither has learned (G3, with
   `gate.wait_s`).
5. `publish`: the version is committed, its inverse is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.before import Before
from training.golden import logits_of, spread_over
from training.trial import Sums, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.delta import Delta
    from headrace.published import PublishedTable
    from training.examples import Examples
    from training.golden import Chosen, Floats
    from training.recipe import Design
    from training.trial import Verdict

SAMPLE = 2_048
"""Rows of a record that are scored, evenly spread: 10 ms each."""


class Judge:
    """trial: None until the lineage has a version that learned something. inverses: of the deltas since its anchor.

    offset_of: what a version adds to every logit, without what late positives add.
    """

    def __init__(
        self, design: Design, trial: Trial | None, inverses: Sequence[Delta], offset_of: Callable[[int], float]
    ) -> None:
        self.trial = trial
        self._design, self._offset_of = design, offset_of
        self._inverses = list(inverses)
        self._seen: list[Sums] = []
        self._newest: tuple[Examples, Chosen, Floats] | None = None

    def begin(self) -> None:
        """The next candidate; what was seen of the one before is forgotten."""
        self._seen, self._newest = [], None

    def look(self, published: PublishedTable, version: int, examples: Examples) -> None:
        """Step 1. published: the table of `version`, which is served."""
        chosen = spread_over(examples, SAMPLE)
        served = logits_of(self._design, published, examples, chosen, self._offset_of(version))
        self._newest = examples, chosen, served
        if self.trial is not None:
            anchor = served
            if self._inverses:
                before = Before(published, tuple(self._inverses))
                anchor = logits_of(self._design, before, examples, chosen, self._offset_of(self.trial.anchor))
            self._seen.append(Sums.of(examples.labels[chosen], served, anchor))

    def shift(self, published: PublishedTable, offset: float) -> Sums | None:
        """Step 2. published: the table after the candidate; None if it has no rows."""
        if self._newest is None:
            return None
        examples, chosen, before = self._newest
        return Sums.of(examples.labels[chosen], logits_of(self._design, published, examples, chosen, offset), before)

    def weigh(self, version: int, rows: int) -> tuple[Trial | None, Verdict | None]:
        """Step 3, and the verdict, once there are `rows` rows. version: what was served while they came."""
        if self.trial is None:
            return None, None
        trial = self.trial.after(version, sum(self._seen, Sums()))
        return trial, trial.verdict(rows)

    def beside(
        self, published: PublishedTable, offset: float, inverse: Delta, version: int, examples: Examples
    ) -> Sums:
        """Step 4. published: the table after the candidate, which `inverse` takes back to that of `version`."""
        chosen = spread_over(examples, SAMPLE)
        after = logits_of(self._design, published, examples, chosen, offset)
        before = logits_of(self._design, Before(published, (inverse,)), examples, chosen, self._offset_of(version))
        return Sums.of(examples.labels[chosen], after, before)

    def publish(self, version: int, inverse: Delta | None, trial: Trial | None) -> None:
        """Step 5. trial: what goes on; None: one begins with this version."""
        if trial is None or (inverse is not None and inverse.is_snapshot):
            self.trial, self._inverses = Trial(version), []
            return
        if inverse is not None:
            self._inverses.append(inverse)
        self.trial = trial
        self._inverses = [delta for delta in self._inverses if delta.of >= trial.anchor]

    def to_json(self) -> dict[str, Any]:
        """What the `gate` of the next version says of the trial."""
        return {"trial": self.trial.to_json()} if self.trial is not None else {}
