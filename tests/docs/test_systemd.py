"""The units: systemd knows every word of them, they start commands that exist, and wait as long as a drain takes.

And docs/deploy.md, followed on a Debian that was booted for it: all run under systemd, and are started again.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import machine
import pages
import pytest
from reader import Reader

from headrace.cli import observe, terminal
from paramserver import server
from training import tracking

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
COMMON = "headrace-.service.d/common.conf"
BINARY = "/opt/headrace/bin/headrace"
installed = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def settings_of(*files):
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(files)
    return parser


def unit(role):
    return settings_of(FOLDER / COMMON, FOLDER / f"headrace-{role}@.service")


@pytest.fixture
def units(tmp_path):
    """A copy whose command is one that is here: systemd looks for it."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    for file in tmp_path.glob("*.service"):
        text = file.read_text()
        assert BINARY in text
        file.write_text(text.replace(BINARY, "/bin/true"))
    return tmp_path


def verified(folder, name):
    words = ["systemd-analyze", "verify", "--man=no", str(folder / name)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@installed
@pytest.mark.parametrize("name", [*(file.name for file in UNITS), "headrace@.target"])
def test_systemd_takes_them(units, name):
    assert verified(units, name.replace("@", "@feed")) == (0, "")


@installed
@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        (COMMON, "ProtectHome=", "ProtectHom=", "Unknown key 'ProtectHom'"),
        (COMMON, "Restart=on-failure", "Restart=on-error", "Failed to parse service restart specifier"),
        ("headrace-server@.service", "MemoryMax=2G", "MemoryMax=2 lots", "Invalid memory limit"),
        ("headrace-server@.service", "/bin/true", "/bin/not-here", "is not executable"),
    ],
)
def test_what_systemd_does_not_know_is_noticed(units, file, old, new, fault):
    text = (units / file).read_text()
    assert old in text
    (units / file).write_text(text.replace(old, new))
    assert fault in verified(units, "headrace-server@feed.service")[1]


def exposure(folder, name):
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(folder / name)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)[1])


@installed
def test_they_may_do_little_and_twin_without_the_common_part(units):
    for file in UNITS:
        assert exposure(units, file.name) <= 2.0
    (units / COMMON).unlink()
    assert exposure(units, UNITS[0].name) > 8.0


def test_every_role_that_up_would_start_has_a_unit_and_the_target_wants_it():
    roles = set(observe.ROLES) - {"up"}
    assert {file.name for file in UNITS} == {f"headrace-{role}@.service" for role in roles}
    wanted = (FOLDER / "headrace@.target").read_text()
    for role in roles:
        assert f"headrace-{role}@%i.service" in wanted
        assert unit(role)["Unit"]["PartOf"] == "headrace@%i.target"


@pytest.mark.parametrize("role", sorted(set(observe.ROLES) - {"up"}))
def test_the_command_exists_and_is_not_started_again_after_a_usage_error(role):
    service = unit(role)["Service"]
    pages.parse(shlex.split(service["ExecStart"])[1:])
    assert int(service["RestartPreventExitStatus"]) == terminal.Code.USAGE
    assert service["ReadWritePaths"] == service["WorkingDirectory"]


def test_it_is_waited_for_as_long_as_a_drain_takes():
    drain_s = server.GRACE_S + server.LINGER_S + server.LAST_S
    assert float(unit("server")["Service"]["TimeoutStopSec"]) >= 2 * drain_s
    assert float(unit("tracker")["Service"]["TimeoutStopSec"]) >= 2 * tracking.GRACE_S


FEED = Path("/var/lib/headrace/feed")
PAGE = pages.ROOT / "docs/deploy.md"
ROLES = ("server", "pipeline", "trainer", "tracker")


class Feed:
    """The loop of the page, on the machine on which it was followed."""

    def __init__(self, debian):
        self.run = debian.run

    def status(self):
        text = self.run("runuser -u headrace -- /opt/headrace/bin/headrace status --json", FEED)
        return json.loads(text)

    def living(self):
        """The process of each role that lives."""
        return {beat["role"]: beat["pid"] for beat in self.status()["processes"] if beat["living"]}

    def served(self):
        """The version with which the server answers."""
        return next(beat["info"]["version"] for beat in self.status()["processes"] if beat["role"] == "server")

    def says(self, role, what):
        """What systemd knows of a unit."""
        return self.run(f"systemctl show --property {what} --value headrace-{role}@feed.service").strip()

    def states(self):
        return {self.says(role, "ActiveState") for role in ROLES}


@pytest.fixture
def feed(tmp_path):
    """docs/deploy.md was followed there, in a copy of this checkout."""
    reader = Reader(tmp_path / "reader", stays={})
    machine.copy_of_checkout(reader.here)
    variables = {"HEADRACE__SERVE__PORT": reader.variables["HEADRACE__SERVE__PORT"]}
    with machine.booted(tmp_path, reader.folder, variables) as debian:
        reader.machine = debian
        reader.follow(pages.blocks(PAGE))
        assert reader.ran == pages.shell_commands([PAGE])
        yield Feed(debian)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.xdist_group("machine")  # one at a time: gigabytes of memory
@pytest.mark.skipif(bool(machine.MISSING), reason=machine.REASON)
def test_the_page_and_what_it_leads_to(feed):
    machine.awaited(lambda: feed.states() == {"inactive"}, "the last command of the page: all stop")

    feed.run("systemctl unmask headrace-tracker@feed.service && systemctl start headrace@feed.target")
    machine.awaited(lambda: set(ROLES) <= set(feed.living()), "all four run")
    machine.awaited(lambda: feed.served() > 0, "what was learned is served")
    assert feed.says("trainer", "MemoryMax") == str(6 << 30)

    killed = int(feed.says("trainer", "MainPID"))
    feed.run(f"kill -KILL {killed}")
    machine.awaited(lambda: feed.living().get("trainer", killed) != killed, "the trainer is started again")
    assert feed.says("server", "ActiveState") == "active"

    feed.run("cp headrace.toml kept.toml && echo 'no = settings' >> headrace.toml", FEED)
    feed.run("systemctl restart headrace-pipeline@feed.service || true")
    machine.awaited(lambda: feed.says("pipeline", "ActiveState") == "failed", "wrong settings are not tried again")
    assert feed.says("pipeline", "NRestarts") == "0"
    assert "config.invalid" in feed.run("journalctl --unit headrace-pipeline@feed.service")

    feed.run("cp kept.toml headrace.toml && systemctl stop headrace@feed.target", FEED)
    machine.awaited(lambda: feed.states() <= {"inactive", "failed"}, "all end")
    assert feed.run("find / -xdev -user headrace -not -path '/var/lib/headrace*' -not -path '/proc/*'") == ""
