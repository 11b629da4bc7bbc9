"""`predict --example`: every call that it prints gives the answer of the server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from google.protobuf.json_format import Parse
from settings import PRICE, TAGS, USER, settings_text

from headrace import config
from headrace.cli import predict_example
from headrace.cli.app import run
from headrace.loop import open_loop
from headrace.store import open_store
from paramserver.client import values_of
from paramserver.server import Server
from protos import headrace_pb2 as wire
from training.start import write_start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = settings_text(
    USER,
    PRICE,
    TAGS,
    'hour = { kind = "time", part = "hour" }',
    'user_x_hour = { kind = "cross", of = ["user", "hour"] }',
    loop={"prior": 0.5},
    streams={"time": "at", "time_unit": "s"},
    click={"source": "clicks.jsonl"},
    serve={"port": 0},
)
EVENT = {"id": "a", "at": 1_700_000_000, "user": 'it\'s "me"', "price": None, "tags": ["x", None, "y"]}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    (tmp_path / "events.jsonl").write_text("broken\n" + json.dumps(EVENT) + "\n")
    (tmp_path / "clicks.jsonl").write_text("")
    settings = config.load(tmp_path / "headrace.toml")
    loop = open_loop(open_store(settings.loop.root), "feed")
    write_start(loop, settings)
    with Server(loop, settings, follow=False) as server:
        server.replica.poll()
        yield server


@pytest.fixture(params=[(), ("user=u1", "price=1.5", "tags=a,b")], ids=["of the source", "given"])
def text(request: pytest.FixtureRequest, server: Server, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["predict", *request.param, "--example", "--address", server.address]) == 0
    return capsys.readouterr().out


def part(text: str, name: str) -> str:
    return next(one for one in text.split("\n\n") if one.startswith(f"# {name}"))


def test_python(text: str) -> None:
    code = text.split("# grpcurl")[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["[0.5]", "0", "None"]


def test_grpcurl(text: str) -> None:
    said = re.search(r"-d (.*) 127\.0\.0\.1:\d+ ", part(text, "grpcurl"))
    assert said is not None
    words = subprocess.run(["sh", "-c", f"printf %s {said[1]}"], capture_output=True, text=True, check=True).stdout
    request = Parse(words, wire.PredictRequest())
    assert request.features["user"] in (values_of("user", EVENT["user"]), values_of("user", "u1"))
    if shutil.which("grpcurl") is not None:
        done = subprocess.run(
            ["sh", "-c", part(text, "grpcurl")], capture_output=True, text=True, check=True, timeout=60
        )
        assert json.loads(done.stdout)["scores"] == [0.5]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(text: str, tmp_path: Path) -> None:
    if "HTTP2" not in subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("this curl has no HTTP/2")
    subprocess.run(["sh", "-c", part(text, "curl")], check=True, timeout=60)
    answer = wire.PredictResponse.FromString((tmp_path / "answer.bin").read_bytes()[5:])
    assert list(answer.scores) == [0.5]


def test_a_source_without_events(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.stop()
    config.load("headrace.toml")
    open("events.jsonl", "w").close()  # noqa: PTH123
    assert run(["predict", "--example"]) == 1
    assert "has no event that could be an example" in capsys.readouterr().err


def test_neither_features_nor_example(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.stop()
    assert run(["predict"]) == 2
    assert "give every feature" in capsys.readouterr().err


def test_a_decimal_of_the_source_is_a_number_of_the_request() -> None:
    assert [predict_example._plain(Decimal(text)) for text in ("12.50", "3", "3.00")] == [12.5, 3, 3]
