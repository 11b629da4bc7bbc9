"""The scores of one arm on disk: a row of float32, one for each scored impression in the order of event time.

It is only ever appended to, a period at a time, before the arm learns from that period. So its length says how far
scoring came, and a torn last period shows (its length is not at a period's end) and is cut off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

WIDTH = 4


class Scores:
    """float32 [n] in a file. `ends`: the lengths at which a period ends; anything else is torn."""

    def __init__(self, path: Path, ends: set[int]) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.stat().st_size // WIDTH if path.exists() else 0
        whole = max((end for end in ends if end <= whole), default=0)
        with path.open("ab") as file:
            file.truncate(whole * WIDTH)
        self.count = whole

    def append(self, scores: NDArray[np.float32]) -> None:
        """Adds the scores of one period."""
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(scores, np.float32).tobytes())
        self.count += len(scores)

    def read(self) -> NDArray[np.float32]:
        """All of them."""
        return np.fromfile(self._path, np.float32)
