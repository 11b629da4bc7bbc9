"""What a label is: which feedback answers which impression, and what row that makes.

All times are event times in microseconds. The watermark `w` says that every event with a time `< w` has come, so a
stream in order (ties included) is within a disorder bound of 0. "The watermark has passed t" means `t < w`.

**One impression per id.** Impressions of one id, each at most `attribution` after the one before, are one impression:
the smallest (ts, content hash) is it, the others are duplicates. An id that comes back later than that is a new one.

**Feedback answers** the impression of its id with `0 <= f - ts <= attribution`. There is at most one, because two
impressions of one id are further apart than that. Feedback is taken in the order (f, label) once the watermark has
passed f, or at once when it comes behind the watermark.

implicit    The observed row goes out when the watermark has passed `ts + wait`, at `emit_time = ts + wait`. Its label
            is 1 iff feedback with `f - ts <= wait` is there. Where it went out (or goes out) with 0, the first feedback
            makes the one correction row of the impression: label 1, `emit_time = f`. That is feedback in
            `(wait, attribution]`, and beyond the disorder bound also feedback `<= wait` that came too late for the row.
explicit    The first feedback makes the observed row, every later one with another label than the feedback before it a
            correction row; `emit_time = f` for both. Feedback that comes behind the watermark and before one already
            taken changes nothing. Without any feedback the impression expires once the watermark has passed
            `ts + attribution + lateness`.

**Life.** An event lives until the watermark has passed `t + attribution + lateness` (`lateness` is 0 unless windows are
to stay open longer). What arrives later is late. Liveness is judged by the watermark *before* a tick, all that falls
due by the one after it: a tick that catches up on a month loses nothing of it.

**Classes.** Impressions: emitted with their observed row, duplicate or late on arrival, expired. Feedback: duplicate or
late on arrival; joined when it is taken and is the source of a label (the first, or a revision), superseded when it is
taken and is not. Feedback taken without an impression stays pending as an *orphan* to the end of its life: it is
invalid (`before_impression`) if an impression of its id came within `attribution` after it, else expired. Feedback of
an implicit impression joins when it is taken, also when the row it labels goes out in a later tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from headrace.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answers", "LabelPolicy", "take_in_order"]


@dataclass(frozen=True)
class LabelPolicy:
    """The `[label]` settings in microseconds. `wait_us` matters in implicit mode only."""

    mode: Literal["implicit", "explicit"]
    attribution_us: int
    wait_us: int = 0
    lateness_us: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("implicit", "explicit"):
            raise SettingsError(f"label.mode is {self.mode!r}", hint='use "implicit" or "explicit"')
        if not 0 <= self.wait_us <= self.attribution_us or self.lateness_us < 0:
            raise SettingsError(
                f"label times do not fit: wait {self.wait_us} us, attribution {self.attribution_us} us",
                hint="0 <= label.wait_s <= label.attribution_s and pipeline.lateness_s >= 0",
            )

    @property
    def explicit(self) -> bool:
        return self.mode == "explicit"

    @property
    def life_us(self) -> int:
        """How long an event is kept after its time."""
        return self.attribution_us + self.lateness_us


@dataclass(frozen=True)
class Answers:
    """Feedback that answers impressions, one entry per pair, sorted by (owner, f, label).

    owner: int64 [n], position of the impression; time_us: int64 [n]; label: float32 [n]; ref: int64 [n], the feedback;
    taken: bool [n], already taken in an earlier tick, together with this impression.
    """

    owner: NDArray[np.int64]
    time_us: NDArray[np.int64]
    label: NDArray[np.float32]
    ref: NDArray[np.int64]
    taken: NDArray[np.bool_]

    def pick(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Answers:
        return Answers(self.owner[which], self.time_us[which], self.label[which], self.ref[which], self.taken[which])

    def sort(self) -> Answers:
        return self.pick(np.lexsort((self.label, self.time_us, self.owner)))


def take_in_order(answers: Answers, owners: int, *, explicit: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(first, revision): which sorted entries, taken now, are the first of their owner; which revise its label."""
    position = np.arange(len(answers.owner))
    opens = np.ones(len(position), bool)
    opens[1:] = answers.owner[1:] != answers.owner[:-1]
    last_taken = np.full(owners, -1)
    np.maximum.at(last_taken, answers.owner[answers.taken], position[answers.taken])
    last_taken = last_taken[answers.owner]
    first = opens & (last_taken < 0)
    if not explicit:
        return first, np.zeros(len(position), bool)
    differs = np.ones(len(position), bool)
    differs[1:] = answers.label[1:] != answers.label[:-1]
    return first, ~opens & differs & (position > last_taken)
