"""Log lines: declared once, used as declared, and nothing is logged beside them."""

from __future__ import annotations

import ast
import errno
import io
import json
import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from settings import settings_text

from headrace import lines
from headrace.cli import terminal
from headrace.cli.app import run
from headrace.cli.journal import RESERVED, journal
from headrace.config.sections import ObserveSettings
from headrace.errors import Busy, DamagedFile, StoreFull

ROOT = Path(__file__).parents[2]
SOURCES = [
    file for name in ("headrace", "pipelines", "training", "paramserver") for file in (ROOT / name).rglob("*.py")
]
ALL = {name: getattr(lines, name) for name in lines.__all__}
MINE = {"headrace/lines.py", "headrace/cli/journal.py"}
OTHERS = {"headrace/cli/quiet.py", "pipelines/job.py"}  # where the loggers of libraries are kept quiet
LOGS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
SETTINGS = settings_text(
    'x = { kind = "id" }', loop={"name": "t"}, streams={"time": "t"}, label={"wait_s": 1, "attribution_s": 1}
)


def used(source):
    """(name, fields) of every line that a source logs."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield from ((one.attr, set()) for one in node.args if _is_line(one))  # given to who logs it, without fields
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if _is_line(node.func):
            yield node.func.attr, {one.arg for one in node.keywords} - {"trace"}


def _is_line(node):
    mine = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lines"
    return mine and node.attr.isupper() and node.attr != "LOGGER"


def faults(source):
    """Lines that are not declared, or not logged as they are declared; logging past the list."""
    for name, fields in used(source):
        if name not in ALL:
            yield f"no line {name}"
        elif fields != set(ALL[name].fields):
            yield f"{name} has other fields"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom) and "logging" in ast.unparse(node).split():
            yield "logging past the list"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_logged_is_declared(file):
    name = str(file.relative_to(ROOT))
    found = list(faults(file.read_text()))
    assert found == (["logging past the list"] if name in MINE | OTHERS else [])


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_where_logging_is_allowed_nothing_is_logged(name):
    calls = [node.func for node in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(node, ast.Call)]
    assert not [one for one in calls if isinstance(one, ast.Attribute) and one.attr in LOGS]


@pytest.mark.parametrize(
    "planted",
    [
        'lines.VERSION_COMITTED(version=1, kind="delta", rows=1, until=None)',
        'lines.VERSION_COMMITTED(version=1, kind="delta", rows=1)',
        'lines.SERVER_LISTENING(adress="127.0.0.1:1")',
        'import logging\nlogging.getLogger("x").warning("something happened")',
        'from logging import getLogger\ngetLogger("x").warning("something happened")',
    ],
)
def test_what_is_not_declared_is_noticed(planted):
    assert list(faults(planted))


def test_every_line_is_logged_somewhere():
    assert {name for file in SOURCES for name, _ in used(file.read_text())} == set(ALL)


@pytest.mark.parametrize("name", lines.__all__)
def test_a_line_is_named_for_its_constant_and_says_what_it_means(name):
    line = ALL[name]
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", line.name)
    assert line.name.replace(".", "_").upper() == name
    assert line.meaning.endswith(".")
    assert not set(line.fields) & set(RESERVED)
    assert len(set(line.fields)) == len(line.fields)


class Told:
    def __init__(self, log):
        self.observe = ObserveSettings(log=log)


def test_text_is_one_line_with_time_level_name_and_fields(capsys):
    with journal(Told("text"), "server"):
        capsys.readouterr()
        lines.SERVER_STALLED("two\nlines", version=None, fix="do this")
    said = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING server\.stalled version=- fix="do this": two lines', said[0]
    )


def test_json_is_one_object_a_line_talk_included(capsys):
    with journal(Told("json"), "trainer"):
        terminal.say("something\nelse")
        lines.VERSION_COMMITTED(version=3, kind="delta", rows=float("nan"), until=None)
        try:
            raise KeyError("x")
        except KeyError:
            lines.SERVER_POLL_FAILED(trace=True)
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    names = ["process.started", "process.said", "version.committed", "server.poll_failed", "process.ended"]
    assert [one["line"] for one in said] == names
    assert {one["role"] for one in said} == {"trainer"}
    assert said[1]["message"] == "something else"
    assert said[2]["rows"] is None
    assert "KeyError" in said[3]["traceback"]
    terminal.say("as before")
    assert capsys.readouterr().err == "as before\n"


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [(DamagedFile("two\nlines", hint="mend it"), "log.damaged", 4), (RuntimeError("odd"), "unexpected", 1)],
)
def test_json_says_what_ended_a_process_too(tmp_path, monkeypatch, capfd, error, code, exit_code):
    """With the real command, whose library fails."""

    def fail(*_, **__):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE__OBSERVE__LOG", "json")
    monkeypatch.setitem(sys.modules, "training.trainer", SimpleNamespace(Trainer=fail))
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    assert run(["train", "--watch"]) == exit_code
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [one["line"] for one in said] == ["process.started", "process.failed"]
    assert (said[-1]["code"], said[-1]["level"]) == (code, "error")
    assert said[-1]["fix"]
    assert lines.LOGGER.handlers == []


def test_text_leaves_the_error_to_the_command():
    with pytest.raises(StoreFull), journal(Told("text"), "trainer"):
        raise StoreFull("no room")


def test_after_it_lines_go_where_they_went_before(caplog):
    with journal(Told("text"), "server"):
        pass
    assert lines.LOGGER.handlers == []
    with caplog.at_level(logging.INFO, "headrace"):
        lines.TRACK_LOGGED(version=1, versions=1)
    assert "track.logged version=1 versions=1" in caplog.text


@pytest.mark.parametrize(
    ("words", "code"), [(["up"], "source.vanished"), (["pipeline", "run"], "source.vanished"), (["serve"], "log.busy")]
)
def test_where_lines_are_json_errors_at_the_start_are_lines_too(tmp_path, capsys, monkeypatch, words, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(SETTINGS + '[observe]\nlog = "json"\n')
    if code == "log.busy":
        monkeypatch.setattr("headrace.cli.serve._write_version_0", busy)
    assert run(words) == 1
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert said[-1]["line"] == "process.failed"
    assert said[-1]["code"] == code


def test_where_the_environment_says_json_missing_settings_are_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE__OBSERVE__LOG", "json")
    assert run(["up"]) == 2
    (line,) = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (line["line"], line["role"], line["code"]) == ("process.failed", "up", "config.invalid")
    assert run(["status"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no settings file")


def busy(*_):
    raise Busy("another server runs")


class FullDisk(io.StringIO):
    tried = 0

    def write(self, _):
        self.tried += 1
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("log", ["text", "json"])
def test_a_full_disk_costs_lines_and_no_process(monkeypatch, log):
    disk = FullDisk()
    monkeypatch.setattr(sys, "stderr", disk)
    with journal(Told(log), "trainer"):
        lines.STORE_FULL("no room")
        terminal.say("talk")
    terminal.say("talk")
    assert disk.tried == 5  # begun, no room, talk, ended, and talk after the end
