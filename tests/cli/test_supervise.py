from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from settings import settings_text

from headrace.cli import supervise
from headrace.cli.supervise import Child, Fate, stop_all


def until(holds, timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_pauses_double_up_to_a_minute_and_begin_anew_after_a_sound_life() -> None:
    fate, now_s, pauses = Fate(), 0.0, []
    for _ in range(9):
        fate = fate.started(now_s).died(1, now_s + 1)
        pauses.append(fate.resume_s - now_s - 1)
        now_s = fate.resume_s
        assert fate.due(now_s)
        assert not fate.due(now_s - 0.1)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    fate = fate.started(now_s)
    assert fate.restarts == 9
    assert fate.died(1, now_s + supervise.SOUND_S).resume_s == now_s + supervise.SOUND_S + 1


def test_a_usage_error_is_not_tried_again() -> None:
    fate = Fate().started(0).died(supervise.USAGE, 1)
    assert (fate.state, fate.due(1e9)) == ("failed", False)


def test_a_child_that_dies_is_started_again_and_its_last_words_are_kept(tmp_path) -> None:
    child = Child("status", ["status", "-c", "no-such.toml"], tmp_path / "status.log")
    child.start(time.monotonic())
    until(lambda: (child.watch(0), child.fate.state == "failed")[1])
    assert child.fate.exit_code == supervise.USAGE
    assert any("no settings file" in line for line in child.last_words())
    child = Child("nothing", ["--version"], tmp_path / "nothing.log")
    child.start(0.0)
    until(lambda: (child.watch(5.0), child.fate.state == "pausing")[1])
    child.watch(100.0)
    assert (child.fate.state, child.fate.restarts) == ("running", 1)
    stop_all([child])
    assert (child.fate.state, child.ended()) == ("ended", True)


def test_a_long_log_is_cut_and_one_older_part_is_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(supervise, "LOG_BYTES", 100)
    child = Child("x", [], tmp_path / "x.log")
    child.log.write_text("a" * 150)
    child.watch(0.0)
    assert child.log.read_text() == ""
    assert (tmp_path / "x.log.1").read_text() == "a" * 150


@pytest.mark.parametrize("told", [True, False], ids=["told", "twin"])
def test_a_process_notices_that_its_supervisor_is_gone(monkeypatch, told) -> None:
    if told:
        monkeypatch.setenv(supervise.PARENT, "1" if os.getppid() != 1 else "2")
    else:
        monkeypatch.delenv(supervise.PARENT, raising=False)
    assert supervise.orphaned() == told


def test_children_end_when_their_supervisor_is_killed(tmp_path) -> None:
    """`serve` in an empty loop, started by a process that kill -9 ends."""
    (tmp_path / "e.jsonl").write_text("")
    (tmp_path / "headrace.toml").write_text(
        settings_text(
            'x = { kind = "id" }',
            streams={"source": "e.jsonl", "id": "i", "time": "t", "time_unit": "s"},
            label={"wait_s": 1, "attribution_s": 1},
        )
    )
    script = """
import time, pathlib
from headrace.cli.supervise import Child
child = Child("server", ["serve", "--port", "0"], pathlib.Path("server.log"))
child.start(0.0)
print(child.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    log = tmp_path / "server.log"
    until(lambda: log.exists() and "server.listening" in log.read_text())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not _runs(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2)")
@pytest.mark.parametrize("told", [True, False], ids=["told", "twin"])
def test_the_kernel_ends_a_child_that_is_too_busy_to_look(told) -> None:
    busy = f"""
import os, time
from headrace.cli.supervise import PARENT, end_with_parent
if {told}:
    os.environ[PARENT] = str(os.getppid())
end_with_parent()
print(os.getpid(), flush=True)
time.sleep(60)
"""
    script = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {busy!r}]); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    if told:
        until(lambda: not _runs(pid))
    else:
        assert _runs(pid)
        os.kill(pid, signal.SIGKILL)
    parent.stdout.close()


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
