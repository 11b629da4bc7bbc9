"""Scores on disk: whole periods or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headrace.cli.freshness.scores import Scores

if TYPE_CHECKING:
    from pathlib import Path


def test_a_torn_period_is_cut_off_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "arms" / "1h.f32"
    scores = Scores(path, {3, 5, 9})
    scores.append(np.array([0.1, 0.2, 0.3], np.float32))
    scores.append(np.array([0.4, 0.5], np.float32))
    with path.open("ab") as file:
        file.write(b"\x00" * 6)  # killed while writing the third period
    again = Scores(path, {3, 5, 9})
    assert again.count == 5
    again.append(np.full(4, 0.6, np.float32))
    assert np.allclose(again.read(), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6])
