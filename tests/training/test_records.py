"""What the next version record repeats, and what each kind of version changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from headrace.log import Cursor
from headrace.version import Kept, VersionRecord
from training import records

OLD, NEW = (Kept(of, f"{of}.arrow", "00", 1) for of in (3, 7))
HEAD = VersionRecord(
    version=8, kind="hold", base=7, lineage=0, model={}, schema={}, prior=0.1, digest={"rows": 5}, created_at_us=80,
    code="old", trained=(), held=((4, 5),), held_now=((2, 5),), watermark_us=400, max_emit_us=390,
    cursor=Cursor(4, "aa"), gate={"action": "hold"}, snapshot=OLD, checkpoint=OLD,
    requests={"cursor": {"seq": 1, "sha256": "bb"}, "outcomes": [{"seq": 1, "outcome": "held"}]},
)  # fmt: skip


def shard(seq: int, emit_us: int) -> Any:
    return SimpleNamespace(seq=seq, watermark_us=100 * seq, shards=[SimpleNamespace(max_emit_us=emit_us)])


def request(seq: int) -> Any:
    return SimpleNamespace(seq=seq, cursor=lambda: Cursor(seq, f"{seq}"))


def test_the_next_record_repeats_the_state_and_forgets_what_was_only_about_the_last() -> None:
    made = records.following(HEAD, "delta", [], "trained", named={"snapshot": NEW}, now_us=90)
    assert (made.version, made.kind, made.base, made.created_at_us) == (9, "delta", 8, 90)
    assert (made.held, made.gate, made.delta) == ((), {}, None)
    assert (made.held_now, made.cursor, made.digest) == (HEAD.held_now, HEAD.cursor, HEAD.digest)
    assert (made.snapshot, made.checkpoint) == (NEW, OLD)
    assert made.requests == {"cursor": {"seq": 1, "sha256": "bb"}, "outcomes": []}


def test_requests_are_answered_up_to_the_last_of_them() -> None:
    made = records.following(HEAD, "delta", [request(2), request(3)], "trained", named={}, now_us=90)
    assert made.requests["cursor"] == Cursor(3, "3").to_json()
    assert made.requests["outcomes"] == [{"seq": 2, "outcome": "trained"}, {"seq": 3, "outcome": "trained"}]
    assert [one.seq for one in records.unanswered(made, [request(2), request(3), request(4)])] == [4]
    assert len(records.unanswered(VersionRecord(**{**vars(HEAD), "requests": {}}), [request(0)])) == 1


def test_what_was_trained_held_or_released_moves() -> None:
    two = [shard(5, 380), shard(6, 610)]
    trained = records.trained(HEAD, two, Cursor(6, "cc"))
    assert (trained.trained, trained.watermark_us, trained.max_emit_us) == (((5, 7),), 600, 610)
    held = records.held(HEAD, two, Cursor(6, "cc"))
    assert (held.held, held.held_now, held.watermark_us) == (((5, 7),), ((2, 7),), 400)
    released = records.released(HEAD, [shard(3, 999)], ((3, 4),))
    assert (released.trained, released.held_now, released.cursor) == (((3, 4),), ((2, 3), (4, 5)), HEAD.cursor)
    assert released.max_emit_us == 999


def test_the_newest_decision_on_rows_is_a_version_that_trained_or_held() -> None:
    empty = records.following(HEAD, "delta", [], "", named={}, now_us=95)
    assert records.decided_us([HEAD, empty], None) == 80
    assert records.decided_us([empty], 70) == 70
