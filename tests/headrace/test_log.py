"""The log under races and lost answers."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import Ambiguous, Exists, LostRace, StoreError
from headrace.log import Follower, Log, garbage
from headrace.record import name_of
from headrace.store import open_store
from headrace.store.memory import MemoryStore

_numbers = itertools.count()

WRITER = """
import sys
from headrace.errors import LostRace
from headrace.log import Log
from headrace.store import open_store

root, name, commits = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = Log(open_store(root), "shards/log")
print("ready", flush=True)
sys.stdin.readline()
for number in range(commits):
    while True:
        try:
            entry = log.append("shard", {"by": name, "number": number}, log.head())
        except LostRace:
            continue
        print(entry.seq, flush=True)
        break
"""


def test_1000_racing_commits_by_8_processes_are_unique_and_gapless(tmp_path):
    writers, commits = 8, 125
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(number), str(commits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(writers)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    follower, read, started = Follower(Log(open_store(str(tmp_path)), "shards/log")), [], time.monotonic()
    while len(read) < writers * commits and time.monotonic() - started < 60:
        read += follower.poll()
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    acknowledged = {
        int(seq): (str(by), number) for by, output in enumerate(outputs) for number, seq in enumerate(output.split())
    }
    assert sorted(acknowledged) == list(range(writers * commits))
    assert {entry.seq: (entry.body["by"], entry.body["number"]) for entry in read} == acknowledged
    assert not list(tmp_path.rglob(".tmp-*"))


class LookThenWrite(MemoryStore):
    """What a store without a conditional create would do; `between` runs after the look."""

    def __init__(self, name):
        super().__init__(name)
        self.between = lambda: None

    def put_if_absent(self, path, data):
        if path in self.list(""):
            raise Exists("taken", path=path)
        between, self.between = self.between, lambda: None
        between()
        self.write(path, data)


def test_without_a_conditional_create_an_acknowledged_record_is_lost():
    store = LookThenWrite(f"race-{next(_numbers)}")
    one, other = Log(store, "log"), Log(store, "log")
    acknowledged = []
    store.between = lambda: acknowledged.append(other.append("shard", {"by": "other"}, None))
    acknowledged.append(one.append("shard", {"by": "one"}, None))
    assert [entry.seq for entry in acknowledged] == [0, 0]
    assert store.list("log") == [name_of("log", 0)]


class Faulty(MemoryStore):
    """A store behind a bad network. `faults` says what happens to each put and read in turn, then all is well.

    "lost": done, the answer is lost. "never": not done, no answer. "late": no answer, done just before the next put
    of anyone. "mute": a read gets no answer.
    """

    def __init__(self, name, faults):
        super().__init__(name)
        self.faults = iter(faults)
        self.late = []

    def put_if_absent(self, path, data):
        late, self.late = self.late, []
        for one in late:
            self._try(*one)
        fault = next(self.faults, "fine")
        if fault == "never":
            raise Ambiguous("no answer", path=path)
        if fault == "late":
            self.late.append((path, data))
            raise Ambiguous("no answer", path=path)
        if fault == "lost":
            self._try(path, data)
            raise Ambiguous("no answer", path=path)
        super().put_if_absent(path, data)

    def read(self, path):
        if next(self.faults, "fine") == "mute":
            raise StoreError("no answer", path=path)
        return super().read(path)

    def _try(self, path, data):
        try:
            super().put_if_absent(path, data)
        except Exists:
            return


class Writer:
    """Commits the numbers of its range in order and keeps what it was told."""

    def __init__(self, store, name):
        self.log = Log(store, "log", sleep=lambda seconds: None)
        self.name, self.next, self.acknowledged = name, 0, []
        self.parent = None

    def step(self):
        try:
            entry = self.log.append("shard", {"by": self.name, "number": self.next}, self.parent)
        except LostRace as lost:
            entry = lost.context["winner"]
            if entry.writer != self.log.writer:
                self.parent = entry
                return
        except StoreError:  # not known; the same is tried again
            return
        self.acknowledged.append(entry.seq)
        self.parent = entry
        self.next += 1


faults = st.lists(st.sampled_from(["fine", "fine", "lost", "never", "late", "mute"]), max_size=60)


@settings(max_examples=300, deadline=None)
@given(faults, st.lists(st.integers(0, 1), max_size=20))
def test_whatever_answers_are_lost_every_commit_is_known_and_made_once(script, turns):
    store = Faulty(f"faulty-{next(_numbers)}", script)
    writers = [Writer(store, "a"), Writer(store, "b")]
    for turn in turns:
        writers[turn].step()
    store.faults = iter(())
    for writer in writers:
        goal = writer.next + 1
        while writer.next < goal:
            writer.step()
    entries = Follower(Log(store, "log")).poll()
    assert [entry.seq for entry in entries] == list(range(len(entries)))
    for writer in writers:
        mine = [entry for entry in entries if entry.body["by"] == writer.name]
        assert [entry.seq for entry in mine] == writer.acknowledged
        assert [entry.body["number"] for entry in mine] == list(range(writer.next))


class Trusting(Log):
    """Takes no answer for "not done" and does not read back."""

    def _settle(self, attempt):
        try:
            self.store.put_if_absent(name_of(self.prefix, attempt.seq), attempt.data)
        except Ambiguous as error:
            raise StoreError("failed") from error
        except Exists as error:
            raise LostRace("lost", winner=Log(self.store, self.prefix, writer="").read(attempt.seq)) from error
        return attempt.entry


def test_without_reading_back_a_commit_is_taken_for_a_rivals_and_made_twice():
    store = Faulty(f"faulty-{next(_numbers)}", ["lost"])
    log = Trusting(store, "log")
    with pytest.raises(StoreError):
        log.append("shard", {"number": 0}, None)
    with pytest.raises(LostRace) as raised:
        log.append("shard", {"number": 0}, None)
    log.append("shard", {"number": 0}, raised.value.context["winner"])
    assert [entry.body["number"] for entry in Follower(Log(store, "log")).poll()] == [0, 0]


def test_a_lost_answer_is_recognised_as_ones_own():
    store = Faulty(f"faulty-{next(_numbers)}", ["lost"])
    log = Log(store, "log")
    assert log.append("shard", {"number": 0}, None) == log.head()
    assert log.seqs() == [0]


def test_no_other_record_is_tried_while_one_is_unresolved():
    store = Faulty(f"faulty-{next(_numbers)}", ["lost", "mute"] + ["never", "mute"] * 7)
    log = Log(store, "log", sleep=lambda seconds: None)
    with pytest.raises(Ambiguous, match="does not answer"):
        log.append("shard", {"plan": "first"}, None)
    store.faults = iter(())
    with pytest.raises(LostRace) as raised:
        log.append("shard", {"plan": "second"}, None)
    winner = raised.value.context["winner"]
    assert (winner.body, winner.writer) == ({"plan": "first"}, log.writer)
    assert log.append("shard", {"plan": "second"}, winner).seq == 1


def test_the_same_plan_again_is_the_same_record():
    class Counting(Faulty):
        written = 0

        def write(self, path, data):
            self.written += 1
            super().write(path, data)

    store = Counting(f"faulty-{next(_numbers)}", ["lost", "mute"] * 8)
    log = Log(store, "a/log", sleep=lambda seconds: None)
    plan = {"rows": list(range(10_000))}
    with pytest.raises(Ambiguous):
        log.append("shard", plan, None)
    store.faults = iter(())
    entry = log.append("shard", plan, None)
    assert Log(store, "a/log").head() == entry
    assert entry.body == plan
    assert store.written == 1  # a detail that a record may name is not touched again


def test_an_attempt_that_others_have_passed_is_settled_in_silence():
    store = Faulty(f"faulty-{next(_numbers)}", ["never", "mute"] * 8)
    log, other = Log(store, "log", sleep=lambda seconds: None), Log(store, "log")
    with pytest.raises(Ambiguous):
        log.append("shard", {"plan": "first"}, None)
    store.faults = iter(())
    head = other.append("shard", {}, other.append("shard", {}, None))
    assert log.append("shard", {"plan": "second"}, log.head()).parent == head.sha256


def test_head_lists_once():
    class Counting(MemoryStore):
        lists = 0

        def list(self, prefix):
            self.lists += 1
            return super().list(prefix)

    store = Counting(f"count-{next(_numbers)}")
    log, parent = Log(store, "log"), None
    for _ in range(5):
        parent = log.append("shard", {}, parent)
    other = Log(store, "log")
    for _ in range(5):
        parent = log.append("shard", {}, parent)
        assert other.head() == parent
    assert store.lists == 1


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from("ab")), unique=True),
    st.integers(-1, 20),
    st.sets(st.tuples(st.integers(0, 20), st.sampled_from("ab"))),
)
def test_garbage_is_committed_and_unnamed(files, head_seq, named):
    def name(file):
        return f"shards/data/{file[0]:012d}-0-{file[1]}.parquet"

    found = garbage([name(file) for file in files], head_seq, {name(file) for file in named})
    assert found == sorted(name(file) for file in files if file[0] <= head_seq and file not in named)


def test_names_without_a_number_are_never_garbage():
    assert garbage(["loop.json", "status/000.json", "a/0000000000-x"], 10**9, set()) == []
    assert garbage(["d/.tmp-000000000004.json-0a1b2c3d-7"], 4, set()) == ["d/.tmp-000000000004.json-0a1b2c3d-7"]


def test_a_follower_whose_sync_fails_reads_the_same_again(monkeypatch):
    store = MemoryStore(f"log-{next(_numbers)}")
    log, parent = Log(store, "shards/log"), None
    for number in range(3):
        parent = log.append("shard", {"number": number}, parent)
    follower, sync = Follower(log), store.sync

    def busy(path):
        monkeypatch.setattr(store, "sync", sync)
        raise StoreError(f"503 for {path}")

    monkeypatch.setattr(store, "sync", busy)
    with pytest.raises(StoreError):
        follower.poll()
    assert [entry.body["number"] for entry in follower.poll()] == [0, 1, 2]
