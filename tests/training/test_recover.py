"""Which checkpoint, and which versions after it, lead to a state."""

from __future__ import annotations

from dataclasses import replace

import pytest
from handmade import BLANK

from headrace.version import Kept, VersionRecord

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]


def record(version: int, kind: str, *, to: int | None = None, checkpoint: int | None = None) -> VersionRecord:
    return replace(
        BLANK,
        version=version,
        kind=kind,
        base=version - 1 if version else None,
        to=to,
        trained=((version, version + 1),) if kind == "delta" else (),
        checkpoint=None if checkpoint is None else Kept(checkpoint, f"c{checkpoint}", "", 0),
    )


def planned(version: int, records: list[VersionRecord]) -> tuple[int | None, list[int]]:
    from training.recover import plan_of

    plan = plan_of(version, lambda number: records[number])
    return plan.checkpoint.of if plan.checkpoint else None, [replayed.version for replayed in plan.replay]


def test_from_the_start_without_a_checkpoint() -> None:
    log = [record(0, "start"), record(1, "delta"), record(2, "hold"), record(3, "delta")]
    assert planned(3, log) == (None, [1, 3])


def test_from_the_newest_checkpoint_whether_its_own_version_names_it_or_a_later_one() -> None:
    log = [record(0, "start"), record(1, "delta"), *(record(n, "delta", checkpoint=2) for n in (2, 3, 4))]
    assert planned(4, log) == (2, [3, 4])
    assert planned(2, log) == (2, [])
    log[2] = replace(log[2], checkpoint=None)
    assert planned(4, log) == (2, [3, 4])


def test_a_rollback_leads_back_past_what_it_left_behind() -> None:
    log = [
        record(0, "start"),
        record(1, "delta", checkpoint=1),
        record(2, "delta", checkpoint=1),
        record(3, "delta", checkpoint=3),
        record(4, "rollback", to=2, checkpoint=3),
        record(5, "delta", checkpoint=3),
    ]
    assert planned(5, log) == (1, [2, 5])
    assert planned(3, log) == (3, [])
