"""`headrace ui`: MLflow's pages, ready, on loopback, and gone afterwards."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from settings import UNREAD, settings_text

from headrace.cli import ui
from headrace.errors import NotFound, PortInUse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def settings(folder: Path, uri: str = "sqlite:///mlflow.db") -> Path:
    (folder / "headrace.toml").write_text(settings_text(**UNREAD, track={"uri": uri}))
    return folder / "headrace.toml"


class Mlflow(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path.endswith("experiment_name=feed")
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"experiment": {"experiment_id": "7"}}).encode() if found else b"{}")

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Mlflow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_in_the_settings_is_named_not_started(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ui.ui(port=0, logs=tmp_path, config=settings(tmp_path, address))
    assert capsys.readouterr().out.strip() == f"{address}/#/experiments/7/runs?workflowType=machine_learning"
    assert ui.page(address, "other") == f"{address}/#/experiments"


def test_a_proxy_is_not_asked_for_loopback(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twin: of what is elsewhere it is asked, and is not there."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert "/experiments/7/" in ui.page(address, "feed")
    with pytest.raises(OSError, match="refused"):
        ui._get("http://elsewhere.invalid/", 1)


def test_it_says_so_where_nothing_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlflow.db").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ui, "READY_S", 0.1)
    monkeypatch.setattr(ui, "_start", lambda *_: subprocess.Popen(["sleep", "0.5"], start_new_session=True))
    assert ui.ui(port=0, logs=tmp_path, config=settings(tmp_path)) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{tmp_path / 'ui.log'} says more" in said.err


def test_before_anything_was_tracked_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"mlflow\.db yet") as error:
        ui.ui(port=0, logs=tmp_path, config=settings(tmp_path))
    assert "headrace track --once" in str(error.value.hint)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PortInUse, match=f"port {other.getsockname()[1]} "):
            ui.ui(port=other.getsockname()[1], logs=tmp_path, config=settings(tmp_path))


def processes(mark: str) -> list[str]:
    return subprocess.run(["pgrep", "-f", mark], capture_output=True, text=True, check=False).stdout.split()


@pytest.mark.slow
def test_it_starts_says_where_and_leaves_nothing_behind(tmp_path: Path) -> None:
    config = settings(tmp_path)
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "headrace.cli", "ui", "--port", str(port), "-c", str(config)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=os.environ) as shown:
        assert shown.stdout is not None
        said = shown.stdout.readline()  # blocks until it is ready
        assert said.startswith(f"http://127.0.0.1:{port}/#/experiments")
        with urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            assert b"MLflow" in page.read()
        assert 1 <= len(processes(f"port {port}")) <= 3
        shown.send_signal(signal.SIGINT)
        assert shown.wait(30) == 0
    assert processes(f"mlflow.*port {port}") == []
    assert "uvicorn" in (tmp_path / "logs" / "ui.log").read_text().lower()
