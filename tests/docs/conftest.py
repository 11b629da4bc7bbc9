"""What a page needs to be followed: events, and a loop that has run on them."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROWS, DAYS, ROUNDS = 4_000, 3, 4

SETTINGS = """\
[loop]
name = "items"
prior = 0.23

[streams.impression]
source = "events.jsonl"
id = "id"
time = "shown_at"

[streams.click]
source = "events.jsonl"
id = "id"
time = "clicked_at"

[label]
mode = "implicit"
wait_s = 2
attribution_s = 300

[features]
user = { kind = "id" }
item = { kind = "id" }
hour = { kind = "time", part = "hour", time_zone = "UTC" }

[pipeline]
disorder_s = 1
idle_s = 1

[train]
snapshot_every = 1
"""

RUN = """
import sys
from pathlib import Path
from headrace.cli.app import run

rounds = [Path(name).read_bytes() for name in sys.argv[1:]]
for lines in rounds:
    with Path("events.jsonl").open("ab") as log:
        log.write(lines)
    for words in (["pipeline", "run", "--once"], ["train", "--once"]):
        assert run(words) == 0, words
"""


def clicks() -> Iterator[dict[str, Any]]:
    """Three days that end an hour ago; some items are liked more, and a click comes 20 s later on average."""
    rng = random.Random(7)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=DAYS, hours=1)
    liking = [rng.gauss(-1.5, 1.5) for _ in range(60)]
    for k in range(ROWS):
        at = start + timedelta(seconds=k * DAYS * 86_400 // ROWS)
        item = rng.randrange(60)
        clicked = rng.random() < 1 / (1 + math.exp(-liking[item]))
        after = at + timedelta(seconds=round(rng.expovariate(1 / 20)) + 1)
        yield {
            "id": f"e{k}",
            "shown_at": at,
            "clicked_at": after if clicked else None,
            "user": rng.randrange(200),
            "item": item,
        }


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same events as `events.parquet`, `events.csv` and `events.jsonl`."""
    folder = tmp_path_factory.mktemp("events")
    table = pa.Table.from_pylist(list(clicks()))
    pa.parquet.write_table(table, folder / "events.parquet")
    pa.csv.write_csv(table, folder / "events.csv")
    with (folder / "events.jsonl").open("w") as log:
        log.writelines(json.dumps(row, default=datetime.isoformat) + "\n" for row in table.to_pylist())
    scores = pa.array([0.1 + k % 7 / 10 for k in range(len(table))])  # of a model that the user has
    pa.parquet.write_table(pa.table({"id": table["id"], "score": scores}), folder / "predictions.parquet")
    return folder


@pytest.fixture(scope="session")
def ran(events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a loop that has read the events in four rounds and has learned after each; one line is broken."""
    folder = tmp_path_factory.mktemp("ran")
    shutil.copytree(events, folder, dirs_exist_ok=True)
    (folder / "headrace.toml").write_text(SETTINGS)
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").unlink()
    step = len(lines) // ROUNDS
    rounds = []
    for k in range(ROUNDS):
        one = folder.parent / f"round-{k}"
        one.write_text("".join(lines[k * step : (k + 1) * step]) + ("not an event\n" if k == 1 else ""))
        rounds.append(str(one))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *rounds], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def folder_for(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Makes the folder that a reader of a page works in, a copy for each: events alone if the page makes settings."""

    def made(text: str) -> Path:
        here = tmp_path / "here"
        begins = re.search(r"^ *headrace init", text, re.MULTILINE) or not re.search(
            r"^ *headrace (?!demo)|```(toml|python)", text, re.MULTILINE
        )
        shutil.copytree(request.getfixturevalue("events" if begins else "ran"), here)
        (here / ".venv").symlink_to(sys.prefix)
        return tmp_path

    return made
