"""The champion of MLflow's registry in an environment that has neither TensorFlow nor headrace, against the service."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from settings import USER, settings_text

from paramserver.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SETTINGS = settings_text(
    USER,
    'campaign = { kind = "category" }',
    'tags = { kind = "ids", max = 3 }',
    'bid = { kind = "number", transform = "log1p" }',
    'hour = { kind = "time", column = "ts", part = "hour" }',
    'user_x_campaign = { kind = "cross", of = ["user", "campaign"] }',
    loop={"name": "ads"},
    streams={"time": "ts", "time_unit": "s"},
    impression={"source": "shown.jsonl"},
    click={"source": "clicked.jsonl"},
    train={"snapshot_every": 1},
    track={"models_every_s": 0},
)

FRESH = """
import importlib.util, json, sys
assert importlib.util.find_spec("tensorflow") is None and importlib.util.find_spec("headrace") is None
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/ads@champion")
scores = model.predict(pandas.DataFrame(json.load(open(sys.argv[2]))))
import headrace
assert "tensorflow" not in sys.modules
print(json.dumps({"scores": [float(score) for score in scores], "code": headrace.__file__,
                  "version": model.metadata.metadata["loop_version"], "example": model.input_example is not None}))
"""


def append_events(folder: Path, start_s: int, seed: int) -> None:
    rng = random.Random(seed)
    with (folder / "shown.jsonl").open("a") as shown, (folder / "clicked.jsonl").open("a") as clicked:
        for k in range(3_000):
            event = {
                "id": f"{seed}-{k}",
                "ts": start_s + k // 10,
                "user": rng.randrange(200),
                "campaign": f"c{rng.randrange(30)}",
                "tags": rng.sample(["a", "b", "c", "d"], rng.randrange(4)),
                "bid": round(rng.random() * 3, 2),
            }
            shown.write(json.dumps(event) + "\n")
            if rng.random() < 1 / (1 + math.exp(1.5 - event["user"] % 7 / 2)):
                clicked.write(json.dumps({"id": event["id"], "ts": event["ts"] + 2}) + "\n")


def candidates(n: int) -> dict[str, list[Any]]:
    rng = random.Random(9)
    return {
        "user": [rng.randrange(260) for _ in range(n)],  # some are unknown
        "campaign": [rng.choice([f"c{rng.randrange(40)}", None]) for _ in range(n)],
        "tags": [rng.sample(["a", "b", "z"], rng.randrange(4)) for _ in range(n)],
        "bid": [rng.choice([round(rng.random() * 4, 3), None]) for _ in range(n)],
        "hour": [f"2026-11-0{rng.randrange(1, 9)}T{rng.randrange(24):02d}:30:00Z" for _ in range(n)],
    }


def headrace(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A loop of several versions, the newest snapshots of which are in MLflow."""
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    for part in range(3):
        append_events(tmp_path, 1_790_000_000 + 400 * part, part)
        headrace(tmp_path, "pipeline", "run", "--once")
        headrace(tmp_path, "train")
    assert json.loads(headrace(tmp_path, "track", "--once", "--json"))["logged"] >= 3
    return tmp_path


@pytest.fixture
def fresh(folder: Path) -> Path:
    """The Python of a new environment with what the model asks for and nothing else."""
    wanted = next(folder.glob("mlartifacts/ads/*/artifacts/models/*/requirements.txt"))
    uv, python = Path(sys.executable).parent / "uv", folder / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "-r", wanted], check=True)
    return python


def served(folder: Path, version: int, features: dict[str, list[Any]]) -> Iterator[float]:
    headrace(folder, "pin", str(version))
    command = [sys.executable, "-m", "headrace.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        listening = next(line for line in server.stderr if "server.listening" in line)
        address = re.search(r"address=([\d.]+:\d+)", listening)[1]
        next(line for line in server.stderr if f"server.swapped version={version} " in line)
        with Client(address) as client:
            answer = client.predict(features)
        server.terminate()
        server.stderr.read()
    assert answer.version == version
    yield from answer.scores


def test_the_champion_scores_like_the_service_without_tensorflow(folder: Path, fresh: Path) -> None:
    features = candidates(300)
    (folder / "candidates.json").write_text(json.dumps(features))
    script = folder / "fresh.py"
    script.write_text(FRESH)
    said = subprocess.run(
        [fresh, script, f"sqlite:///{folder}/mlflow.db", folder / "candidates.json"],
        cwd=folder / "venv",
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout.splitlines()[-1])
    assert Path(found["code"]).is_relative_to(folder / "mlartifacts")
    assert found["example"]
    expected = np.array(list(served(folder, found["version"], features)))
    assert np.abs(np.array(found["scores"]) - expected).max() <= 1e-6
    assert np.ptp(expected) > 0.05
