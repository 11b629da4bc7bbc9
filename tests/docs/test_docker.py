"""The Dockerfile: hadolint finds nothing; it installs what is pinned, does not run as root; its health check works.

And docs/docker.md, followed: podman builds the image on a Debian that stands for the one of Docker's registry.
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

import machine
import pages
import pytest
from reader import Reader

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


PAGE = pages.ROOT / "docs/docker.md"
CONTAINERS = ("feed-server", "feed-pipeline", "feed-trainer", "feed-tracker")


def healthy(engine, name):
    try:
        engine.run("healthcheck", "run", name)
    except AssertionError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.xdist_group("machine")  # one at a time: gigabytes of memory
@pytest.mark.skipif(bool(machine.MISSING), reason=machine.REASON)
def test_the_page_and_what_it_leads_to(tmp_path):
    reader = Reader(tmp_path / "reader", stays={}, longest_s=900)
    machine.copy_of_checkout(reader.here)
    with machine.engine(tmp_path / "engine", reader.variables["HEADRACE__SERVE__PORT"]) as engine:
        reader.machine = engine
        reader.follow(pages.blocks(PAGE))
        assert reader.ran == pages.shell_commands([PAGE])

        machine.awaited(lambda: all(healthy(engine, name) for name in CONTAINERS), "all are healthy")

        def served():
            said = json.loads(engine.run("exec", "feed-server", "headrace", "status", "--json"))
            return next(beat["info"]["version"] for beat in said["processes"] if beat["role"] == "server")

        machine.awaited(lambda: served() > 0, "what was learned is served")
        assert engine.run("exec", "feed-server", "id", "--user").strip() == "10001"
        engine.run("stop", "feed-trainer")
        assert not healthy(engine, "feed-trainer")
        assert healthy(engine, "feed-server")
