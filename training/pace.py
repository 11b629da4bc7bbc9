"""How many rows a step takes so that a candidate is learned within `train.deadline_s`: as few as there is time for.

Small steps learn more from the same rows (training/schedule.py), large ones are faster. With s = the seconds that a
step took lately, a candidate of n rows in batches of b is learned in about s n / b seconds, so

    b = the smallest power of two >= s n / deadline_s,   at least `batch_warmup`, at most `batch_live`

s falls with b, so that b is on the safe side when it falls, and is corrected by the next candidate when it rises. What
was chosen by the clock stands in the version record (`batch`), and a replay takes it from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from training.schedule import WARMUP_ROWS

if TYPE_CHECKING:
    from training.recipe import Recipe

OLD: Final = 0.5
"""How much of what steps took before the newest candidate counts."""


class Pace:
    """What steps take, and what follows. deadline_s: None = rows of a step follow from the record alone."""

    def __init__(self, recipe: Recipe, deadline_s: float | None) -> None:
        self._recipe, self._deadline_s = recipe, deadline_s
        self._step_s: float | None = None

    def batch(self, rows: int, learned: int) -> int | None:
        """Rows of a step for a candidate of `rows` rows, when `learned` were before it; None: as the record says."""
        if self._deadline_s is None or self._step_s is None or learned < WARMUP_ROWS:
            return None
        least = self._step_s * rows / self._deadline_s
        batch = self._recipe.batch_warmup
        while batch < least:
            batch *= 2
        return min(batch, self._recipe.batch_live)

    def took(self, steps: int, seconds: float) -> None:
        """A candidate was learned in so many steps."""
        if steps:
            newest = seconds / steps
            self._step_s = newest if self._step_s is None else OLD * self._step_s + (1 - OLD) * newest
