"""All that training moves, and how it learns one shard record. Equal states that learn equal records stay equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from training.arrival import Arrival
from training.schedule import batch_rows
from training.statistics import Running, standardised
from training.step import Learner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from training.examples import Examples
    from training.recipe import Design

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Begun:
    """What `State.undo` gives back beside tables; dense: group -> name -> array."""

    running: Running
    arrival: Arrival
    rows: int
    newest_us: int
    frozen_of: int | None
    dense: Mapping[str, Mapping[str, Floats]]


class State:
    """rows: learned so far; newest_us: the greatest time of an event among them; frozen_of: the first version that
    learned anything, None before it; steps: that this process made.

    A candidate is learned between `begin` and either `settle` (it was published) or `undo` (every bit is as it was at
    `begin`). The journal costs what the candidate touches, not what the tables hold. Without `begin` there is none.
    """

    def __init__(self, design: Design) -> None:
        self.design = design
        self.learner = Learner(design)
        self.running = Running.empty(len(design.numbers))
        self.arrival = Arrival.empty()
        self.rows = self.newest_us = self.steps = 0
        self.frozen_of: int | None = None
        self._begun: _Begun | None = None

    def begin(self) -> None:
        """A candidate begins: from here on, all that it changes is kept in the journal. An open one is forgotten."""
        self._forget()
        dense = {
            group: {name: variable.numpy().copy() for name, variable in variables.items()}
            for group, variables in self._groups().items()
        }
        self._begun = _Begun(self.running, self.arrival, self.rows, self.newest_us, self.frozen_of, dense)
        self.learner.begin()

    def undo(self) -> None:
        """Every bit as it was at `begin`; the journal ends. RuntimeError if there is none."""
        begun = self._begun
        if begun is None:
            raise RuntimeError("undo without begin")
        self.running, self.arrival = begun.running, begun.arrival
        self.rows, self.newest_us, self.frozen_of = begun.rows, begun.newest_us, begun.frozen_of
        for group, variables in self._groups().items():
            for name, variable in variables.items():
                variable.assign(begun.dense[group][name])
        self.learner.undo()
        self._begun = None

    def learn(self, examples: Examples, batch: int | None = None) -> Floats:
        """Learns one record once. Returns logits float32 [n] from before each row was learned.

        batch: rows of a step; None = as the record says (training/schedule.py).
        """
        if not len(examples):
            return np.empty(0, np.float32)
        self.running = self.running.folded(examples.numbers)
        waits, positives = self.design.waits, examples.positives
        if waits is not None and positives is not None:
            times = positives.event_us, positives.delay_us, positives.newest_us
            self.arrival = self.arrival.folded(waits, *times)
        batch = batch or batch_rows(self.design.recipe, rows=len(examples), learned=self.rows)
        self.steps += -(-len(examples) // batch)
        logits = self.learner.learn(examples, standardised(examples.numbers, self.running.numbers()), batch)
        self.rows += len(examples)
        self._expire(examples)
        return logits

    def _expire(self, examples: Examples) -> None:
        """After a record: time goes on to its newest event."""
        if examples.event_us is None:
            return
        before_us, self.newest_us = self.newest_us, max(self.newest_us, int(examples.event_us.max()))
        self.learner.expire(before_us, self.newest_us)

    def correction(self) -> float:
        """What makes of P(feedback within wait_s) P(feedback within attribution_s): to be added to every logit."""
        return self.arrival.offset(self.design.waits) if self.design.waits is not None else 0.0

    def tower_weights(self) -> dict[str, Floats]:
        """Name -> array, as `training.models` names them."""
        return {name: variable.numpy() for name, variable in self.learner.weights.items()}

    def settle(self) -> None:
        """The candidate is published: forget the journal, which rows were touched and which ids dropped."""
        self._forget()
        for table in self.learner.tables.values():
            table.touched[:] = False
        for index in self.learner.indexes:
            index.publish()

    def _forget(self) -> None:
        self.learner.settle()
        self._begun = None

    def arrays(self) -> dict[str, np.ndarray]:
        """What must be saved to go on to the same bits, beside `meta`."""
        saved: dict[str, np.ndarray] = {}
        for name, table in self.learner.tables.items():
            saved.update({f"table/{name}/{part}": value for part, value in table.state().items()})
        for group, variables in self._groups().items():
            saved.update({f"{group}/{name}": variable.numpy() for name, variable in variables.items()})
        for part in ("rows", "mean", "variance"):
            saved[f"running/{part}"] = getattr(self.running, part)
        for number, sketch in enumerate(self.learner.sketches):
            saved.update({f"admission/{number}/{part}": value for part, value in sketch.arrays().items()})
        if self.design.waits is not None:
            saved.update({f"arrival/{part}": value for part, value in self.arrival.arrays().items()})
        return saved

    def meta(self) -> dict[str, Any]:
        return {"rows": self.rows, "newest_us": self.newest_us, "frozen_of": self.frozen_of}

    def restore(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """The inverse of `arrays` and `meta`."""
        self._forget()
        for name, table in self.learner.tables.items():
            table.restore(
                {part: arrays[f"table/{name}/{part}"] for part in ("ids", "newest_us", "feature", "weights", "slots")}
            )
        for group, variables in self._groups().items():
            for name, variable in variables.items():
                variable.assign(arrays[f"{group}/{name}"])
        self.running = Running(*(arrays[f"running/{part}"] for part in ("rows", "mean", "variance")))
        for number, sketch in enumerate(self.learner.sketches):
            sketch.restore(_below(f"admission/{number}/", arrays))
        self.arrival = Arrival.restored(_below("arrival/", arrays))
        self.rows, self.newest_us, self.frozen_of = meta["rows"], meta["newest_us"], meta["frozen_of"]

    def _groups(self) -> dict[str, dict[str, Any]]:
        return {"tower": self.learner.weights, "slots": self.learner.slots}


def _below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
