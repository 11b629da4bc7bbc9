"""Machines that a page may change: a Debian that boots, with a systemd of its own; an engine for images and containers.

`tests/machine.sh` lays ready what they are made of; `MISSING` says what is not there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

ROOT: Final = Path(__file__).parents[2]
DEBIAN: Final = Path(sys.prefix) / "debian"
CACHE: Final = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache" / "uv"))
BOOT_S: Final = 120.0
MEMORY_BYTES: Final = 12 << 30  # an image of 3 GB, made in two stages
BASES: Final = ("python:3.11-bookworm", "python:3.11-slim-bookworm")  # the Dockerfile's
MISSING: Final = ", ".join(
    [name for name in ("systemd-nspawn", "podman", "runc", "catatonit", "nsenter") if shutil.which(name) is None]
    + [str(DEBIAN)] * (not DEBIAN.is_dir())
    + ["root"] * (os.geteuid() != 0)
    + ["16 GiB of memory"] * (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 16 << 30)
)
REASON: Final = f"not here: {MISSING} (make machine)"

INSIDE: Final = (  # the variables of those images
    "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
)
CONTAINERS: Final = """\
[containers]
netns = "host"
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
env = ["HEADRACE__SERVE__PORT={port}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""
STORAGE: Final = """\
[storage]
driver = "overlay"
runroot = "{folder}/run"
graphroot = "{folder}/graph"
"""


@dataclass(frozen=True)
class Booted:
    """A machine that runs; pid: its first process, systemd. It shares the network with this one, and nothing else."""

    pid: int

    @property
    def variables(self) -> Mapping[str, str]:
        """What is fetched for others serves it, too."""
        return {"UV_CACHE_DIR": str(CACHE)}

    def words(self, at: Path) -> list[str]:
        spaces = ("--mount", "--uts", "--ipc", "--pid", "--cgroup")
        return ["nsenter", "--target", str(self.pid), *spaces, f"--wdns={at}"]

    def run(self, text: str, at: Path = Path("/")) -> str:
        """What these commands print, with their errors; an exit code other than 0 raises AssertionError."""
        return said([*self.words(at), "bash", "-c", text])


@contextlib.contextmanager
def booted(folder: Path, shared: Path, variables: Mapping[str, str]) -> Iterator[Booted]:
    """A copy of the Debian in `folder`, which has `shared` at the same place; variables: those of all its services."""
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(in_memory(folder / "machine"))
        said(["cp", "--archive", f"{DEBIAN}/.", str(root)])
        pairs = " ".join(f"{key}={value}" for key, value in variables.items())
        (root / "etc/systemd/system.conf.d").mkdir(parents=True)
        (root / "etc/systemd/system.conf.d/variables.conf").write_text(f"[Manager]\nDefaultEnvironment={pairs}\n")
        CACHE.mkdir(parents=True, exist_ok=True)
        words = ["systemd-nspawn", "--quiet", "--boot", f"--directory={root}", f"--bind={shared}", f"--bind={CACHE}"]
        first = stack.enter_context(_spawned([*words, "--register=no", "--keep-unit", "--console=pipe"], folder))
        machine = Booted(first)
        is_up = [*machine.words(Path("/")), "systemctl", "is-system-running"]
        awaited(lambda: _printed(is_up) in ("running", "degraded"), "systemd is up")
        yield machine


@contextlib.contextmanager
def _spawned(words: list[str], folder: Path) -> Iterator[int]:
    """The first process of a machine, which ends as by a power cut: all in there end with it."""
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
        )
    first = None
    try:
        first = awaited(lambda: _first(process.pid), "the machine starts")
        yield first
    finally:
        os.kill(first or process.pid, signal.SIGKILL)
        process.wait(BOOT_S)


@contextlib.contextmanager
def in_memory(folder: Path) -> Iterator[Path]:
    """A folder whose files are in memory: gigabytes of small ones are gone at once when it ends."""
    folder.mkdir()
    said(["mount", "--types", "tmpfs", "--options", f"size={MEMORY_BYTES}", "headrace-tests", str(folder)])
    try:
        yield folder
    finally:
        said(["umount", "--lazy", str(folder)])


@dataclass(frozen=True)
class Engine:
    """Podman, with images and containers of its own; `docker` is its name there, too.

    What Docker's registry has is not needed: the images that the Dockerfile begins from are made of the Debian.
    """

    variables: Mapping[str, str]

    def words(self, at: Path) -> list[str]:
        return ["env", f"--chdir={at}"]

    def run(self, *words: str) -> str:
        """What podman prints; an exit code other than 0 raises AssertionError."""
        return said(["podman", *words], os.environ | self.variables)


@contextlib.contextmanager
def engine(folder: Path, port: str) -> Iterator[Engine]:
    """One that has the images which the Dockerfile begins from; port: where `headrace serve` listens in containers.

    What runs in it ends with it, and is removed.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(in_memory(folder))
        docker = folder / "bin" / "docker"
        docker.parent.mkdir()
        docker.write_text('#!/bin/sh\nexec podman "$@"\n')
        docker.chmod(0o755)
        for name, text in {"containers.conf": CONTAINERS, "storage.conf": STORAGE}.items():
            (folder / name).write_text(text.format(port=port, folder=folder))
        variables = {
            "PATH": f"{docker.parent}{os.pathsep}{os.environ['PATH']}",
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "BUILDAH_FORMAT": "docker",  # with a health check
            "BUILDAH_LAYERS": "false",  # no step is kept for another build
            "TMPDIR": str(folder.parent),  # of one file for each layer
        }
        one = Engine(variables)
        stack.callback(one.run, "rm", "--all", "--force", "--time", "10")
        tree = folder / "debian.tar"
        said(["tar", "--create", f"--file={tree}", f"--directory={DEBIAN}", "."])
        first, *others = (f"docker.io/library/{base}" for base in BASES)
        one.run("import", *(word for line in INSIDE for word in ("--change", line)), str(tree), first)
        for other in others:
            one.run("tag", first, other)
        tree.unlink()
        yield one


def copy_of_checkout(folder: Path) -> None:
    """What git has of it, as it is now: what a user's checkout holds."""
    files = said(["git", "-C", str(ROOT), "ls-files", "-z"]).split("\0")
    for file in (name for name in files if (ROOT / name).is_file()):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)


def said(words: list[str], environment: Mapping[str, str] | None = None) -> str:
    """What a command prints; an exit code other than 0 raises AssertionError with it."""
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: exit code {done.returncode}\n{done.stdout[-4_000:]}{done.stderr[-4_000:]}"
    return done.stdout + done.stderr


def awaited(found: Callable[[], T], what: str, within_s: float = BOOT_S) -> T:
    """The first answer that is not empty; AssertionError if there is none in time."""
    until_s = time.monotonic() + within_s
    while not (answer := found()):
        assert time.monotonic() < until_s, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.2)
    return answer


def _first(spawn: int) -> int | None:
    """The process that systemd-nspawn started: pid 1 in there."""
    children = Path(f"/proc/{spawn}/task/{spawn}/children")
    of = children.read_text().split() if children.exists() else []
    return int(of[0]) if of else None


def _printed(words: list[str]) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
