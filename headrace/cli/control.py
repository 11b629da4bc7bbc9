"""`headrace rollback`, `pin` and `down`: what an operator says to a running loop."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import time
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from headrace import clock
from headrace.cli import options, terminal
from headrace.errors import Busy, InvalidTarget, NotFound

if TYPE_CHECKING:
    from headrace.loop import Loop

STOP_S = 30.0
SHOWN = 8

Reason = Annotated[str, typer.Option("--reason", help="For the audit trail.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("rollback", epilog=terminal.examples('headrace rollback 17 --reason "clicks of a bot"'))(rollback)
    app.command("pin", epilog=terminal.examples("headrace pin 17", "headrace pin --off"))(pin)
    app.command("down", epilog=terminal.examples("headrace down"))(down)


def rollback(
    version: Annotated[int, typer.Argument(help="The version whose parameters are wanted again.")],
    *,
    reason: Reason = "",
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Go back to an earlier version, as a new version.

    Servers swap at once. The shards learned since are held; the trainer goes on from that version with what comes next.
    """
    from headrace import control
    from headrace.version import VersionRecord

    loop = options.open_loop(options.load(config))
    try:
        entry = control.rollback(loop, version, by=who(), reason=reason, now_us=clock.now_us())
    except (NotFound, InvalidTarget) as refused:
        refused.hint = f"{refused.hint}; {_reachable(loop)}"
        raise
    record = VersionRecord.from_entry(entry)
    held = sum(high - low for low, high in record.held)
    if as_json:
        terminal.show_json({"version": entry.seq, "kind": "rollback", "to": version, "held": record.held})
    else:
        terminal.show(f"version {entry.seq}: the parameters of version {version} again; {held:,} shard records held")
        if record.pinned is not None:
            terminal.say(f"servers stay at version {record.pinned}, which is pinned: `headrace pin --off` ends that")
        terminal.say("`headrace status` shows when servers answer from it")
    return terminal.Code.OK


def pin(
    version: Annotated[int | None, typer.Argument(help="The version to serve, whatever comes after.")] = None,
    *,
    off: Annotated[bool, typer.Option("--off", help="Serve the newest version again.")] = False,
    reason: Reason = "",
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Keep servers at one version while training goes on, or end that."""
    from headrace import control

    if (version is None) != off:
        raise typer.BadParameter("name a version, or --off")
    loop = options.open_loop(options.load(config))
    entry = control.pin(loop, version, by=who(), reason=reason, now_us=clock.now_us())
    if as_json:
        terminal.show_json({"version": entry.seq, "kind": "pin", "to": version})
    elif version is None:
        terminal.show(f"version {entry.seq}: servers follow the newest version again")
    else:
        terminal.show(f"version {entry.seq}: servers stay at version {version} until `headrace pin --off`")
    return terminal.Code.OK


def down(*, config: options.Config = options.DEFAULT) -> int:
    """End a running `headrace up` on this machine, and wait until it has ended."""
    from headrace import status

    loop = options.open_loop(options.load(config))
    now_us = clock.now_us()
    ups = (beat for beat in status.heartbeats(loop.store) if beat.role == "up")
    found = [beat for beat in ups if beat.living(now_us) or beat.silent(now_us)]
    if not found:
        terminal.say("no `headrace up` runs on this root; `headrace status` shows what does")
        return terminal.Code.OK
    beat = found[0]
    if beat.host != socket.gethostname():
        raise Busy(f"`headrace up` runs on {beat.host}", hint=f"run `headrace down` there (process {beat.pid})")
    os.kill(beat.pid, signal.SIGTERM)
    until_s = time.monotonic() + STOP_S
    while time.monotonic() < until_s:
        if not beat.living(clock.now_us(), within_s=float("inf")):
            terminal.say("stopped")
            return terminal.Code.OK
        time.sleep(0.1)
    raise Busy(f"process {beat.pid} did not end within {STOP_S:.0f} s", hint="look at logs/, then end it by its pid")


def who() -> str:
    """Of the audit trail."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _reachable(loop: Loop) -> str:
    from headrace import control

    versions = [str(version) for version in islice(control.reachable(loop), SHOWN)]
    return f"versions that can be gone back to: {', '.join(versions)}" if versions else "no version can be gone back to"
