"""The units: systemd knows every word of them, they start commands that exist, and wait as long as a drain takes."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pages
import pytest

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
