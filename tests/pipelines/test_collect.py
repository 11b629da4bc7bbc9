"""The shard log under retention, on real ticks: bounded, replayable, verified; room and its absence."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from headrace import collector
from headrace.cli.log import verify_log
from headrace.collector import ShardCollector
from headrace.config import Settings
from headrace.errors import NotFound, StoreFull
from headrace.loop import open_loop
from headrace.record import Cursor
from headrace.room import Room
from headrace.store import open_store
from headrace.store.local import LocalStore
from headrace.version import VersionRecord
from pipelines.pipeline import Pipeline

S = 1_000_000
T0 = 1_700_000_000
SPAN = 60


class Hours:
    """A loop that gets a minute of events per tick; a handmade trainer learns each record at once."""

    def __init__(self, folder, *, rollback_s=600.0, held_s=600.0, learns=True):
        self.folder = folder
        (folder / "events").mkdir(parents=True)
        self.settings = Settings(
            loop={"name": "test", "root": str(folder / "loop")},
            streams={
                "impression": {
                    "source": f"{folder}/events/shown.jsonl", "id": "id", "time": "ts", "time_unit": "s",
                },
                "click": {"source": f"{folder}/events/clicks.jsonl", "id": "id", "time": "at", "time_unit": "s"},
            },
            label={"mode": "implicit", "wait_s": 30, "attribution_s": 120},
            features={"user": {"kind": "id"}},
            pipeline={"parts": 1, "lateness_s": 0, "quarantine_stop": 1.0, "window_s": 60},
            retention={"versions_s": 0, "rollback_s": rollback_s, "held_s": held_s},
        )  # fmt: skip
        self.store = open_store(str(folder / "loop"))
        self.loop = open_loop(self.store, "test")
        self.now = T0 * S
        self.pipeline = Pipeline(self.loop, self.settings, now_us=lambda: self.now)
        self.pipeline._collector._every_s = 1e9  # collected when the test says so
        self.versions, self.head, self.learns, self.minute = self.loop.version_log(), None, learns, 0
        for name in ("shown", "clicks"):
            (folder / f"events/{name}.jsonl").touch()

    def go(self, minutes, monkeypatch):
        monkeypatch.setattr("pipelines.pipeline.clock.now_us", lambda: self.now)
        for _ in range(minutes):
            start = T0 + SPAN * self.minute
            shown = [{"id": f"{self.minute}-{k}", "ts": start + k, "user": k} for k in range(0, SPAN, 10)]
            clicks = [{"id": one["id"], "at": one["ts"] + 5} for one in shown[::2]]
            lines = [json.dumps(one) for one in shown]
            if self.minute % 5 == 0:
                lines.append("{broken")
            with (self.folder / "events/shown.jsonl").open("a") as file:
                file.write("".join(f"{line}\n" for line in lines))
            with (self.folder / "events/clicks.jsonl").open("a") as file:
                file.write("".join(json.dumps(one) + "\n" for one in clicks))
            self.minute += 1
            self.now = (T0 + SPAN * self.minute) * S
            entry = self.pipeline.tick()
            if self.learns:
                self.learn(entry)

    def learn(self, shard, **fields):
        """A version with a checkpoint of itself; the version log keeps ten minutes."""
        version = 0 if self.head is None else self.head.seq + 1
        kept = {"of": version, "path": f"models/default/checkpoints/{version:012d}-aa.npz", "sha256": "0", "bytes": 1}
        record = VersionRecord(
            version=version, kind="delta" if version else "start", base=version - 1 if version else None, lineage=0,
            model={}, schema={}, prior=0.1, digest={}, created_at_us=self.now, code="test",
            cursor=Cursor(shard.seq, shard.sha256), trained=((shard.seq, shard.seq + 1),),
        )  # fmt: skip
        record = replace(record, **fields)
        body = {**record.to_body(), "checkpoint": kept, "snapshot": kept}
        self.head = self.versions.append(record.kind, body, self.head)
        for seq in self.versions.seqs():
            if self.now - self.versions.read(seq).body["created_at_us"] > 600 * S:
                self.store.delete(f"models/default/log/{seq:012d}.json")

    def collect(self):
        self.pipeline._collector.run(self.now, force=True)
        self.pipeline._collector.settled()
        return self.pipeline._collector.run(self.now, force=True)

    def files(self):
        return self.store.list("shards") + self.store.left_over("shards")


def test_hours_stay_within_bounds_and_can_be_verified_and_replayed(tmp_path, monkeypatch):
    hours = Hours(tmp_path)
    sizes, bytes_ = [], []
    for _ in range(6):
        hours.go(10, monkeypatch)
        hours.collect()
        sizes.append(len(hours.files()))
        bytes_.append(hours.store.size("shards"))
    assert max(sizes[3:]) <= sizes[2] + 4, sizes
    assert max(bytes_[3:]) <= 1.2 * bytes_[2], bytes_
    log = hours.loop.shard_log()
    seqs = log.seqs()
    assert 0 < seqs[0] <= 60 - 10
    found = verify_log(hours.store, log, deep=True)
    assert found.problems == []
    assert found.records == len(seqs)
    assert hours.pipeline.replay(seqs[-1]).same
    with pytest.raises(NotFound, match=f"was collected; the oldest that can be replayed is {seqs[0] + 1}"):
        hours.pipeline.replay(3)
    hours.pipeline.close()
    other = Pipeline(hours.loop, hours.settings, now_us=lambda: hours.now)  # a new process goes on
    hours.pipeline = other
    hours.go(2, monkeypatch)
    other.close()


def test_twin_without_collecting_grows(tmp_path, monkeypatch):
    hours = Hours(tmp_path)
    sizes = []
    for _ in range(3):
        hours.go(10, monkeypatch)
        sizes.append(len(hours.files()))
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] - sizes[1] >= 20
    hours.pipeline.close()


def test_held_records_are_kept_until_held_s_and_then_said_to_expire(tmp_path, monkeypatch, caplog):
    hours = Hours(tmp_path, held_s=1500.0)
    hours.go(4, monkeypatch)
    shard = hours.loop.shard_log().head()
    held = ((2, 3),)
    hours.learns = False
    for _ in range(20):
        hours.go(1, monkeypatch)
        shard = hours.loop.shard_log().head()
        hours.learn(shard, held_now=held)
    hours.collect()
    assert hours.loop.shard_log().seqs()[0] == 2
    for _ in range(10):
        hours.go(1, monkeypatch)
        hours.learn(hours.loop.shard_log().head(), held_now=held)
    hours.collect()
    assert hours.loop.shard_log().seqs()[0] > 10
    assert "shards.expired model=default count=1" in caplog.text
    hours.pipeline.close()


def test_nothing_goes_before_a_model_has_learned_it(tmp_path, monkeypatch):
    hours = Hours(tmp_path, learns=False)
    hours.go(12, monkeypatch)
    hours.now += 10**6 * S
    hours.collect()
    assert hours.loop.shard_log().seqs()[0] == 0
    hours.pipeline.close()


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("point", "nth"), [("collect.planned", 1), ("collect.records", 3), ("collect.files", 4)])
def test_killed_while_collecting(tmp_path, monkeypatch, point, nth):
    hours = Hours(tmp_path)
    hours.go(25, monkeypatch)
    left = [nth]

    def hit(name):
        left[0] -= name == point
        if left[0] == 0:
            left[0] = -1
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(collector.failpoints, "hit", hit)
        with pytest.raises(Killed):
            hours.collect()
    assert verify_log(hours.store, hours.loop.shard_log(), deep=True).problems == []
    hours.pipeline.close()
    hours.pipeline = Pipeline(hours.loop, hours.settings, now_us=lambda: hours.now)
    hours.pipeline._collector._every_s = 1e9
    hours.go(1, monkeypatch)
    hours.collect()
    named = set()
    log = hours.loop.shard_log()
    index = ShardCollector(hours.loop, hours.settings).index()
    while not index.advance():
        pass
    named = {f"shards/log/{seq:012d}.json" for seq in log.seqs()} | set(index.named)
    assert sorted(set(hours.files()) - named) == []
    hours.pipeline.close()


def test_max_bytes_stops_commits_and_room_lets_them_go_on(tmp_path, caplog):
    store = LocalStore(tmp_path)
    store.write("a", b"x" * 1000)
    room = Room(store, 2000, share=0.9, every_s=1e9)
    assert room.left()
    room.took(900)
    assert not room.left()
    assert "1,800" in room.problem
    assert "store.full" in caplog.text
    room._used = None  # measured anew
    assert room.left()
    room.freed()
    assert room.problem == ""
    assert Room(store, None).left()


def test_a_full_disk_is_waited_out_and_said(tmp_path, monkeypatch, caplog):
    hours = Hours(tmp_path)
    hours.go(1, monkeypatch)
    monkeypatch.setattr("pipelines.pipeline.FULL_S", 0.01)
    hours.pipeline._settings = SimpleNamespace(**{**dict(hours.settings.pipeline), "tick_s": 0.01})
    tries, problems = [], []
    ticked = hours.pipeline.tick

    def tick(**more):
        tries.append(1)
        if len(tries) < 4:
            problems.append(hours.pipeline._room.problem)
            raise StoreFull(f"cannot write: {os.strerror(errno.ENOSPC)}", hint="free space on this disk")
        return ticked(**more)

    monkeypatch.setattr(hours.pipeline, "tick", tick)
    hours.pipeline.run(stop=lambda: len(tries) >= 6)
    assert len(tries) >= 6
    assert "No space left" in problems[-1]
    assert hours.pipeline._room.problem == ""
    assert caplog.text.count("store.full") == 1
    tries.clear()
    with pytest.raises(StoreFull):
        hours.pipeline.run(once=True)
