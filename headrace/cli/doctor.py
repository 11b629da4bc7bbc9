"""`headrace doctor`: is everything here that is needed? One line a check, and a fix where it fails.

Nothing heavy is imported: libraries are looked up by their metadata, ports by binding them, sources by their files.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import clock
from headrace.address import shown
from headrace.cli import options, terminal
from headrace.cli.reason import not_whole
from headrace.errors import HeadraceError
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer

    from headrace.config import Settings
    from headrace.loop import Loop
    from headrace.status import Heartbeat

FREE_BYTES = 2_000_000_000
_AHEAD_US = 60 * clock.SECOND_US


@dataclass(frozen=True)
class Check:
    """One line of the report. `fix` is empty where all is well."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("doctor", epilog=terminal.examples("headrace doctor", "headrace doctor --json -c feed.toml"))(doctor)


def doctor(*, as_json: options.Json = False, config: options.Config = options.DEFAULT) -> int:
    """Check that all that is needed is here.

    Looks at this machine, the settings, the loop and its sources. Exit code 4 if something needs fixing.
    """
    from headrace.arrow import without_pandas

    without_pandas()
    checks = list(_checks(config))
    if as_json:
        terminal.show_json({"checks": [asdict(check) for check in checks], "ok": all(check.ok for check in checks)})
    else:
        for check in checks:
            terminal.show(f"{'ok ' if check.ok else 'BAD'}  {check.name:<12} {check.found}")
            if not check.ok:
                terminal.show(f"     fix: {check.fix}")
    return terminal.Code.OK if all(check.ok for check in checks) else terminal.Code.UNHEALTHY


def _checks(config: Path) -> Iterator[Check]:
    yield _python()
    yield from _libraries()
    yield Check("engine", True, "DirectRunner = Beam's in-process FnApiRunner (no download)")
    yield _temporary_space()
    if not config.exists():
        fix = "run `headrace init --from YOUR_EVENTS`, or name a file with `-c FILE`"
        yield Check("settings", False, f"there is no {config}", fix)
        return
    try:
        settings = options.load(config)
        settings.schema()
    except HeadraceError as error:
        yield _failed("settings", error)
        return
    yield Check("settings", True, str(config))
    yield from _sources(settings)
    yield from _loop(settings)
    servers = _servers(settings)
    yield _port(settings.serve.host, settings.serve.port, servers)
    yield from _served(settings, servers)
    yield _mlflow(settings.track.uri)


def _failed(name: str, error: HeadraceError) -> Check:
    return Check(name, False, error.message, error.hint or "see the message")


def _python() -> Check:
    found = ".".join(str(part) for part in sys.version_info[:3])
    ok = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Check("python", ok, found, "" if ok else "install Python 3.11, 3.12 or 3.13 and headrace into it")


def _libraries() -> Iterator[Check]:
    try:
        wanted = metadata.requires("headrace") or []
    except metadata.PackageNotFoundError:
        yield Check("headrace", False, "runs from a checkout, not installed", "run `pip install -e .` there")
        return
    good = []
    for text in wanted:
        name, _, condition = (part.strip() for part in text.partition(";"))
        if condition:
            continue
        distribution, bounds = _split(name)
        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            yield Check("library", False, f"{distribution} is missing", f"pip install '{name}'")
            continue
        if within(version, bounds):
            good.append(distribution)
        else:
            yield Check("library", False, f"{distribution} {version} is not {bounds}", f"pip install '{name}'")
    yield Check("libraries", bool(good), f"{len(good)} of the required ones are here in versions that fit")


def _split(requirement: str) -> tuple[str, str]:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return match[0], re.sub(r"^\[[^]]*\]", "", requirement[match.end() :]).strip(" ()")


def within(version: str, bounds: str) -> bool:
    """Whether a version keeps its bounds (`>=`, `<`, `==`; anything else counts as kept).

    >>> within("2.77.0", ">=2.77,<2.78"), within("3.0", ">=2,<3")
    (True, False)
    """
    have = _parts(version)
    for bound in filter(None, bounds.split(",")):
        match = re.match(r"\s*(>=|<|==)\s*([\d.]+)", bound)
        if match is None:
            continue
        limit = _parts(match[2])
        kept = {">=": have >= limit, "<": have < limit, "==": have[: len(limit)] == limit}[match[1]]
        if not kept:
            return False
    return True


def _parts(version: str) -> tuple[int, ...]:
    found = [int(part) for part in re.findall(r"\d+", version.split("+", maxsplit=1)[0])][:3]
    return tuple(found + [0] * (3 - len(found)))


def _temporary_space() -> Check:
    return _space("temporary", Path(tempfile.gettempdir()))


def _space(name: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{folder}: {free / 1e9:,.1f} GB free"
    fix = "" if free >= FREE_BYTES else "free some space: at 0 the loop stops (and loses nothing)"
    return Check(name, free >= FREE_BYTES, found, fix)


def _sources(settings: Settings) -> Iterator[Check]:
    from headrace.cli.sources import places

    for stream, place in places(settings).items():
        name = f"source {stream}"
        if place is None:
            yield Check(name, True, "not a local file: reached when the pipeline starts")
        elif place.exists():
            yield Check(name, True, str(place))
        else:
            yield Check(name, False, f"there is no {place}", f"correct `source` in [streams.{stream}]")


def _loop(settings: Settings) -> Iterator[Check]:
    root = settings.loop.root
    local = root.removeprefix("file://") if "://" not in root or root.startswith("file://") else None
    if local is not None:
        folder = Path(local)
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            found = f"[loop] root: {existing} cannot be written: {error.strerror}"
            yield Check(
                "root", False, found, options.ROOT_HINTS.get(error.errno or 0, "choose another `root` in [loop]")
            )
            return
        yield _space("root", existing)
        if not (folder / "loop.json").exists():
            yield Check("logs", True, "no loop yet: the first `headrace pipeline run` makes it")
            return
    try:
        loop = options.open_loop(settings)
        heads = {"shard": loop.shard_log().head(), "version": loop.version_log().head()}
    except HeadraceError as error:
        yield _failed("logs", error)
        return
    found = ", ".join(f"{name} record {head.seq}" if head else f"no {name} yet" for name, head in heads.items())
    yield Check("logs", True, found)
    times = [head.body.get("committed_at_us", head.body.get("created_at_us", 0)) for head in heads.values() if head]
    newest_us = max(times, default=0)
    if newest_us > clock.now_us() + _AHEAD_US:
        found = f"the newest record is from {clock.iso(newest_us)}: ahead of this clock"
        yield Check("clock", False, found, "set the clock (NTP)")
    yield _next_tick(loop, settings, read=heads["shard"] is not None)


def _next_tick(loop: Loop, settings: Settings, *, read: bool) -> Check:
    """What would stop the pipeline: sources that are not what was read from them, settings that do not fit."""
    from pipelines.pipeline import Pipeline

    try:
        planned = Pipeline(loop, settings).plan()
    except HeadraceError as error:
        return _failed("pipeline", error)
    what = "the sources are" + (" as they were read" if read else " there")
    what += f"; about {planned.size:,} bytes are new" if planned.size else ""
    torn = [one.end["file"] for one in planned.ranges if isinstance(one.end, dict) and "torn" in one.end]
    for file in sorted(set(torn)):
        what += f"; {file} cannot be read to its end: see `headrace quarantine list`"
    for file in sorted(set(planned.awaited.values())):
        what += f"; {not_whole(file)}"
    return Check("pipeline", True, what)


def _servers(settings: Settings) -> list[Heartbeat]:
    """The living servers of this loop."""
    from headrace import status

    try:
        found = status.heartbeats(options.open_loop(settings).store)
    except HeadraceError:
        return []
    return [beat for beat in found if beat.role == "server" and beat.living(clock.now_us())]


def _served(settings: Settings, servers: list[Heartbeat]) -> Iterator[Check]:
    """Whether each server answers from the newest version."""
    try:
        head = options.open_loop(settings).version_log().head() if servers else None
    except HeadraceError:
        return
    newest = None if head is None else VersionRecord.from_entry(head).served
    for server in servers:
        version, problem = server.info.get("version"), server.info.get("problem", "")
        found = f"process {server.pid} serves {'nothing' if version is None else f'version {version}'} of {newest}"
        fix = server.info.get("hint") or "run `headrace log verify --deep`"
        yield Check("server", not problem, f"{found}: {problem}" if problem else found, fix if problem else "")


def _port(host: str, port: int, servers: list[Heartbeat]) -> Check:
    mine = [server.pid for server in servers if server.info.get("address") == f"{host}:{port}"]
    if mine:
        return Check("port", True, f"{host}:{port} is this loop's running server (process {mine[0]})")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            found = f"{host}:{port} is taken ({error.strerror}): by a running `headrace serve`?"
            return Check("port", False, found, "if not: `port` in [serve], or `headrace serve --port N`")
    return Check("port", True, f"{host}:{port} is free")


def _mlflow(uri: str) -> Check:
    if not uri.startswith("sqlite:///"):
        return Check("mlflow", True, f"{shown(uri)}: reached when `headrace track` starts")
    folder = Path(uri.removeprefix("sqlite:///")).absolute().parent
    ok = folder.is_dir() and os.access(folder, os.W_OK)
    fix = "" if ok else f"make {folder} a folder that can be written, or change `uri` in [track]"
    return Check("mlflow", ok, uri, fix)
