"""`headrace status`: where the loop stands, read from its logs and heartbeats; nothing is started or asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace import clock
from headrace.cli import options, terminal
from headrace.errors import NotFound

if TYPE_CHECKING:
    import typer

    from headrace.config import Settings
    from headrace.log import Entry
    from headrace.loop import Loop


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("status", epilog=terminal.examples("headrace status", "headrace status --json | jq .freshness_s"))(
        status
    )


def status(*, as_json: options.Json = False, config: options.Config = options.DEFAULT) -> int:
    """Show where the loop stands.

    Events, shards, versions, freshness, and who is running.
    """
    settings = options.load(config)
    try:
        loop = options.open_loop(settings)
    except NotFound:
        loop = None
    state = state_of(loop, settings, now_us=clock.now_us())
    if as_json:
        terminal.show_json(state)
    else:
        terminal.show(_text(state))
    return terminal.Code.OK


def state_of(loop: Loop | None, settings: Settings, *, now_us: int) -> dict[str, Any]:
    """What `--json` prints. loop: None where nothing has made it yet."""
    from headrace import status as beats

    shards, versions = (loop.shard_log().head(), loop.version_log().head()) if loop else (None, None)
    running = [
        {
            "role": beat.role,
            "host": beat.host,
            "pid": beat.pid,
            "at_us": beat.at_us,
            "living": beat.living(now_us),
            "info": beat.info,
        }
        for beat in (beats.heartbeats(loop.store) if loop else ())
    ]
    watermark_us = versions.body["watermark_us"] if versions else None
    return dict(
        terminal.clean(
            {
                "loop": settings.loop.name,
                "root": settings.loop.root,
                "shards": _shards(shards),
                "versions": _versions(versions),
                "untrained": _untrained(shards, versions),
                "freshness_s": (now_us - watermark_us) / clock.SECOND_US if watermark_us else None,
                "processes": running,
            }
        )
    )


def _shards(head: Entry | None) -> dict[str, Any] | None:
    if head is None:
        return None
    body = head.body
    return {
        "head": head.seq,
        "watermark_us": body["watermark_us"],
        "committed_at_us": body["committed_at_us"],
        "events": body["counts"],
    }


def _versions(head: Entry | None) -> dict[str, Any] | None:
    if head is None:
        return None
    body = head.body
    return {
        "head": head.seq,
        "kind": head.kind,
        "served": body["pinned"] if body["pinned"] is not None else head.seq,
        "cursor": body["cursor"]["seq"] if body["cursor"] else None,
        "watermark_us": body["watermark_us"],
        "created_at_us": body["created_at_us"],
        "evaluation": body["evaluation"],
    }


def _untrained(shards: Entry | None, versions: Entry | None) -> int:
    """Shard records that the trainer has not taken yet."""
    if shards is None:
        return 0
    cursor = versions.body["cursor"] if versions else None
    return shards.seq - (cursor["seq"] if cursor else -1)


def _text(state: dict[str, Any]) -> str:
    lines = [("loop", f"{state['loop']}  ({state['root']})")]
    shards, versions = state["shards"], state["versions"]
    if shards is None:
        lines.append(("shards", "none yet: `headrace pipeline run` reads the sources"))
    else:
        lines.append(("shards", f"record {shards['head']}, events up to {_time(shards['watermark_us'])}"))
        for partition, counts in sorted(shards["events"].items()):
            known = "  ".join(f"{name} {count:,}" for name, count in counts.items() if count)
            lines.append(("", f"{partition}: {known or 'nothing read'}"))
    if versions is None:
        lines.append(("versions", "none yet: `headrace train` learns from shards"))
    else:
        lines.append(
            ("versions", f"{versions['head']} ({versions['kind']}), events up to {_time(versions['watermark_us'])}")
        )
    if state["untrained"]:
        records = "1 shard record" if state["untrained"] == 1 else f"{state['untrained']:,} shard records"
        lines.append(("waiting", f"{records} not trained yet: `headrace train`"))
    if state["freshness_s"] is not None:
        lines.append(("freshness", f"{clock.duration(state['freshness_s'])} since the newest event learned"))
    for process in state["processes"]:
        word = "running" if process["living"] else "gone"
        who = f"{process['host']} process {process['pid']}, last sign {_time(process['at_us'])}"
        lines.append((process["role"], f"{word}  {who}"))
        lines += [("", line) for line in _served(process, versions) if process["living"]]
    if not state["processes"]:
        lines.append(("running", "nothing"))
    return "\n".join(f"{name:<10} {text}".rstrip() for name, text in lines)


def _served(process: dict[str, Any], versions: dict[str, Any] | None) -> list[str]:
    """What a server answers from, beside what it should, and why."""
    if process["role"] != "server" or versions is None:
        return []
    info = process["info"]
    serves = "nothing" if info.get("version") is None else f"version {info['version']}"
    lines = [f"serves {serves} of {versions['served']}"]
    return lines + ([f"PROBLEM: {info['problem']}"] if info.get("problem") else [])


def _time(time_us: int | None) -> str:
    return clock.iso(time_us) if time_us else "-"
