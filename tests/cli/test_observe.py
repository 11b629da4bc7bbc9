"""/metrics, /healthz and /readyz, asked over HTTP."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request

import pytest
from settings import settings_text

from headrace import metrics, status
from headrace.cli.observe import ROLES, observed, port_of, unready
from headrace.config import parse
from headrace.store import open_store

SETTINGS = settings_text(
    loop={"name": "t"},
    impression={"source": "shown.jsonl", "time": "t"},
    click={"source": "clicks.jsonl", "time": "at"},
    label={"wait_s": 30, "attribution_s": 600},
)


def free_port() -> int:
    """Of five that follow each other, most likely."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1]) if probe.getsockname()[1] < 65_000 else 20_000


@pytest.fixture
def settings():
    return parse(f"{SETTINGS}[observe]\nport = {free_port()}\n", file="t.toml")


def get(settings, role, page):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port_of(settings, role)}{page}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def test_pages_of_a_process_that_gets_its_role(settings):
    store = open_store("memory://observe")
    with observed(store, settings, "trainer"):
        assert get(settings, "trainer", "/healthz") == (200, "ok\n")
        code, why = get(settings, "trainer", "/readyz")
        assert (code, why.startswith("it does not have its role yet")) == (503, True)
        assert 'headrace_ready{role="trainer"} 0.0' in get(settings, "trainer", "/metrics")[1]
        with status.Pulse(store, "trainer", lambda: {"problem": "the disk is full"}):
            assert get(settings, "trainer", "/readyz") == (200, "ok\n")
            metrics.ROWS_LEARNED.inc(7)
            text = get(settings, "trainer", "/metrics")[1]
            assert 'headrace_ready{role="trainer"} 1.0' in text
            assert 'headrace_problem{role="trainer"} 1.0' in text
            assert f"headrace_rows_learned_total {metrics.ROWS_LEARNED._value.get()}" in text
            assert "process_resident_memory_bytes" in text
        assert get(settings, "trainer", "/readyz")[0] == 503
        assert get(settings, "trainer", "/nowhere")[0] == 404
    with pytest.raises(urllib.error.URLError):
        get(settings, "trainer", "/healthz")


def test_the_free_disk_of_a_local_root(settings, tmp_path):
    store = open_store(str(tmp_path))
    with observed(store, settings, "trainer"):
        get(settings, "trainer", "/metrics")
    assert metrics.DISK_FREE._value.get() > 0


def test_another_process_in_the_role_does_not_make_this_one_ready(settings):
    store = open_store("memory://observe-other")
    status.beat(store, "trainer", {}, time.time_ns() // 1_000, nonce="other")
    with observed(store, settings, "trainer"):
        assert get(settings, "trainer", "/readyz")[0] == 503


def beat(role, **info):
    return status.Heartbeat(role, "h", 1, "n", 0, info)


def test_what_it_takes_to_be_ready():
    assert unready("pipeline", beat("pipeline", problem="waits")) == ""
    assert unready("server", beat("server", version=None)) == "it has no version to answer from yet"
    assert unready("server", beat("server", version=None, problem="damaged")) == "damaged"
    assert unready("server", beat("server", version=0, problem="damaged")) == ""
    children = {"server": {"state": "running"}, "trainer": {"state": "pausing"}}
    assert unready("up", beat("up", children=children)) == "trainer is pausing"


def test_every_role_has_a_port_of_its_own_and_none_by_default(settings):
    assert len({port_of(settings, role) for role in ROLES}) == len(ROLES)
    off = parse(SETTINGS, file="t.toml")
    assert {port_of(off, role) for role in ROLES} == {None}
    with observed(open_store("memory://observe-off"), off, "server"):
        pass


def test_a_port_that_is_taken_stops_nothing(settings, caplog):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port_of(settings, "server")))
        other.listen()
        with observed(open_store("memory://observe-taken"), settings, "server"):
            pass
    assert f"process.unwatched port={port_of(settings, 'server')}: it cannot be used" in caplog.text
