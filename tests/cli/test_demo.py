"""The demo's figures; and the demo itself, for most of a minute."""

import json
import subprocess
import sys

import numpy as np
import pytest

from headrace.cli.demo_scores import Tail, compared

STRAY = ("beam", "mlflow", "cuda", "absl", "traceback")


def test_live_frozen_and_best_are_measured_on_the_same_rows():
    rows = np.array([[0.9, 1, 0.8, 0.5], [0.1, 0, 0.2, 0.5]])
    seen = compared([rows[:1], rows[1:]])
    assert seen["n"] == 2
    assert seen["best"]["log_loss"] < seen["live"]["log_loss"] < seen["frozen"]["log_loss"]
    assert (seen["live"]["auc"], seen["frozen"]["auc"]) == (1.0, 0.5)
    assert np.isnan(compared([])["live"]["log_loss"])


def test_a_tail_reads_whole_lines_from_its_end_on(tmp_path):
    file = tmp_path / "truth.jsonl"
    file.write_text('{"a":1}\n')
    tail = Tail(file)
    assert tail.read() == []
    with file.open("a") as log:
        log.write('{"a":2}\n{"a"')
        log.flush()
        assert tail.read() == [{"a": 2}]
        log.write(":3}\n")
    assert tail.read() == [{"a": 3}]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_demo_answers_learns_and_says_nothing_of_its_libraries(tmp_path):
    command = [sys.executable, "-m", "headrace.cli", "demo", "--seconds", "50", "--json", "--rate", "300"]
    done = subprocess.run([*command, "--folder", str(tmp_path / "demo")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    seen = json.loads(done.stdout)
    assert seen["versions"] > 2
    assert 0 < seen["first_answer_s"] < seen["first_swap_s"]
    assert 0 < seen["best"]["log_loss"] < min(seen["live"]["log_loss"], seen["frozen"]["log_loss"])
    events = seen["events"]
    classes = (
        "emitted",
        "duplicate",
        "late",
        "quarantined",
        "expired",
        "sampled_out",
        "pending",
        "joined",
        "superseded",
    )
    assert events["read"] == sum(events.get(name, 0) for name in classes) > 1_000
    assert not [line for line in done.stderr.splitlines() if any(word in line.lower() for word in STRAY)]
