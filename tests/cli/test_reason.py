"""Why nothing trains: each answer, and that a loop which learns is given none."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import clock
from headrace.cli.reason import held_by, reason
from headrace.config.sections import TrainSettings

S = clock.SECOND_US
NOW = 1_790_000_000 * S
AT_ONCE, WINDOWS = TrainSettings(), TrainSettings(on="window")


def process(role: str, **info: Any) -> dict[str, Any]:
    return {"role": role, "living": True, "info": info}


def state(**changed: Any) -> dict[str, Any]:
    learning = {
        "shards": {"committed_at_us": NOW - S, "closed_us": NOW - 60 * S, "clocks": clocks(5, 6), "events": {}},
        "versions": {"head": 7, "kind": "delta", "reasons": []},
        "waiting_rows": 0,
        "processes": [process("pipeline"), process("trainer"), process("server")],
    }
    return learning | changed


def clocks(impression_s: float, click_s: float, *, idle: bool = False) -> list[dict[str, Any]]:
    """Watermarks so many seconds ago; idle: of the clicks."""
    return [
        {"partition": "impression/0", "watermark_us": int(NOW - impression_s * S), "idle": False},
        {"partition": "click/3", "watermark_us": int(NOW - click_s * S), "idle": idle},
    ]


def shards(**changed: Any) -> dict[str, Any]:
    return {**state()["shards"], **changed}


def shards_with_late(late: int) -> dict[str, Any]:
    return shards(events={"click/files": {"read": 5}, "impression/files": {"read": 100, "late": late}})


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ""),
        ({"shards": shards_with_late(8)}, ""),
        (
            {"shards": shards_with_late(30)},
            ("30 of 100 events of impression/files came after the watermark had passed them: see disorder_s and "
            "lateness_s of [pipeline]"),
        ),
        ({"waiting_rows": 5}, ""),
        ({"shards": None}, "no event was read yet"),
        ({"shards": None, "processes": []}, "no pipeline runs: `headrace up`, or `headrace pipeline run`"),
        ({"processes": [process("trainer")]}, "no pipeline runs: `headrace up`, or `headrace pipeline run`"),
        ({"processes": [process("pipeline", problem="the disk is full")]}, "pipeline: the disk is full"),
        (
            {"waiting_rows": 1_234, "processes": [process("pipeline")]},
            "1,234 rows wait, and no trainer runs: `headrace up`, or `headrace train --watch`",
        ),
        ({"waiting_rows": 5, "processes": [process("trainer", problem="no room")]}, "trainer: no room"),
        (
            {"waiting_rows": 5, "versions": {"head": 8, "kind": "hold", "reasons": ["G1: 3e-4 apart"]}},
            "version 8 held what it was to learn: G1: 3e-4 apart",
        ),
        ({"shards": shards(committed_at_us=NOW - 11 * S)}, "shard log has nothing new since 2026-09-21T14:13:09Z"),
        (
            {
                "shards": shards(committed_at_us=NOW - 11 * S),
                "processes": [process("pipeline", awaited={"impression/0": "b.avro", "click/3": "b.avro"})],
            },
            ("shard log has nothing new since 2026-09-21T14:13:09Z; b.avro is not whole: it is waited for until it is, "
            "or a later file is there"),
        ),
        ({"shards": shards(clocks=clocks(5, 95))}, "watermark held by click/3 since 2026-09-21T14:11:45Z"),
        ({"shards": shards(clocks=clocks(5, NOW / S))}, "watermark held by click/3 which has had no event yet"),
    ],
)  # fmt: skip
def test_each_answer(changed: dict[str, Any], expected: str) -> None:
    assert reason(state(**changed), now_us=NOW, train=AT_ONCE) == expected


def test_a_dead_process_is_none() -> None:
    dead = [one | {"living": False} for one in state()["processes"]]
    assert reason(state(processes=dead), now_us=NOW, train=AT_ONCE).startswith("no pipeline runs")


def test_a_process_that_loads_is_not_missing() -> None:
    up = process("up", children={"trainer": {"state": "running", "last_words": [], "log": "logs/trainer.log"}})
    assert (
        reason(state(waiting_rows=5, processes=[up]), now_us=NOW, train=AT_ONCE)
        == "the trainer loads its libraries (10 to 30 s)"
    )
    up["info"]["children"]["trainer"] |= {"restarts": 5, "exit_code": 1}
    assert reason(state(waiting_rows=5, processes=[up]), now_us=NOW, train=AT_ONCE) == (
        "the trainer loads its libraries (10 to 30 s), after 5 restarts; the last exit code is 1: see logs/trainer.log"
    )
    up["living"] = False
    assert reason(state(waiting_rows=5, processes=[up]), now_us=NOW, train=AT_ONCE).startswith(
        "5 rows wait, and no trainer runs"
    )


@pytest.mark.parametrize(
    ("fate", "words", "expected"),
    [
        (
            "failed",
            ["error: the features changed", "fix: drain first", "code: config.invalid"],
            "the pipeline failed: the features changed; fix: drain first; then start `headrace up` again",
        ),
        ("pausing", ["error: no room"], "the pipeline died and is started again: no room"),
        ("pausing", ["INFO pipeline.ready"], "the pipeline died and is started again: see logs/pipeline.log"),
        ("ended", [], "no pipeline runs: `headrace up`, or `headrace pipeline run`"),
    ],
)
def test_what_up_knows_of_a_child_that_is_not_there(fate: str, words: list[str], expected: str) -> None:
    """Advice to start `headrace up` would be wrong: it runs."""
    up = process("up", children={"pipeline": {"state": fate, "last_words": words, "log": "logs/pipeline.log"}})
    assert reason(state(processes=[up]), now_us=NOW, train=AT_ONCE) == expected


def test_a_silent_process_is_not_one_to_start_again() -> None:
    quiet = process("pipeline") | {"living": False, "silent": True, "pid": 7, "at_us": NOW - 60 * S}
    said = reason(state(processes=[quiet]), now_us=NOW, train=AT_ONCE)
    assert said.startswith("the pipeline (process 7) gives no sign since 2026-09-21T14:12:20Z")
    assert "headrace doctor" in said


def test_windows_are_waited_for_only_where_they_are_learned() -> None:
    assert reason(state(waiting_rows=5), now_us=NOW, train=WINDOWS).startswith("windows are learned once closed")
    assert reason(state(waiting_rows=5), now_us=NOW, train=AT_ONCE) == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (clocks(5, 14), None),
        (clocks(5, 15), ("click/3", NOW - 15 * S)),
        (clocks(5, 95, idle=True), None),
        (clocks(5, 95)[:1], None),
        ([], None),
    ],
)
def test_who_holds_the_watermark(given: list[dict[str, Any]], expected: tuple[str, int] | None) -> None:
    assert held_by(given) == expected


def test_rows_that_no_trigger_wants_yet_say_what_they_wait_for() -> None:
    versions = {"head": 7, "kind": "delta", "reasons": [], "decided_us": NOW - 60 * S}
    waiting = state(waiting_rows=1_200, versions=versions)
    said = reason(waiting, now_us=NOW, train=TrainSettings(min_rows=5_000, every_s=3_600))
    assert said.startswith("1,200 rows wait for 5,000 of them (train.min_rows) or for 20")
    assert "headrace retrain" in said
    assert reason(waiting, now_us=NOW, train=TrainSettings(min_rows=1_000)) == ""
