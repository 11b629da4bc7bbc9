"""Templates as users begin with them: in an empty folder, fresher models are better ones, and the loop runs at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import simulate, templates
from headrace.cli.app import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.xdist_group("tensorflow"),
    pytest.mark.filterwarnings("ignore"),  # of Beam, TensorFlow and their libraries
]


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(simulate, "midnight", lambda: np.datetime64("2026-01-05"))
    return tmp_path


def curve(name: str, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What `backtest` measured in the folder where the template was begun."""
    assert run(["init", "--template", name]) == 0
    assert run(["config", "check"]) == 0
    capsys.readouterr()
    assert run(["backtest", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["frozen"]["n"] > 1_000
    return found


def test_a_daily_model_knows_of_new_fraud(capsys: pytest.CaptureFixture[str]) -> None:
    found = curve("fraud", capsys, "--every", "frozen,1d", "--limit", "20000")
    assert found["1d"]["log_loss"] < 0.97 * found["frozen"]["log_loss"]
    assert found["1d"]["auc"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", templates.NAMES)
def test_the_command_that_a_template_names_shows_what_is_fresh_is_better(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = templates.said(name)[1].split()[2:]
    few = (
        ["--limit", "100000"] if name == "flights" else []
    )  # all of them take three minutes: benchmarks/bench_flights.py
    found = curve(name, capsys, *words, *few)
    losses = [found[arm]["log_loss"] for arm in words[1].split(",")]
    assert losses[2] < min(losses[:2])
    assert losses[2] < 0.985 * losses[0]
    assert found[words[1].split(",")[2]]["auc"] > 0.6


@pytest.mark.slow
def test_the_loop_runs_on_a_template(empty: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        environment = {**os.environ, "HEADRACE__SERVE__PORT": str(probe.getsockname()[1])}
    headrace = [sys.executable, "-m", "headrace.cli"]

    def typed(*words: str) -> str:
        return subprocess.run([*headrace, *words], capture_output=True, text=True, check=True, env=environment).stdout

    def learned(state: dict[str, Any]) -> bool:
        served = [one["info"] for one in state["processes"] if one["role"] == "server" and one["living"]]
        return any(info["watermark_us"] for info in served)

    typed("init", "--template", "fraud")
    payment = {"card": "c1", "merchant": "m1", "issuer": "b3", "device": "", "country": "DE", "trade": "t1"}
    payment |= {"entry": "online", "amount": "2.5", "amount_step": "2.5"}
    with (empty / "up.out").open("w") as out:
        up = subprocess.Popen([*headrace, "up", "--no-track"], stdout=out, stderr=out, env=environment)
    try:
        end = time.monotonic() + 150
        while not learned(json.loads(typed("status", "--json"))):
            assert up.poll() is None, (empty / "up.out").read_text()
            assert time.monotonic() < end
            time.sleep(0.5)
        answer = json.loads(typed("predict", *(f"{name}={value}" for name, value in payment.items()), "--json"))
        assert 0 < answer["scores"][0] < 1
        assert answer["version"] > 0
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)
