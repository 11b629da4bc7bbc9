"""What may go: the pure rules, and the shell over a version log made by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from handmade import Publisher

from headrace import collector, control, status
from headrace.collector import VersionCollector
from headrace.errors import LogRewritten, NotFound
from headrace.log import Cursor, Follower
from headrace.loop import open_loop
from headrace.requests import ask
from headrace.retention import Terms, VersionFact, expired, oldest_request, oldest_shard, oldest_version
from headrace.store import open_store
from headrace.version import Kept, VersionRecord, path_to
from paramserver.replica import Replica

S = 1_000_000
TERMS = Terms(versions_us=10 * S, rollback_us=10 * S, held_us=100 * S)
FACT = VersionFact(None, 0, None, None, None, None, (), None, None, None)


def facts_of(n, *, every=5, first=0):
    """A version a second, a checkpoint and a snapshot every `every`, each named by its own version."""
    facts = {}
    for v in range(first, n):
        newest = v - v % every if v >= every else None
        facts[v] = VersionFact(v - 1 if v else None, v * S, newest, newest, v or None, v or None, (), None, None, None)
    return facts


def settings_of(versions_s=10.0, rollback_s=10.0, held_s=100.0, **followers):
    retention = SimpleNamespace(versions_s=versions_s, rollback_s=rollback_s, held_s=held_s, max_bytes=None)
    return SimpleNamespace(retention=retention, followers=followers)


def test_back_to_the_checkpoint_before_the_oldest_version_that_counts():
    facts = facts_of(40)
    assert oldest_version(facts, 40 * S, TERMS) == 25  # 29 was the newest 10 s ago; its checkpoint is 25
    assert oldest_version(facts, 10**6 * S, TERMS) == 35  # the newest is kept whatever the time, and its checkpoint
    assert oldest_version(facts, 40 * S, replace(TERMS, followers_us=20 * S)) == 15


def test_without_a_checkpoint_nothing_goes():
    facts = {v: replace(fact, checkpoint=None) for v, fact in facts_of(40).items()}
    assert oldest_version(facts, 10**6 * S, TERMS) == 0
    facts = {v: replace(fact, snapshot=None) for v, fact in facts_of(40).items()}
    assert oldest_version(facts, 10**6 * S, TERMS) == 0


def test_a_pin_and_the_target_of_a_rollback_are_kept_with_their_ways_back():
    facts = facts_of(40)
    facts[39] = replace(facts[39], pinned=12)
    assert oldest_version(facts, 40 * S, TERMS) == 10
    facts[39] = replace(facts[39], pinned=22, meanwhile=8)
    assert oldest_version(facts, 40 * S, TERMS) == 5
    facts = facts_of(40)
    facts[38] = replace(facts[38], table_of=7)
    assert oldest_version(facts, 40 * S, TERMS) == 5


def test_a_checkpoint_that_was_named_late_does_not_cut_the_way_of_versions_before():
    facts = facts_of(40)
    for v in range(25, 29):
        facts[v] = replace(facts[v], checkpoint=20)  # 25 was written aside, named from 29 on
    assert oldest_version(facts, 38 * S, TERMS) == 20  # 28 knows of 20 only


def test_shards_since_the_oldest_cursor_and_what_is_held():
    committed = {seq: seq * S for seq in range(60)}
    facts = {v: replace(fact, cursor=v) for v, fact in facts_of(40, first=20).items()}
    assert oldest_shard(committed, [facts], 60 * S, TERMS) == 20
    held = {**facts, 39: replace(facts[39], held_now=((3, 5), (30, 31)))}
    assert oldest_shard(committed, [held], 60 * S, TERMS) == 3
    assert oldest_shard(committed, [held], 103 * S, TERMS) == 3
    assert oldest_shard(committed, [held], 104 * S, TERMS) == 4
    assert oldest_shard(committed, [held], 105 * S, TERMS) == 20
    released = {**facts, 33: replace(facts[33], oldest_trained=8)}
    assert oldest_shard(committed, [released], 10**6 * S, TERMS) == 8
    away = replace(TERMS, followers_us=50 * S)
    assert oldest_shard(committed, [facts], 60 * S, away) == 10
    assert oldest_shard(committed, [], 10**6 * S, TERMS) == 0
    assert oldest_shard(committed, [{0: FACT}], 10**6 * S, TERMS) == 0
    other = {0: replace(FACT, cursor=11)}
    assert oldest_shard(committed, [facts, other], 60 * S, TERMS) == 11


def test_held_shards_expire_after_held_s():
    assert not expired(10 * S, 110 * S, TERMS.held_us)
    assert expired(10 * S, 110 * S + 1, TERMS.held_us)


def test_requests_that_were_answered_go_later():
    asked = {seq: seq * S for seq in range(20)}
    assert oldest_request(asked, [12], 100 * S, TERMS) == 12
    assert oldest_request(asked, [12], 20 * S, TERMS) == 10
    assert oldest_request(asked, [12, 9], 100 * S, TERMS) == 9
    assert oldest_request(asked, [12, None], 100 * S, TERMS) == 0


class Loop:
    """A version log made by hand, a version a second, and its collector."""

    def __init__(self, url, **settings):
        self.loop = open_loop(open_store(url), "feed")
        self.store = self.loop.store
        self.publisher = Publisher(self.store)
        self.publisher.start()
        self.collector = VersionCollector(self.loop, settings_of(**settings), every_s=0.0)

    def now_us(self):
        return self.publisher.next * S

    def publish(self, n, every=5):
        for _ in range(n):
            if self.publisher.next % every == 1 and self.publisher.next > 1:
                kept = self.publisher.snapshot()
                path = f"models/default/checkpoints/{kept.of:012d}-aa.npz"
                self.store.write(path, b"state")
                checkpoint = Kept(kept.of, path, "00", 5)
                self.publisher.record = replace(self.publisher.record, checkpoint=checkpoint)
            v = self.publisher.next
            self.publisher.delta({"linear": {v % 7: [float(v)]}}, created_at_us=v * S, cursor=Cursor(v, ""))

    def collect(self):
        while (found := self.collector.run(self.now_us(), force=True)) is None:
            pass
        if self.collector.settled():
            found = self.collector.run(self.now_us(), force=True)
        return found

    def files(self):
        return [*self.store.list(""), *self.store.left_over("")]

    def read(self, version):
        return VersionRecord.from_entry(self.publisher.log.read(version))


def sizes(loop, rounds, *, collect):
    found = []
    for _ in range(rounds):
        loop.publish(10)
        if collect:
            loop.collect()
        found.append(len(loop.files()))
    return found


def test_files_are_bounded_and_every_version_that_counts_can_be_built(tmp_path):
    loop = Loop(str(tmp_path))
    found = sizes(loop, 12, collect=True)
    assert max(found[3:]) <= found[2] + 3
    head = loop.publisher.next - 1
    for version in range(head - 10, head + 1):
        path = path_to(version, loop.read)
        for named in [path.snapshot, *(record.delta for record in path.deltas)]:
            loop.store.read(named.path)
    assert loop.store.read(loop.read(head).checkpoint.path) == b"state"
    with pytest.raises(NotFound):
        loop.read(head - 30)
    assert loop.publisher.log.head().seq == head


def test_twin_without_retention_grows(tmp_path):
    found = sizes(Loop(str(tmp_path)), 6, collect=False)
    assert found == sorted(found)
    assert found[-1] >= found[2] * 1.9


def test_left_overs_go_and_what_is_above_the_head_stays(tmp_path):
    loop = Loop(str(tmp_path))
    loop.publish(12)
    garbage = [
        "models/default/params/000000000004-delta-dead.arrow",
        "models/default/params/000000000006-snapshot-dead.arrow",
        "models/default/checkpoints/000000000006-dead.npz",
        "models/default/detail/000000000003-held_now-dead.json",
        "models/default/params/.tmp-000000000005-delta-dead.arrow-0a1b2c3d-7",
    ]
    kept = [
        "models/default/params/000000000013-delta-next.arrow",
        "models/default/params/.tmp-000000000013-delta-next.arrow-0a1b2c3d-7",
        "models/default/params/000000000011-snapshot-aside.arrow",  # newer than the one that is named
        "models/default/checkpoints/000000000011-aside.npz",
        "models/default/params/notes.txt",
    ]
    for path in garbage + kept:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    loop.collect()
    left = loop.files()
    assert [path for path in garbage if path in left] == []
    assert [path for path in kept if path not in left] == []


class Killed(BaseException):
    pass


def test_killed_at_any_step_the_log_is_whole_and_the_next_one_finishes(tmp_path, monkeypatch):
    clean = Loop(str(tmp_path / "clean"))
    clean.publish(40)
    clean.collect()
    want = len(clean.files())
    for point in ("collect.planned", "collect.records", "collect.files"):
        for nth in (1, 2, 7):
            loop = Loop(str(tmp_path / f"{point}{nth}"))
            loop.publish(40)
            left = [nth if point != "collect.planned" else 1]

            def hit(name, point=point, left=left):
                left[0] -= name == point
                if not left[0]:
                    left[0] = -1
                    raise Killed

            with monkeypatch.context() as patch:
                patch.setattr(collector.failpoints, "hit", hit)
                with pytest.raises(Killed):
                    loop.collect()
            log = loop.loop.version_log()
            seqs = log.seqs()
            assert seqs == list(range(seqs[0], 41))
            for seq in seqs:
                log.read(seq)
            assert Replica(loop.store, loop.loop.version_log()).poll()
            loop.collector = VersionCollector(loop.loop, settings_of(), every_s=0.0)
            loop.collect()
            assert len(loop.files()) == want, (point, nth)


def test_a_replica_that_was_away_starts_again_and_says_so(tmp_path):
    loop = Loop(str(tmp_path))
    loop.publish(3)
    now = [0.0]
    follower = Follower(loop.loop.version_log(), now=lambda: now[0])
    replica = Replica(loop.store, loop.loop.version_log(), monotonic=lambda: now[0])
    assert replica.poll()
    follower.poll()
    loop.publish(60)
    loop.collect()
    now[0] += 11.0
    with pytest.raises(LogRewritten):
        follower.poll()
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr("headrace.log.REWRITE_CHECK_S", 0.0)
        replica.poll()
        assert "rewritten or collected" in str(replica.problem)
        assert replica.poll()
    assert replica.generation().version == loop.publisher.next - 1


def test_a_rollback_within_rollback_s_works_after_collection(tmp_path):
    loop = Loop(str(tmp_path))
    loop.publish(60)
    loop.collect()
    replica = Replica(loop.store, loop.loop.version_log())
    replica.poll()
    control.rollback(loop.loop, 54, by="me", reason="", now_us=loop.now_us())
    replica.poll()
    assert replica.generation().record.to == 54
    assert path_to(54, loop.read).snapshot is not None
    with pytest.raises(NotFound, match="no longer kept") as refused:
        control.rollback(loop.loop, 20, by="me", reason="", now_us=loop.now_us())
    assert "rollback_s" in refused.value.hint


def test_answered_requests_and_old_heartbeats_go(tmp_path):
    loop = Loop(str(tmp_path))
    for _ in range(5):
        asked = ask(loop.loop, "retrain", {}, "me", 0)
    status.beat(loop.store, "server", {}, 0)
    loop.publisher.record = replace(loop.publisher.record, requests={"cursor": asked.cursor().to_json()})
    loop.publish(30)
    loop.collect()
    assert loop.loop.requests().seqs() == [4]
    assert loop.loop.requests().head() == asked
    assert len(status.heartbeats(loop.store)) == 1  # 30 s old
    loop.collector.run(10**12, force=True)
    assert status.heartbeats(loop.store) == []


def test_requests_that_the_pipeline_has_not_answered_stay(tmp_path):
    loop = Loop(str(tmp_path))
    asked = [ask(loop.loop, kind, {}, "me", 0) for kind in ("retrain", "retry", "retrain")]
    shards, head = loop.loop.shard_log(), None
    loop.publisher.record = replace(loop.publisher.record, requests={"cursor": asked[-1].cursor().to_json()})
    loop.publish(30)
    for cursor, left in ((None, [0, 1, 2]), (asked[0], [0, 1, 2]), (asked[1], [1, 2])):
        said = {"cursor": None if cursor is None else cursor.cursor().to_json(), "outcomes": []}
        head = shards.append("shard", {"requests": said}, head)
        loop.collect()
        assert loop.loop.requests().seqs() == left


def test_a_damaged_record_stops_the_pass(tmp_path, caplog):
    loop = Loop(str(tmp_path))
    loop.publish(40)
    (tmp_path / "models/default/log/000000000017.json").write_bytes(b"{}")
    before = loop.files()
    assert loop.collector.run(10**12, force=True) is None
    assert loop.files() == before
    assert "retention.failed" in caplog.text


def test_reading_is_bounded_per_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(collector.Index.advance, "__defaults__", (10,))
    loop = Loop(str(tmp_path))
    loop.publish(34)
    passes = [loop.collector.run(loop.now_us(), force=True) for _ in range(4)]
    assert [found is None for found in passes] == [True, True, True, False]
