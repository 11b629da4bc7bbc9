"""A server that cannot reach the newest version says so: in its own words, in `status` and in `doctor`."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from settings import settings_text

from headrace import clock, config, status
from headrace.cli.app import run
from headrace.cli.journal import journal
from headrace.loop import Loop, open_loop
from headrace.store import open_store
from headrace.version import NamedFile, VersionRecord
from paramserver.server import Server
from training.start import write_start

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """Version 0, and version 1 whose file is damaged."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "headrace.toml").write_text(settings_text(streams={"time_unit": "s"}, serve={"port": port}))
    (tmp_path / "events.jsonl").write_text("")
    settings = config.load(tmp_path / "headrace.toml")
    loop = open_loop(open_store(settings.loop.root), "feed")
    start = write_start(loop, settings)
    loop.store.write("models/default/params/1.arrow", b"not what it was")
    delta = NamedFile("models/default/params/1.arrow", "0" * 64, 15)
    record = VersionRecord.from_entry(start)
    body = record.to_body() | {"base": 0, "delta": vars(delta)}
    loop.version_log().append("delta", body, start)
    return loop


def test_a_damaged_version_is_told_everywhere(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config.load("headrace.toml")
    server = Server(loop, settings, follow=False)
    server.start()
    try:
        with journal(settings, "server"):
            server._poll()
            said = capsys.readouterr().err
            assert "server.swapped version=0 until=-: nothing learned yet: it answers the prior" in said
            assert "WARNING server.stalled version=0 fix=" in said
            assert "params/1.arrow" in said
            server._poll()
            assert not capsys.readouterr().err
        status.beat(loop.store, "server", server._info(), clock.now_us())
        assert run(["status"]) == 0
        told = capsys.readouterr().out
        assert "version 0 of 1 on " in told
        assert "PROBLEM: " in told
        assert run(["doctor"]) == 4
        found = {
            line[5:].split()[0]: line for line in capsys.readouterr().out.splitlines() if line[:3] in ("ok ", "BAD")
        }
        assert "serves version 0 of 1: " in found["server"]
        assert found["server"].startswith("BAD")
        assert found["port"].startswith("ok")
        assert "this loop's running server" in found["port"]
    finally:
        server.stop()
