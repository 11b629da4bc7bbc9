"""A reader who does what a page says, in a folder of their own.

    commands            run one after the other by bash; directory and variables carry over, as in one terminal
    commands that stay  (`headrace up`) started, awaited by what they print or by their heartbeats, and stopped with
                        Ctrl-C before the same command starts again, or at the end of the page
    python              run as a script
    toml                laid over the settings in the folder, loaded, and kept for what follows
    json, yaml, ini     parsed; sql: parsed by SQLite
    text                must be in what the commands before it print: words in their order, any number for a number

Ports that a page names are changed for free ones, so that nothing else here is met. What changes a machine
(`MACHINE`) is done in one of its own (machine.py), and nowhere else. What is not done: the list of the test, and tools
that are not installed (`WHERE_PRESENT`).
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

import duckdb
import yaml
from pages import PRINTED, SHELLS, Block, Command, commands, name
from tools import which

from headrace import config
from headrace.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

LONGEST_S: Final = 240.0
READY_S: Final = 150.0
STOP_S: Final = 30.0

STAYS: Final[dict[str, str | tuple[str, ...]]] = {  # ends only when told to: what it prints, or who lives, once ready
    r"headrace up\b(?!.*--seconds)": ("server", "pipeline", "trainer"),
    r"headrace demo\b(?!.*--seconds)": r"first trained version",
    r"headrace serve\b": r"\nversion \d+|waiting for a first version",
    r"headrace pipeline run\b(?!.*(--once|--drain))": ("pipeline",),
    r"headrace train\b.*--watch": ("trainer",),
    r"headrace track\b(?!.*--once)": ("tracker",),
    r"headrace status\b.*--watch": r"\S",
    r"headrace ui\b": r"http://\S+/#/experiments",
    r"mlflow (ui|server)\b": r"Application startup complete|Listening at",
    r"prometheus\b": r"Server is ready",
}

MACHINE: Final = {  # commands that change it, or reach others
    *("docker", "docker-compose", "podman", "kubectl", "helm"),
    *("sudo", "runuser", "systemctl", "journalctl", "useradd", "apt", "apt-get"),
    *("git", "pip", "uv", "ssh", "scp", "rsync"),
}
WHERE_PRESENT: Final = (
    "promtool",
    "prometheus",
    "grpcurl",
    "curl",
    "jq",
    "duckdb",
    "sqlite3",
    "aws",
    "gsutil",
    "watch",
)
SYSTEM: Final = re.compile(r"(?<![\w.])/(etc|usr|opt|var|srv|root|home|lib|run)/")
PORT: Final = re.compile(r"((?:localhost|127\.0\.0\.1|\[::1\]):|--(?:[\w.-]*-)?port[ =]|port = |PORT=)(\d{4,5})\b")

SCRIPT: Final = """\
set -aeo pipefail
{text}
case $? in 0) ;; *) exit $? ;; esac
set +a
pwd > "{kept}/at"
env -0 > "{kept}/variables"
"""


class Wrong(AssertionError):
    """A page says something that is not so. The text names page and line, and shows what was printed."""

    def __init__(self, page: Path, line: int, what: str, printed: str = "") -> None:
        super().__init__(f"{name(page)}:{line}: {what}\n{printed[-4_000:]}")


@dataclass
class Staying:
    """A command that runs beside the following ones. kind: the pattern in `STAYS`."""

    command: Command
    kind: str
    process: subprocess.Popen[bytes]
    out: Path

    def printed(self) -> str:
        return self.out.read_text(errors="replace")

    def stop(self) -> None:
        """As Ctrl-C in its terminal."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self.wrong(f"does not end within {STOP_S:.0f} s of Ctrl-C") from None
        if code not in (0, 130, -signal.SIGINT):
            raise self.wrong(f"ended with exit code {code}")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wrong(self, what: str) -> Wrong:
        return Wrong(self.command.page, self.command.line, f"`{self.command.text}` {what}", self.printed())


class Machine(Protocol):
    """One that a page may change. variables: what its commands need in their environment."""

    @property
    def variables(self) -> Mapping[str, str]: ...

    def words(self, at: Path) -> list[str]:
        """What a command begins with to run there, in this directory."""
        ...


class Reader:
    """Follows pages in `folder`/here. elsewhere: how commands begin that another test runs; stays: like `STAYS`.

    machine: that of the reader alone; without it, a page that changes the machine is Wrong. `ran` and `left_out`, with
    the reason, are the commands that it met; `variables` name the ports that it was given.
    """

    def __init__(
        self,
        folder: Path,
        elsewhere: Collection[str] = (),
        *,
        stays: Mapping[str, str | tuple[str, ...]] = MappingProxyType(STAYS),
        machine: Machine | None = None,
        longest_s: float = LONGEST_S,
    ) -> None:
        self.folder, self.elsewhere, self.stays = folder, elsewhere, stays
        self.machine, self.longest_s = machine, longest_s
        self.ran: list[Command] = []
        self.left_out: list[tuple[Command, str]] = []
        self._at = folder / "here"
        self._at.mkdir(parents=True, exist_ok=True)
        self._ports: dict[int, int] = {}
        self._staying: list[Staying] = []
        defaults = {"HEADRACE__SERVE__PORT": 8500, "MLFLOW_PORT": 5000}
        self.variables = {key: str(self._port(port)) for key, port in defaults.items()}
        self._environment = _environment(folder) | self.variables
        self._kinds: Mapping[str, Callable[[Block], None]] = {
            **dict.fromkeys(("python", "py"), self._python),
            "toml": self._toml,
            "json": lambda block: json.loads(block.text),
            "jsonl": lambda block: [json.loads(line) for line in block.text.splitlines()],
            **dict.fromkeys(("yaml", "yml"), lambda block: list(yaml.safe_load_all(block.text))),
            "ini": lambda block: configparser.RawConfigParser(strict=False).read_string(block.text),
            "sql": _sql,
            **dict.fromkeys((*PRINTED, "proto", "diff", "http", "mermaid", "dockerfile"), lambda block: None),
        }

    @property
    def here(self) -> Path:
        """Where the reader is."""
        return self._at

    def follow(self, blocks: Sequence[Block]) -> None:
        """Does what the blocks of one page say; Wrong."""
        try:
            printed = ""
            for block in blocks:
                if block.language in SHELLS:
                    printed = "".join(self._run(command) for command in commands(block))
                    continue
                if block.language in PRINTED and block.follows and printed:
                    compare(block.text, printed, block.page, block.line)
                self._read(block)
                printed = ""
            while self._staying:
                self._staying.pop().stop()
        finally:
            for one in self._staying:
                one.kill()

    def _read(self, block: Block) -> None:
        if block.language not in self._kinds:
            raise Wrong(block.page, block.line, f"nobody knows how to try a block of '{block.language}'")
        try:
            self._kinds[block.language](block)
        except (ValueError, SettingsError, duckdb.Error, yaml.YAMLError, configparser.Error) as error:
            hint = f"\nfix: {error.hint}" if isinstance(error, SettingsError) else ""
            raise Wrong(block.page, block.line, f"{type(error).__name__}: {error}{hint}", block.text) from error

    def _run(self, command: Command) -> str:
        """What it printed; Wrong unless it ended with 0, or became ready."""
        if reason := self._not_here(command):
            self.left_out.append((command, reason))
            return ""
        self.ran.append(command)
        kind = next((kind for kind in self.stays if re.search(rf"(^|\s){kind}", command.text.partition("#")[0])), None)
        if kind is not None:
            return self._start(command, kind)
        code, printed = self._bash(command.text)
        if code != 0:
            others = "".join(f"\n--- {one.command.text}\n{one.printed()[-1_500:]}" for one in self._staying)
            what = f"does not end within {self.longest_s:.0f} s" if code is None else f"ended with exit code {code}"
            raise Wrong(command.page, command.line, f"`{command.text}` {what}", printed + others)
        if command.printed:
            compare(command.printed, printed, command.page, command.line + 1)
        return printed

    def _not_here(self, command: Command) -> str:
        """Why this is not run; empty: it is."""
        first = Path(command.words[0]).name if command.words else ""
        if any(command.text.startswith(one) for one in self.elsewhere):
            return "another test runs it"
        if first in WHERE_PRESENT and which(first) is None:
            return f"{first} is not installed"
        if self.machine is None and (first in MACHINE or SYSTEM.search(command.text)):
            raise Wrong(
                command.page, command.line, f"`{command.text}` changes the machine, or reaches out of its folder"
            )
        return ""

    def _bash(self, text: str) -> tuple[int | None, str]:
        """(exit code, what it printed); None: it takes too long. Directory and variables are kept."""
        kept = self.folder / "kept"
        kept.mkdir(exist_ok=True)
        out = self.folder / "out"
        process = self._begun(SCRIPT.format(text=self._changed(text), kept=kept), out)
        try:
            code: int | None = process.wait(self.longest_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
        if code == 0:
            self._at = Path((kept / "at").read_text().rstrip("\n"))
            pairs = (one.partition("=") for one in (kept / "variables").read_text().split("\0") if one)
            self._environment = {key: value for key, _, value in pairs}
        return code, out.read_text(errors="replace")

    def _begun(self, script: str, out: Path) -> subprocess.Popen[bytes]:
        with out.open("wb") as file:
            return subprocess.Popen(
                [*(self.machine.words(self._at) if self.machine else ()), "bash", "-c", script],
                cwd=self._at if self.machine is None else self.folder,
                env=self._environment | (self.machine.variables if self.machine else {}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def _start(self, command: Command, kind: str) -> str:
        for one in [one for one in self._staying if one.kind == kind]:  # Ctrl-C, and again
            self._staying.remove(one)
            one.stop()
        out = self.folder / f"staying-{command.line}"
        text = self._changed(re.sub(r"&\s*(#.*)?$", "", command.text))
        process = self._begun(text, out)
        one = Staying(command, kind, process, out)
        self._staying.append(one)
        until_s = time.monotonic() + READY_S
        while not self._ready(one):
            if process.poll() is not None:
                raise one.wrong(f"ended with exit code {process.returncode} before it was ready")
            if time.monotonic() > until_s:
                raise one.wrong(f"is not ready after {READY_S:.0f} s: waited for {self.stays[kind]!r}")
            time.sleep(0.2)
        return one.printed()

    def _ready(self, one: Staying) -> bool:
        wanted = self.stays[one.kind]
        if isinstance(wanted, str):
            return bool(re.search(wanted, one.printed()))
        of = re.search(r"(-c|--config)[ =]\S+", one.command.text)
        words = ["headrace", "status", "--json", *(of[0].split() if of else ())]
        done = subprocess.run(
            words, cwd=self._at, env=self._environment, capture_output=True, text=True, check=False, timeout=LONGEST_S
        )
        living = {beat["role"] for beat in json.loads(done.stdout).get("processes", ()) if beat["living"]}
        return living.issuperset(wanted)

    def _python(self, block: Block) -> None:
        file = self.folder / f"line-{block.line}.py"
        file.write_text(block.text)
        code, printed = self._bash(f'python "{file}"')
        if code != 0:
            raise Wrong(block.page, block.line, f"ended with exit code {code}", printed)

    def _toml(self, block: Block) -> None:
        """Loads the settings with these written into them, and keeps them unless they are of another place."""
        file = self._at / "headrace.toml"
        told = tomllib.loads(self._changed(block.text))
        merged = settings_with(told, tomllib.loads(file.read_text()) if file.exists() else {})
        text = toml_of(merged)
        config.parse(text, file=f"{name(block.page)}:{block.line}", folder=self._at)
        if "://" not in merged["loop"].get("root", ""):
            file.write_text(text)
        if "port" in told.get("serve", {}):
            self._environment.pop("HEADRACE__SERVE__PORT", None)

    def _changed(self, text: str) -> str:
        """The text with free ports; as it is on a machine of one's own."""
        return text if self.machine else PORT.sub(lambda match: match[1] + str(self._port(int(match[2]))), text)

    def _port(self, number: int) -> int:
        """A free one that stands for this one; neighbours stay neighbours, as the five of [observe] must."""
        first = number - number % 10
        while first not in self._ports:
            free = _free_port()
            if all(_is_free(free + more) for more in range(10)):
                self._ports[first] = free
        return self._ports[first] + number % 10


def compare(shown: str, printed: str, page: Path, line: int) -> None:
    """Wrong unless the lines shown are printed, in this order; any number stands for a number, … for anything."""
    rest = printed.splitlines()
    for number, wanted in enumerate(shown.splitlines()):
        words = wanted.split()
        if not words:
            continue
        pattern = re.compile(r"\s+".join(_like(word) for word in words))
        found = next((at for at, one in enumerate(rest) if pattern.search(one)), None)
        if found is None:
            raise Wrong(page, line + number, f"not printed: {wanted}", printed)
        rest = rest[found + 1 :]


def _like(word: str) -> str:
    if word in ("…", "..."):
        return ".*"
    return r"\S+" if re.search(r"\d", word) else re.escape(word).replace("…", ".*")


def settings_with(told: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of a page over them; a page that shows streams shows the whole file."""
    if "streams" in told:
        return dict(told)
    merged = {section: dict(keys) for section, keys in base.items()}
    for section, keys in told.items():
        merged[section] = {**merged.get(section, {}), **keys}
    return merged


def toml_of(settings: Mapping[str, Any]) -> str:
    """As TOML, each section with its values on one line.

    >>> print(toml_of({"features": {"user": {"kind": "id"}}, "train": {"every_s": 60}}))
    [features]
    "user" = { "kind" = "id" }
    [train]
    "every_s" = 60
    """
    lines = []
    for section, keys in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{json.dumps(key)} = {_value(value)}" for key, value in keys.items()]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)


def _sql(block: Block) -> None:
    """A syntax error, or nothing: tables are not looked up."""
    duckdb.extract_statements(block.text)


def _environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HEADRACE", "PYTEST", "COV"))}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return kept | {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "120",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(int(probe.getsockname()[1]), 65_500)


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False
