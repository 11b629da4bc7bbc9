"""A failpoint ends the process where it says, and the log lives on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from headrace import failpoints
from headrace.log import Log
from headrace.store import open_store

WRITER = """
import sys
from headrace.log import Log
from headrace.store import open_store

log = Log(open_store(sys.argv[1]), "shards/log")
for number in range(3):
    entry = log.append("shard", {"number": number}, log.head())
    print(entry.seq, flush=True)
"""


def run(root, failpoint):
    environment = {**os.environ, failpoints.VARIABLE: failpoint}
    return subprocess.run(
        [sys.executable, "-c", WRITER, root], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("failpoint", "visible", "acknowledged"),
    [("log.before_put:2", 1, 1), ("log.after_link:2", 2, 1), ("log.after_put:2", 2, 1), ("log.before_put", 0, 0)],
)
def test_death_at_each_step_of_a_commit(tmp_path, failpoint, visible, acknowledged):
    died = run(str(tmp_path), failpoint)
    assert died.returncode == failpoints.EXIT_CODE
    assert len(died.stdout.split()) == acknowledged
    log = Log(open_store(str(tmp_path)), "shards/log")
    assert log.seqs() == list(range(visible))
    entry = log.append("shard", {"number": 99}, log.head())
    assert entry.seq == visible
    assert log.head() == entry


def test_another_place_or_none_changes_nothing(tmp_path):
    assert run(str(tmp_path), "trainer.learned").returncode == 0


def test_only_listed_names():
    with pytest.raises(ValueError, match=r"log\.nowhere"):
        failpoints.hit("log.nowhere")
    assert all(meaning for meaning in failpoints.NAMES.values())
