"""`headrace status`: where the loop stands, read from its logs and heartbeats; nothing is started or asked."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from headrace import clock
from headrace.cli import board, options, resident, terminal
from headrace.cli.reason import reason
from headrace.errors import HeadraceError, NotFound
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headrace.config import Settings
    from headrace.log import Entry, Log
    from headrace.loop import Loop

REFRESH_S: Final = 1.0
LOOKED_AT: Final = 50
"""Shard records that are looked at for rows: more are a backlog, which has some."""
VERSIONS_LOOKED_AT: Final = 200
"""Versions that are looked at for what was decided last: more than a trial goes over."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "status",
        epilog=terminal.examples(
            "headrace status",
            "headrace status --watch                until Ctrl-C",
            "headrace status --json | jq .freshness_s",
        ),
    )(status)


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every second, until Ctrl-C.")] = False,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Show where the loop stands.

    Events, shards, versions, freshness, who is running, and what keeps it from learning.
    """
    settings = options.load(config)
    if watch:
        return _watch(settings, config, as_json=as_json)
    state = state_of(_loop(settings), settings, now_us=clock.now_us())
    if as_json:
        terminal.show_json(state)
    else:
        terminal.show("\n".join(f"{name:<10} {text}".rstrip() for name, text in board.rows_of(state)))
    return terminal.Code.OK


def _loop(settings: Settings) -> Loop | None:
    try:
        return options.open_loop(settings)
    except NotFound:
        return None


def _watch(settings: Settings, config: Path, *, as_json: bool) -> int:
    show = _line if as_json else board.screen()
    with resident.until_stopped(f"headrace status --watch -c {config}") as stop:
        try:
            while not stop():
                show(watched(_loop(settings), settings))
                until_s = time.monotonic() + REFRESH_S
                while not stop() and time.monotonic() < until_s:
                    time.sleep(0.05)
        finally:
            show(None)
    return terminal.Code.OK


def _line(state: dict[str, Any] | None) -> None:
    if state is not None:
        terminal.show_line(state)


def watched(loop: Loop | None, settings: Settings) -> dict[str, Any]:
    """`state_of` for a screen that stays: what cannot be read is a problem that may pass."""
    try:
        return state_of(loop, settings, now_us=clock.now_us())
    except HeadraceError as problem:
        return {"loop": settings.loop.name, "problem": problem.to_json()}


def state_of(loop: Loop | None, settings: Settings, *, now_us: int) -> dict[str, Any]:
    """What `--json` prints. loop: None where nothing has made it yet."""
    from headrace import status as beats

    shards, newest = (loop.shard_log().head(), _newest(loop.version_log())) if loop else (None, [])
    versions = newest[0] if newest else None
    running = [
        {
            "role": beat.role,
            "host": beat.host,
            "pid": beat.pid,
            "at_us": beat.at_us,
            "living": beat.living(now_us),
            "silent": beat.silent(now_us),
            "info": beat.info,
        }
        for beat in (beats.heartbeats(loop.store) if loop else ())
    ]
    watermark_us = _served_until_us(loop.version_log(), versions) if loop and versions else None
    untrained = _untrained(shards, versions)
    state = {
        "loop": settings.loop.name,
        "root": settings.loop.root,
        "shards": _shards(shards),
        "versions": _versions(newest),
        "untrained": untrained,
        "waiting_rows": _rows(loop.shard_log(), shards, untrained) if loop and shards else 0,
        "freshness_s": (now_us - watermark_us) / clock.SECOND_US if watermark_us else None,
        "processes": running,
    }
    return dict(terminal.clean(state | {"reason": reason(state, now_us=now_us, train=settings.train)}))


def _shards(head: Entry | None) -> dict[str, Any] | None:
    if head is None:
        return None
    body = head.body
    return {
        "head": head.seq,
        "watermark_us": body["watermark_us"],
        "committed_at_us": body["committed_at_us"],
        "events": body["counts"],
        "closed_us": body["closed_us"],
        "clocks": [
            {
                "partition": f"{part['stream']}/{part['partition']}",
                "watermark_us": part["watermark_us"],
                "idle": part["idle_since_us"] is not None,
            }
            for part in body["ranges"]
        ],
    }


def _newest(log: Log) -> list[Entry]:
    """The newest versions, as far as they are looked at, newest first."""
    found: list[Entry] = []
    head = log.head()
    with contextlib.suppress(NotFound):  # collected
        while head is not None:
            found.append(head)
            told = _decided(head) and (head.kind == "rollback" or not _rollbacks(head))
            head = log.read(head.seq - 1) if head.seq and len(found) < VERSIONS_LOOKED_AT and not told else None
    return found


def _served_until_us(log: Log, newest: Entry) -> int | None:
    """The watermark of the version that is to be answered from: a pinned one stays where it was."""
    served = VersionRecord.from_entry(newest).served
    watermark_us: int | None = (newest if served == newest.seq else log.read(served)).body["watermark_us"]
    return watermark_us


def _decided(version: Entry) -> bool:
    """Whether it trained or held something."""
    return bool(version.body["trained"] or version.body["held"])


def _rollbacks(version: Entry) -> int:
    """By the trainer itself, in a row, with no good verdict since."""
    return int(version.body["gate"].get("trial", {}).get("rollbacks", 0))


def _rolled_back(newest: Sequence[Entry]) -> dict[str, Any] | None:
    """The last rollback by the trainer itself, while no verdict has found its successors good."""
    back = (one for one in newest if one.kind == "rollback" and one.body["gate"].get("by") == "trainer")
    last = next(back, None) if newest and _rollbacks(newest[0]) else None
    if last is None:
        return None
    return {"version": last.seq, "to": last.body["to"], "reason": last.body["gate"]["reason"]}


def _versions(newest: Sequence[Entry]) -> dict[str, Any] | None:
    """newest: `_newest`; what was decided last may be older than what was committed last."""
    if not newest:
        return None
    head, body = newest[0], newest[0].body
    decided = (one.body["created_at_us"] for one in newest if _decided(one))
    return {
        "head": head.seq,
        "kind": head.kind,
        "served": VersionRecord.from_entry(head).served,
        "cursor": body["cursor"]["seq"] if body["cursor"] else None,
        "watermark_us": body["watermark_us"],
        "created_at_us": body["created_at_us"],
        "evaluation": body["evaluation"],
        "held": sum(high - low for low, high in body["held_now"]),
        "reasons": body["gate"].get("reasons", []),
        "decided_us": next(decided, None),
        "rolled_back": _rolled_back(newest),
    }


def _untrained(shards: Entry | None, versions: Entry | None) -> int:
    """Shard records that the trainer has not taken yet."""
    if shards is None:
        return 0
    cursor = versions.body["cursor"] if versions else None
    return shards.seq - (cursor["seq"] if cursor else -1)


def _rows(log: Log, head: Entry, untrained: int) -> int:
    """Rows of the newest `untrained` records, as far as they are looked at: what the trainer could learn now."""
    seqs = range(head.seq, max(head.seq - min(untrained, LOOKED_AT), -1), -1)
    entries = (head if seq == head.seq else log.read(seq) for seq in seqs)
    return sum(shard["rows"] for entry in entries for shard in entry.body["shards"])
