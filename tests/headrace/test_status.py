"""Heartbeats and rivals."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from headrace import clock, status
from headrace.errors import Busy, StoreError
from headrace.store.memory import MemoryStore

SECOND_US = 1_000_000
_numbers = itertools.count()


@pytest.fixture
def store():
    return MemoryStore(f"status-{next(_numbers)}")


def test_a_heartbeat_is_read_back(store):
    beat = status.beat(store, "pipeline", {"seq": 4}, 7)
    assert status.heartbeats(store) == [beat]
    assert store.list("status") == [f"status/pipeline-{beat.host}.json"]
    assert json.loads(store.read(store.list("status")[0])).keys() == {"role", "host", "pid", "nonce", "at_us", "info"}
    status.beat(store, "pipeline", {"seq": 5}, 8)
    assert [found.info for found in status.heartbeats(store)] == [{"seq": 5}]
    status.leave(store, beat)
    assert status.heartbeats(store) == []


def test_one_that_is_taken_back_while_all_are_read_is_passed_over(store, monkeypatch):
    leaving, beat = status.beat(store, "server", {}, 7), status.beat(store, "trainer", {}, 7)
    listed = store.list("status")
    monkeypatch.setattr(store, "list", lambda _: listed)  # it ends between the look and the read
    status.leave(store, leaving)
    assert status.heartbeats(store) == [beat]
    assert status.rival(store, "trainer", 0, nonce="11111111") == beat


def test_it_lives_for_ten_seconds(store):
    beat = status.beat(store, "pipeline", {}, 100 * SECOND_US)
    assert beat.living(110 * SECOND_US)
    assert not beat.living(110 * SECOND_US + 1)
    assert beat.living(130 * SECOND_US, within_s=30)
    assert not beat.living(50 * SECOND_US)  # from a clock that is far ahead: it must not block for ever


def test_a_killed_process_of_this_host_is_dead_at_once(store):
    beat = status.beat(store, "pipeline", {}, 0)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    gone = status.Heartbeat(beat.role, beat.host, process.pid, "00000000", 0, {})
    assert beat.living(0)
    assert not gone.living(0)
    assert status.Heartbeat("pipeline", "elsewhere", process.pid, "00000000", 0, {}).living(0)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says when a process began")
def test_a_process_that_gives_no_sign_is_silent_only_while_it_is_here(store):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        at_us = clock.now_us() + SECOND_US
        last = replace(status.beat(store, "pipeline", {}, at_us), pid=process.pid)
        assert not last.silent(at_us)  # it lives
        assert last.silent(at_us + 11 * SECOND_US)
        assert not replace(last, host="elsewhere").silent(at_us + 11 * SECOND_US)
        assert not replace(last, at_us=at_us - 60 * SECOND_US).silent(at_us)  # another process has its number now
        process.communicate(b"\n")
    assert not last.silent(at_us + 11 * SECOND_US)


def test_a_rival_is_a_living_process_of_the_same_role_with_another_nonce(store):
    assert status.rival(store, "trainer", 0) is None
    other = status.beat(store, "trainer", {}, 0, nonce="11111111")
    assert status.rival(store, "trainer", 0) == other
    assert status.rival(store, "trainer", 0, nonce="11111111") is None
    assert status.rival(store, "pipeline", 0) is None
    assert status.rival(store, "trainer", 11 * SECOND_US) is None
    with pytest.raises(Busy, match=f"another trainer runs on this root: process {other.pid} on"):
        raise status.busy(other)


def test_what_does_not_parse_is_passed_over(store):
    for number, data in enumerate([b"", b"[]", b"{}", b'{"role": "a", "extra": 1}', b"\xff"]):
        store.overwrite(f"status/a-{number}.json", data)
    beat = status.beat(store, "pipeline", {}, 0)
    assert status.heartbeats(store) == [beat]


def test_a_pulse_beats_while_its_block_runs(store, monkeypatch):
    monkeypatch.setattr(status, "BEAT_S", 0.01)
    said, later = iter(range(10**9)), threading.Event()

    def info():
        number = next(said)
        if number > 2:
            later.set()
        return {"number": number}

    with status.Pulse(store, "trainer", info):
        assert later.wait(10)
        assert [found.role for found in status.heartbeats(store)] == ["trainer"]
    assert status.heartbeats(store) == []


def test_a_pulse_outlives_a_store_that_refuses(store, monkeypatch):
    def refused(*_):
        raise StoreError("no right to write")

    monkeypatch.setattr(store, "overwrite", refused)
    with status.Pulse(store, "server", dict):
        assert status.heartbeats(store) == []
