"""What commands say and how they end: help, errors for people and programs, exit codes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import app, status, terminal
from headrace.cli.app import run
from headrace.errors import SettingsError

COMMANDS = [
    ["demo"],
    ["init"],
    ["inspect"],
    ["report"],
    ["gc"],
    ["up"],
    ["down"],
    ["rollback"],
    ["pin"],
    ["probe"],
    ["train"],
    ["retrain"],
    ["release"],
    ["serve"],
    ["predict"],
    ["track"],
    ["ui"],
    ["status"],
    ["doctor"],
    ["backtest"],
    ["export"],
    ["import"],
    ["pipeline", "run"],
    ["pipeline", "plan"],
    ["pipeline", "replay"],
    ["versions", "list"],
    ["versions", "show"],
    ["log", "verify"],
    ["quarantine", "list"],
    ["quarantine", "show"],
    ["config", "check"],
]
READING = [command for command in COMMANDS if command not in (["serve"], ["down"], ["train"], ["pipeline", "run"])]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: headrace {' '.join(command)}" in text
    assert f"Examples:\n    headrace {' '.join(command)}" in text


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_every_reading_command_speaks_json(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_help_and_readme_say_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for code in terminal.Code:
        assert f"    {code:<5}" in said
        assert f"| {code} |" in readme
    for command in COMMANDS:
        assert f"`{' '.join(command)}" in readme


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert capsys.readouterr().out.startswith("Usage: headrace")
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("headrace 0.")


@pytest.mark.parametrize(
    ("arguments", "part", "fix"),
    [
        (["frobnicate"], "No such command", "headrace --help"),
        (["status", "--jsn"], "No such option", "headrace status --help"),
        (["versions", "show", "x"], "valid integer", "headrace versions show --help"),
        (["train", "--once", "--watch"], "exclude each other", "headrace train --help"),
        (["pipeline", "run", "now"], "is not a Beam flag", "headrace pipeline run --help"),
    ],
)
def test_usage_errors(arguments: list[str], part: str, fix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert not said.out
    lines = said.err.splitlines()
    assert lines[0].startswith("error: ")
    assert part in said.err
    assert lines[-2:] == [f"  fix: run `{fix}`", " code: usage"]


def test_errors_for_people_go_to_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["status"]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.splitlines()[0] == "error: there is no settings file headrace.toml"
    assert "fix: run `headrace init" in said.err
    assert said.err.splitlines()[-1] == " code: config.invalid"


def test_errors_for_programs_are_json_on_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["status", "--json"]) == 2
    said = capsys.readouterr()
    error = json.loads(said.out)
    assert error["error"] == "config.invalid"
    assert set(error) == {"error", "message", "hint", "context"}
    assert not said.err


def test_a_defect_is_one_line_and_a_report_never_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(status.options, "load", broken)
    assert run(["status"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.startswith("error: unexpected ZeroDivisionError: a defect\n")
    report = said.split("report it with ")[1].split(" ")[0]
    with open(report) as file:  # noqa: PTH123  the name is text here
        assert "ZeroDivisionError" in file.read()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_full_disk_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "report.html")

    monkeypatch.setattr(status.options, "load", full)
    assert run(["status", *(["--json"] if as_json else [])]) == 1
    said = capsys.readouterr()
    if as_json:
        error = json.loads(said.out)
        assert (error["error"], error["message"]) == ("store.full", "report.html: No space left on device")
    else:
        assert said.err.startswith("error: report.html: No space left on device\n  fix: free space on that disk")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_stdout_is_no_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "headrace.cli", "init", "--template", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_defect_is_told_where_no_report_can_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(status.options, "load", broken)
    monkeypatch.setattr(terminal.tempfile, "gettempdir", lambda: str(tmp_path / "gone"))
    assert run(["status"]) == 1
    assert "report it with what `headrace --debug …` shows" in capsys.readouterr().err


def test_interrupts_end_with_130_and_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status.options, "load", interrupted)
    assert run(["status"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_gates_end_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    from headrace.errors import GateRefused

    assert terminal.report(GateRefused("held", hint="look"), as_json=False) == 3
    assert terminal.report(SettingsError("wrong"), as_json=True) == 2
    assert json.loads(capsys.readouterr().out)["message"] == "wrong"


def test_commands_are_all_registered() -> None:
    names = {command.name for command in app.build().registered_commands}
    groups = {group.name for group in app.build().registered_groups}
    assert names | groups == {command[0] for command in COMMANDS}
