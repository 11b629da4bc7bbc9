"""The Dockerfile: hadolint finds nothing; it installs what is pinned, does not run as root; its health check works.

It is not built here: that needs Docker and its registry. Each instruction is looked at instead.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from headrace.cli.observe import observed, port_of
from headrace.store import open_store

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "docker" / "Dockerfile"
HADOLINT = Path(sys.executable).parent / "hadolint"


def instructions(text):
    """(name, rest) of each, comments left out and lines that go on joined."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = kept.replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


ALL = instructions(FILE.read_text())
LAST = ALL[max(number for number, (name, _) in enumerate(ALL) if name == "FROM") :]


def of(name, among=ALL):
    return [" ".join(rest.split()) for one, rest in among if one == name]


def found(text):
    done = subprocess.run([HADOLINT, "--format", "json", "-"], input=text, capture_output=True, text=True, check=False)
    return [f"{one['code']} {one['message']}" for one in json.loads(done.stdout)]


def test_hadolint_finds_nothing():
    assert found(FILE.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("USER 10001", "USER root", "DL3002"),
        ("FROM python:3.11-slim-bookworm", "FROM python", "DL3006"),
        ("WORKDIR /loop", "WORKDIR loop", "DL3000"),
        ('CMD ["headrace", "up"]', "CMD headrace up", "DL3025"),
    ],
)
def test_hadolint_notices(old, new, code):
    text = FILE.read_text()
    assert old in text
    assert code in "; ".join(found(text.replace(old, new)))


def test_what_is_installed_is_pinned_by_hash():
    installs = [run for run in of("RUN") if "pip install" in run]
    assert len(installs) == 3
    assert re.search(r"pip install --no-cache-dir uv==\d+\.\d+\.\d+$", installs[0])
    assert "uv pip install --no-cache --require-hashes -r requirements.lock" in installs[1]
    assert "uv pip install --no-cache --no-deps ." in installs[2]


def test_the_base_is_one_python_that_headrace_takes():
    tags = {re.match(r"python:(3\.\d+)-", base)[1] for base in of("FROM")}
    assert tags == {"3.11"}


def test_it_does_not_run_as_root_and_writes_one_folder():
    assert of("USER", LAST) == ["10001"]
    assert "--uid 10001" in of("RUN", LAST)[0]
    assert "chown headrace /loop" in of("RUN", LAST)[0]
    assert of("WORKDIR", LAST) == of("VOLUME", LAST) == ["/loop"]


def test_what_is_copied_exists_and_is_not_ignored():
    allowed = {
        line[1:] for line in (FILE.parent / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    sources = [word for rest in of("COPY") if "--from" not in rest for word in rest.split()[:-1]]
    assert set(sources) == allowed
    assert [name for name in sources if not (ROOT / name).exists()] == []


def variables():
    pairs = [pair.split("=", 1) for rest in of("ENV", LAST) for pair in rest.split()]
    return dict(pairs)


def test_the_health_check_asks_the_process_that_runs_by_default():
    settings = SimpleNamespace(observe=SimpleNamespace(port=int(variables()["HEADRACE__OBSERVE__PORT"])))
    (command,) = of("CMD", LAST)
    assert json.loads(command) == ["headrace", "up"]
    assert int(variables()["WATCHED_PORT"]) == port_of(settings, "up")


def test_the_health_check_works():
    (check,) = of("HEALTHCHECK", LAST)
    program = json.loads(check.split("CMD ", 1)[1])
    assert program[:2] == ["python", "-c"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-c", program[2]]
    environment = os.environ | {"WATCHED_PORT": str(port)}
    settings = SimpleNamespace(observe=SimpleNamespace(port=port))
    with observed(open_store("memory://docker"), settings, "server"):
        assert subprocess.run(words, env=environment, capture_output=True, check=False).returncode == 0
    assert subprocess.run(words, env=environment, capture_output=True, check=False).returncode != 0
