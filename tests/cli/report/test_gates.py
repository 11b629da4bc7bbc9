"""Holds, rollbacks and counts, as the records say them."""

from __future__ import annotations

from dataclasses import replace

from headrace.cli.report.gates import counts, decisions
from headrace.cli.report.records import Version, read_records

NOTHING = Version(0, "start", 0, None, 0, 0, None, None, (), (), (), 0, False, {}, {}, ())
WORSE = "G2: worse on rows that it has learned: log-loss"
SURPRISE = "surprise: the labels of a record are 9.1 standard deviations worse than expected, more than 5"


def test_holds_say_which_gate_and_what_became_of_their_shards():
    one = replace(
        NOTHING, seq=3, kind="hold", committed_us=7, held=((4, 6),), gate={"reasons": [SURPRISE, WORSE]},
        evaluation={"live": {"n": 50}},
    )  # fmt: skip
    two = replace(NOTHING, seq=4, kind="hold", held=((6, 7),), gate={"reasons": [WORSE]})
    released = replace(NOTHING, seq=5, kind="delta", released=((5, 7),))
    found = decisions([one, two, released])
    assert found["holds_by_gate"] == {"G2": 2, "surprise": 1}
    assert found["holds"][0] == {
        "version": 3, "at_us": 7, "shards": [[4, 6]], "reasons": [SURPRISE, WORSE], "rows": 50, "waiting": 1,
    }  # fmt: skip
    assert [hold["waiting"] for hold in found["holds"]] == [1, 0]


def test_a_record_that_is_held_again_after_its_release_waits():
    hold = replace(NOTHING, seq=1, kind="hold", held=((4, 5),))
    released = replace(NOTHING, seq=2, kind="delta", released=((4, 5),))
    back = replace(NOTHING, seq=3, kind="rollback", to=0, held=((4, 5),))
    assert [one["waiting"] for one in decisions([hold, released, back])["holds"]] == [0]
    again = replace(NOTHING, seq=3, kind="hold", held=((4, 5),))
    assert [one["waiting"] for one in decisions([hold, released, again])["holds"]] == [0, 1]


def test_rollbacks_pins_and_verdicts():
    back = replace(
        NOTHING, seq=8, kind="rollback", to=5, held=((2, 4), (6, 7)), gate={"by": "trainer", "reason": "log-loss 2"},
        verdicts=({"version": 7, "anchor": 5, "result": "worse"},),
    )  # fmt: skip
    pin = replace(NOTHING, seq=9, kind="pin", to=5)
    good = replace(NOTHING, seq=10, kind="delta", verdicts=({"result": "good"}, {"result": "good"}))
    found = decisions([back, pin, good])
    assert found["rollbacks"] == [
        {"version": 8, "at_us": 0, "to": 5, "by": "trainer", "reason": "log-loss 2", "held": 3}
    ]
    assert found["pins"] == [{"version": 9, "at_us": 0, "to": 5}]
    assert found["verdicts"] == {"good": 2, "worse": 1}
    assert decisions([])["holds_by_gate"] == {}


def test_counts_are_those_of_what_was_written(busy):
    found = counts(read_records(busy.loop, span_us=None, now_us=1 << 60))
    assert found["events"] == {"impression/files": {"read": 320 + 7, "emitted": 327 - 1, "invalid": 1}}
    assert found["refused"] == {"malformed": sum(step % 3 for step in range(8))}
    assert (found["shard_records"], found["rows"], found["versions"]) == (8, 320, 9)
    assert found["versions_by_kind"] == {"start": 1, "delta": 8, "hold": 0, "rollback": 0, "pin": 0}


def test_a_span_counts_only_what_was_committed_in_it(busy):
    records = read_records(busy.loop, span_us=25_000_000, now_us=1 << 60)  # until 72 s: from 47 s on
    found = counts(records)
    assert (found["shard_records"], found["versions"]) == (3, 3)
    assert (found["shard_records_ever"], found["versions_ever"]) == (8, 9)
    assert (records.before_version.seq, records.before_shards.seq) == (5, 4)
    assert records.until_us - records.from_us == 25_000_000
