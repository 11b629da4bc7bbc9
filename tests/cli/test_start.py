"""What starting a command costs, and what it must not import: each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from settings import settings_text

if TYPE_CHECKING:
    from pathlib import Path


REPORT = """
import sys
from headrace.cli.app import run
code = run(sys.argv[1:])
heavy = sorted({"tensorflow", "keras", "apache_beam", "mlflow", "grpc"} & set(sys.modules))
print("modules", heavy, file=sys.stderr)
raise SystemExit(code)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "headrace.toml").write_text(settings_text(streams={"time_unit": "s"}))
    (tmp_path / "events.jsonl").write_text(json.dumps({"id": 1, "at": 1_700_000_000, "user": "u"}) + "\n")
    return tmp_path


def seen(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """A command, and last on stderr the heavy modules that it imported."""
    return subprocess.run(
        [sys.executable, "-c", REPORT, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TYPER_USE_RICH": "0"},
    )


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["doctor"], ["status", "--json"], ["doctor", "--json"]])
def test_looking_imports_nothing_heavy(folder: Path, arguments: list[str]) -> None:
    """How long it takes is measured by benchmarks/bench_cli.py."""
    done = seen(folder, arguments)
    assert done.returncode in (0, 4), done.stderr
    assert "modules []" in done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["versions", "list"],
        ["log", "verify"],
        ["quarantine", "list"],
        ["config", "check"],
        ["init", "-c", "other.toml"],
    ],
)
def test_reading_commands_import_nothing_heavy(folder: Path, arguments: list[str]) -> None:
    done = seen(folder, arguments)
    assert "modules []" in done.stderr, done.stderr
    assert not (folder / "loop").exists(), "looking must not make a loop"


INTERRUPTED = """
import sys
class Typing:
    def find_spec(self, name, path=None, target=None):
        if name == "headrace.cli.status":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Typing())
sys.argv = ["headrace", "status"]
from headrace.cli import main
main()
"""


def test_ctrl_c_while_the_commands_are_imported_is_no_traceback(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
