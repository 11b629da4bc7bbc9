"""A real Prometheus with our configuration: it scrapes all five processes of `up`, evaluates each rule, and alerts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import machine
import pages
import pytest
from tools import which

FOLDER = pages.ROOT / "deploy" / "prometheus"
STAGES = {"server", "pipeline", "trainer", "tracker", "up"}


def free_ports(number):
    """The first of that many free ones in a row."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1]
        with contextlib.suppress(OSError, OverflowError), contextlib.ExitStack() as stack:
            for port in range(first, first + number):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


@contextlib.contextmanager
def running(words, folder, **variables):
    """A process that is told to end as by Ctrl-C, and does."""
    with (folder / f"{Path(words[0]).name}.said").open("wb") as out:
        process = subprocess.Popen(words, cwd=folder, env=os.environ | variables, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture
def asked(ran, tmp_path):
    """Asks a Prometheus that watches a loop on events of an hour ago: it scrapes each second, and waits for one."""
    if which("prometheus") is None:
        pytest.skip("prometheus is not installed (make machine)")
    loop, watch = tmp_path / "loop", tmp_path / "watch"
    shutil.copytree(ran, loop)
    shutil.copytree(FOLDER, watch)
    first = free_ports(7)
    settings = watch / "prometheus.yml"
    text = settings.read_text().replace(" 5s", " 1s")
    for offset in range(5):
        text = text.replace(str(9464 + offset), str(first + offset))
    settings.write_text(text)
    rules = watch / "headrace.rules.yml"
    rules.write_text(rules.read_text().replace("for: 1m", "for: 1s"))

    def ask(path, **query):
        url = f"http://127.0.0.1:{first + 5}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]
        return {}

    variables = {"HEADRACE__OBSERVE__PORT": str(first), "HEADRACE__SERVE__PORT": str(first + 6)}
    words = [which("prometheus"), "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{first + 5}"]
    with running([Path(sys.executable).parent / "headrace", "up"], loop, **variables), running(words, watch):
        yield ask


def by_stage(asked, query):
    """The value of each process."""
    found = asked("query", query=query).get("result", ())
    return {one["metric"]["stage"]: float(one["value"][1]) for one in found}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_all_are_scraped_every_rule_is_evaluated_and_what_is_old_alerts(asked):
    machine.awaited(lambda: by_stage(asked, "up") == dict.fromkeys(STAGES, 1.0), "all five are scraped")
    machine.awaited(lambda: by_stage(asked, "headrace_ready") == dict.fromkeys(STAGES, 1.0), "all five are ready")

    def rules():
        return [rule for group in asked("rules").get("groups", ()) for rule in group["rules"]]

    machine.awaited(lambda: {rule["health"] for rule in rules()} == {"ok"}, "every rule is evaluated")
    assert len(rules()) == (FOLDER / "headrace.rules.yml").read_text().count("- alert:")

    def firing():
        return {one["labels"]["alertname"] for one in asked("alerts")["alerts"] if one["state"] == "firing"}

    machine.awaited(lambda: "HeadraceStale" in firing(), "what is served is an hour old")
    machine.awaited(lambda: "HeadraceDown" not in firing(), "while they began, some were down")
