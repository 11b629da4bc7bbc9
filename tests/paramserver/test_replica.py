"""A replica folds the version log: all kinds, damage, lost snapshots, rewritten logs."""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import pytest
from handmade import PRIOR, SCHEMA, Publisher, linear_tower

import paramserver.generation
import paramserver.replica
from headrace.delta import Digest, Numbers, TableSpec, write_delta
from headrace.errors import DamagedFile, NotReady, StoreError
from headrace.ids import cross_of, id_of
from headrace.log import Log
from headrace.record import name_of
from headrace.scoring import Inputs, Ragged
from headrace.store import open_store
from paramserver.replica import RETRY_S, Replica

U1, I1 = id_of("user", "u1"), id_of("item", "i1")
NO_TAGS = Ragged(np.empty(0, np.int64), np.zeros(2, np.int64))


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def replica(store, time):
    return Replica(store, Log(store, "models/default/log"), monotonic=time)


def score(replica: Replica) -> float:
    """Of user u1 and item i1."""
    ids = {"user": np.array([U1]), "item": np.array([I1])}
    ids["u_x_i"] = cross_of("u_x_i", [ids["user"], ids["item"]])
    inputs = Inputs(1, ids, {"tags": NO_TAGS}, {"price": np.array([np.nan], np.float32)})
    return float(replica.generation().scorer.score(inputs)[0])


def probability(logit: float) -> float:
    return pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def digests_agree(replica: Replica, publisher: Publisher) -> bool:
    generation = replica.generation()
    return generation.tables.digest() == publisher.table(generation.version).digest()


def test_without_a_version_nothing_can_be_answered(replica):
    assert not replica.poll()
    assert "headrace train" in replica.problem.hint
    with pytest.raises(NotReady, match="nothing can be served yet: the version log is empty"):
        replica.generation()


def test_version_0_answers_the_prior(replica, publisher):
    publisher.start()
    assert replica.poll()
    assert replica.generation().version == 0
    assert score(replica) == pytest.approx(PRIOR)


def test_all_five_kinds_are_folded(replica, publisher):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0], I1: [0.5]}}, tower=linear_tower(4, 4, 2, bias=0.25))
    replica.poll()
    assert score(replica) == probability(1.75 + 1)  # a missing price sets its flag
    publisher.delta({"linear": {U1: [3.0], I1: None}, "embedding": {U1: [0.1, 0.2, 0.3, 0.4]}})
    replica.poll()
    assert score(replica) == pytest.approx(1 / (1 + np.exp(-(3.25 + 1 + 1.0))), abs=1e-3)  # int8 rows
    publisher.hold()
    replica.poll()
    assert (replica.generation().version, replica.generation().rows) == (3, 2)
    publisher.rollback(1)
    replica.poll()
    assert replica.generation().version == 4
    assert score(replica) == probability(2.75)
    publisher.delta({"linear": {I1: [0.0]}})
    replica.poll()
    assert score(replica) == probability(2.25)
    publisher.pin(2)
    replica.poll()
    assert replica.generation().version == 2
    publisher.delta({"linear": {I1: [9.0]}})
    replica.poll()
    assert (replica.generation().version, replica.applied_version) == (2, 7)
    publisher.pin(None)
    replica.poll()
    assert replica.generation().version == 8
    assert score(replica) == probability(11.25)
    publisher.start()
    replica.poll()
    assert score(replica) == pytest.approx(PRIOR)
    assert replica.problem is None


def test_every_version_has_the_digest_of_the_published_table(replica, publisher):
    random = np.random.default_rng(1)
    publisher.start()
    for version in range(1, 30):
        ids = random.integers(0, 200, 40).tolist()
        rows = {id_: None if random.random() < 0.3 else random.normal(size=4) for id_ in ids}
        publisher.delta({"embedding": rows}, tower=linear_tower(4, 4, 2) if version == 1 else None)
        replica.poll()
        assert replica.generation().version == version
        assert digests_agree(replica, publisher)


def test_a_late_replica_starts_from_the_newest_snapshot(store, publisher, monkeypatch):
    publisher.start()
    for i in range(5):
        publisher.delta({"linear": {U1: [float(i)]}})
    publisher.snapshot()
    publisher.delta({"linear": {I1: [7.0]}})
    loaded = []
    monkeypatch.setattr(
        paramserver.replica, "load_delta", lambda s, path, sha: loaded.append(path) or load_delta(s, path, sha)
    )
    from headrace.delta import load_delta

    replica = Replica(store, Log(store, "models/default/log"))
    replica.poll()
    assert score(replica) == probability(11.0)
    assert [path.split("-")[1] for path in loaded] == ["snapshot", "delta"]
    assert digests_agree(replica, publisher)


@pytest.fixture
def loaded(monkeypatch):
    """Paths of the deltas and snapshots that were loaded."""
    paths, load_delta = [], paramserver.replica.load_delta
    monkeypatch.setattr(
        paramserver.replica, "load_delta", lambda store, path, sha: paths.append(path) or load_delta(store, path, sha)
    )
    return paths


def test_going_back_to_tables_in_memory_loads_nothing(replica, publisher, loaded, time):
    publisher.start()
    for version in range(1, 6):
        publisher.delta({"linear": {U1: [float(version)]}})
        replica.poll()
        time.s += 20
    loaded.clear()
    publisher.rollback(5 - 1)
    replica.poll()
    assert (replica.generation().version, score(replica), loaded) == (6, probability(4.0), [])
    assert digests_agree(replica, publisher)
    publisher.delta({"linear": {U1: [9.0]}})
    publisher.pin(5)
    replica.poll()
    assert (replica.generation().version, score(replica), len(loaded)) == (5, probability(5.0), 1)
    publisher.pin(None)
    replica.poll()
    assert (replica.generation().version, score(replica), len(loaded)) == (9, probability(9.0), 1)


def test_what_is_not_in_memory_is_built_from_what_is(replica, publisher, loaded, time):
    publisher.start()
    for version in range(1, 60):
        publisher.delta({"linear": {U1: [float(version)], version: [1.0]}})
        replica.poll()
        time.s += 5
    in_memory = sorted(replica._history.versions)
    low = next(low for low, high in itertools.pairwise(in_memory) if high - low > 2)
    loaded.clear()
    publisher.rollback(low + 2)
    replica.poll()
    assert (score(replica), len(loaded)) == (probability(float(low + 2)), 2)
    assert digests_agree(replica, publisher)


def test_what_was_replaced_is_freed_when_no_call_has_it(replica, publisher):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    replica.poll()
    under_way, gone = replica.generation(), weakref.ref(replica.generation())
    for version in range(2, 5):
        publisher.delta({"linear": {U1: [float(version)]}})
        replica.poll()
    replica.poll()
    assert [generation.version for generation in replica._leaving] == [1]
    del under_way
    assert gone() is not None  # by the thread that polls, not by the one that called
    replica.poll()
    assert (gone(), replica._leaving) == (None, [])


def damage(store, path: str) -> None:
    data = bytearray(store.read(path))
    data[len(data) // 2] ^= 1
    store.overwrite(path, bytes(data))


def test_a_damaged_delta_is_noticed_and_the_old_generation_goes_on(replica, publisher, store, time):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    replica.poll()
    publisher.delta({"linear": {U1: [2.0]}})
    path = publisher.record.delta.path
    whole = store.read(path)
    damage(store, path)
    replica.poll()
    assert (replica.generation().version, score(replica)) == (1, probability(1.0))
    assert isinstance(replica.problem, DamagedFile)
    assert path in str(replica.problem)
    assert replica.problem.hint
    store.overwrite(path, whole)  # restored from a copy
    time.s += RETRY_S
    replica.poll()
    assert (replica.generation().version, replica.problem) == (2, None)


def test_a_later_snapshot_leads_past_a_damaged_delta(replica, publisher, store):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    replica.poll()
    publisher.delta({"linear": {U1: [2.0]}})
    damage(store, publisher.record.delta.path)
    publisher.delta({"linear": {I1: [5.0]}})
    replica.poll()
    assert replica.generation().version == 1
    publisher.snapshot()
    publisher.hold()
    replica.poll()
    assert (replica.generation().version, score(replica)) == (4, probability(7.0))
    assert replica.problem is None


def test_what_is_passed_in_the_same_look_is_told_afterwards(replica, publisher, store):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    replica.poll()
    publisher.delta({"linear": {U1: [2.0]}})
    path = publisher.record.delta.path
    damage(store, path)
    publisher.snapshot()
    publisher.hold()
    replica.poll()
    assert (replica.generation().version, score(replica), replica.problem) == (3, probability(2.0), None)
    assert path in replica.last_problem[1].message


def test_a_replica_starts_beside_a_damaged_snapshot(replica, publisher, store):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    publisher.snapshot()
    publisher.delta({"linear": {I1: [1.0]}})
    damage(store, publisher.snapshot().path)
    publisher.hold()
    replica.poll()
    assert (replica.generation().version, score(replica)) == (3, probability(2.0))


def test_a_replica_starts_from_the_newest_version_that_verifies(replica, publisher, store):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    publisher.delta({"linear": {U1: [2.0]}})
    damage(store, publisher.record.delta.path)
    publisher.hold()
    replica.poll()
    assert (replica.generation().version, score(replica)) == (1, probability(1.0))
    assert isinstance(replica.problem, DamagedFile)


def test_without_the_hash_check_a_damaged_row_is_served(replica, publisher, store, monkeypatch):
    """The twin: what the checks above are for."""
    monkeypatch.setattr("headrace.delta.check_sha256", lambda *_: None)
    monkeypatch.setattr(paramserver.generation.Generation, "check", lambda _: None)
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    path = publisher.record.delta.path
    data = bytearray(store.read(path))
    at = data.index(np.float32(1.0).tobytes() * 1, data.index(U1.to_bytes(8, "little")))
    rows = [at for at in range(len(data) - 3) if data[at : at + 4] == np.float32(1.0).tobytes()]
    for at in rows:
        data[at + 2] ^= 0x40
    store.overwrite(path, bytes(data))
    replica.poll()
    assert replica.generation().version == 1
    assert score(replica) != probability(1.0)


def test_a_wrong_digest_is_noticed(replica, publisher):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    replica.poll()
    publisher._after(kind="hold", digest=Digest(5, 5, "").to_json())
    replica.poll()
    assert replica.generation().version == 1
    assert "has digest" in str(replica.problem) or "have digest" in str(replica.problem)


def test_a_version_that_scores_nan_is_applied_but_not_served(replica, publisher):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}}, tower=linear_tower(4, 4, 2))
    replica.poll()
    publisher.delta({}, tower=linear_tower(4, 4, 2, bias=float("nan")))
    replica.poll()
    assert (replica.generation().version, replica.applied_version) == (1, 2)
    assert "applied but not served" in str(replica.problem)
    publisher.delta({}, tower=linear_tower(4, 4, 2, bias=1.0))
    replica.poll()
    assert (replica.generation().version, replica.problem) == (3, None)


def test_a_tower_that_does_not_fit_the_tables_is_applied_but_not_served(replica, publisher):
    publisher.start()
    replica.poll()
    publisher.delta({"linear": {U1: [1.0]}}, tower=linear_tower(9, 4, 2))
    replica.poll()
    assert (replica.generation().version, replica.applied_version) == (0, 1)
    assert "version 1 cannot score" in str(replica.problem)


def test_an_unknown_kind_stops_advancing_and_says_so(replica, publisher):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    replica.poll()
    publisher.head = publisher.log.append("merge", publisher.record.to_body(), publisher.head)
    publisher.delta({"linear": {U1: [3.0]}})
    replica.poll()
    replica.poll()
    assert (replica.generation().version, score(replica)) == (1, probability(1.0))
    assert "unknown kind 'merge'" in str(replica.problem)
    assert "newer headrace" in replica.problem.hint


def test_a_rewritten_log_is_followed_from_its_newest_version(replica, publisher, store, time):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    publisher.delta({"linear": {U1: [2.0]}})
    replica.poll()
    for path in store.list("models"):
        store.delete(path)
    other = Publisher(store)
    other.start()
    other.delta({"linear": {U1: [5.0]}})
    time.s += 11
    replica._follower._now = time
    replica._follower._checked_s = 0.0
    replica.poll()
    assert replica.generation().version == 2
    assert "rewritten" in str(replica.problem)
    replica.poll()
    assert (replica.generation().version, score(replica)) == (1, probability(5.0))
    assert replica.problem is None


@pytest.mark.parametrize("fault", ["missing", "damaged", "swapped"])
def test_a_broken_record_is_named_and_passed_with_the_next_snapshot(replica, publisher, store, time, fault):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    replica.poll()
    publisher.delta({"linear": {U1: [2.0]}})
    path, other = name_of("models/default/log", 2), name_of("models/default/log", 1)
    publisher.delta({"linear": {I1: [5.0]}})
    if fault == "missing":
        store.delete(path)
    elif fault == "damaged":
        damage(store, path)
    else:
        store.overwrite(path, store.read(other))
    time.s += 11
    replica.poll()
    assert (replica.generation().version, score(replica)) == (1, probability(1.0))
    assert path in replica.problem.message
    assert replica.problem.hint
    publisher.snapshot()
    publisher.hold()
    time.s += RETRY_S
    replica.poll()
    assert (replica.generation().version, score(replica), replica.problem) == (4, probability(7.0), None)
    assert path in replica.last_problem[1].message


def test_a_dead_store_is_survived_and_told(replica, publisher, store, monkeypatch):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    replica.poll()

    def dead(_path: str) -> bytes:
        raise StoreError("the store does not answer")

    with monkeypatch.context() as context:
        context.setattr(store, "read", dead)
        assert not replica.poll()
        assert (score(replica), str(replica.problem)) == (probability(1.0), "the store does not answer")
    publisher.delta({"linear": {U1: [2.0]}})
    replica.poll()
    assert (replica.generation().version, replica.problem) == (2, None)


def test_another_schema_and_other_tables_begin_with_a_start(store, replica, publisher):
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    replica.poll()
    publisher.specs = (TableSpec("linear", 1, "f32", ("user", "item", "tags", "u_x_i")),)
    publisher.start()
    publisher.delta({"linear": {I1: [4.0]}}, tower=linear_tower(0, 0, 2, weight=0.5))
    replica.poll()
    assert score(replica) == probability(4.5)


def test_numbers_are_standardised_by_the_statistics_of_the_version(replica, publisher):
    publisher.start()
    publisher.delta({}, tower=linear_tower(4, 4, 2), numbers=Numbers((10.0,), (0.5,)))
    replica.poll()
    inputs = Inputs(
        3,
        {name: np.array([1]) for name in SCHEMA.sparse},
        {"tags": NO_TAGS},
        {"price": np.array([12.0, np.nan, 1000.0], np.float32)},
    )
    assert replica.generation().scorer.logits(inputs).tolist() == pytest.approx([1.0, 1.0, 5.0])


def test_local_stores_are_mapped(tmp_path):
    store = open_store(str(tmp_path))
    publisher = Publisher(store)
    publisher.start()
    publisher.delta({"linear": {U1: [1.0]}})
    publisher.snapshot()
    publisher.hold()
    replica = Replica(store, Log(store, "models/default/log"))
    replica.poll()
    assert score(replica) == probability(1.0)
    path = store.path_of(publisher.record.snapshot.path)
    path.write_bytes(b"")
    again = Replica(store, Log(store, "models/default/log"))
    again.poll()
    assert (again.generation().version, score(again)) == (2, probability(1.0))
    assert write_delta(publisher.table(1).snapshot(1)) != b""
