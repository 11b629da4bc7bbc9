"""Requests of operators."""

from __future__ import annotations

import pytest

from headrace.errors import HeadraceError
from headrace.log import Follower
from headrace.loop import open_loop
from headrace.requests import ask
from headrace.store.memory import MemoryStore


def test_requests_are_records_in_order():
    loop = open_loop(MemoryStore("requests-order"), "feed")
    asked = [ask(loop, "retrain", {"full": True}, "ann", 5), ask(loop, "stop", {}, "bob", 6)]
    assert Follower(loop.requests()).poll() == asked
    assert [(entry.seq, entry.kind) for entry in asked] == [(0, "retrain"), (1, "stop")]
    assert asked[0].body == {"args": {"full": True}, "by": "ann", "at_us": 5}


def test_two_who_ask_at_once_are_both_heard(monkeypatch):
    loop = open_loop(MemoryStore("requests-race"), "feed")
    monkeypatch.setattr("headrace.log.Log.head", lambda self: None)  # both see an empty log
    assert [ask(loop, "retrain", {}, who, 0).seq for who in ("ann", "bob", "cyd")] == [0, 1, 2]


def test_unknown_requests_are_refused():
    loop = open_loop(MemoryStore("requests-unknown"), "feed")
    with pytest.raises(HeadraceError, match="dance") as raised:
        ask(loop, "dance", {}, "ann", 0)
    assert "retrain" in raised.value.hint
