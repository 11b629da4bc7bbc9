"""`headrace quarantine list`, `show` and `retry`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import options, quarantine_retry, terminal
from headrace.errors import NotFound

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.loop import Loop

NAME = "quarantine"
group = typer.Typer(help="Refused events, each with its reason.", no_args_is_help=True, rich_markup_mode=None)


quarantine_retry.register(group)


@group.command("list", epilog=terminal.examples("headrace quarantine list", "headrace quarantine list --json"))
def list_files(*, as_json: options.Json = False, config: options.Config = options.DEFAULT) -> int:
    """What was refused, by shard record and reason."""
    settings = options.load(config)
    loop = options.open_loop(settings)
    again = _again(loop)
    files = [
        {**file, "retried": len(again.get(file["path"], ())), "because": _because(_events(loop, settings, file))}
        for file in _files(loop)
    ]
    if as_json:
        terminal.show_json({"quarantine": files})
    elif not files:
        terminal.say("nothing was refused")
    else:
        rows = [
            (
                file["seq"],
                file["rows"],
                file["retried"] or "",
                ", ".join(f"{reason} {n}" for reason, n in sorted(file["reasons"].items())),
                "; ".join(f"{name} = {value}" for name, value in file["because"].items()),
            )
            for file in files
        ]
        terminal.show(terminal.table(rows, ("record", "events", "read again", "reasons", "such as")))
    return terminal.Code.OK


@group.command("show", epilog=terminal.examples("headrace quarantine show 3", "headrace quarantine show 3 --json"))
def show(
    seq: Annotated[int, typer.Argument(help="The shard record (see `quarantine list`).", metavar="RECORD")],
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many events.")] = 20,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """The refused events of one shard record: where each came from, why, and its bytes."""
    settings = options.load(config)
    loop = options.open_loop(settings)
    events = [event for file in _files(loop) if file["seq"] == seq for event in _events(loop, settings, file)]
    if not events:
        raise NotFound(
            f"shard record {seq} has nothing in quarantine", hint="see `headrace quarantine list`", record=seq
        )
    if as_json:
        terminal.show_json({"record": seq, "events": events[:limit]})
        return terminal.Code.OK
    for event in events[:limit]:
        terminal.show("  ".join(f"{name}={value}" for name, value in event.items()))
    if len(events) > limit:
        terminal.say(f"{len(events) - limit} more: --limit {len(events)}")
    return terminal.Code.OK


def _again(loop: Loop) -> dict[str, set[int]]:
    """By file, which rows were read again."""
    from headrace.shard import ShardRecord
    from pipelines.retry import retried

    head = loop.shard_log().head()
    return {} if head is None else retried(loop.store.url, ShardRecord.from_entry(head))


def _files(loop: Loop) -> list[dict[str, Any]]:
    log = loop.shard_log()
    head, first = log.head(), log.first()
    if head is None or first is None:
        return []
    found = []
    for seq in range(first.seq, head.seq + 1):
        entry = head if seq == head.seq else log.read(seq)
        found += [{"seq": seq, **file} for file in entry.body.get("quarantine", ())]
    return found


def _events(loop: Loop, settings: Settings, file: dict[str, Any]) -> list[dict[str, Any]]:
    """The refused events; `because`: the value that was the reason, where it can be told."""
    from headrace.cli.culprit import Culprits
    from headrace.cli.sources import places
    from headrace.quarantine import read_quarantine
    from headrace.shard import Quarantine

    named = Quarantine(file["path"], file["sha256"], file["rows"], file["reasons"])
    known = {name: Culprits(settings, name, place) for name, place in places(settings).items()}
    events = []
    again = _again(loop).get(named.path, ())
    for number, row in enumerate(read_quarantine(loop.store, named).to_pylist()):
        event = {name: _text(value) for name, value in row.items() if value is not None}
        event |= {"retried": True} if number in again else {}
        if row["stream"] in known:
            name, value = known[row["stream"]].of(row["reason"], row["raw"], row["offset"].rpartition(":")[0])
            event |= {"because": f"{name} = {value}"} if name else {}
        events.append(event)
    return events


def _because(events: list[dict[str, Any]]) -> dict[str, str]:
    """Column -> a value that was the reason."""
    found: dict[str, str] = {}
    for event in events:
        name, equals, value = event.get("because", "").partition(" = ")
        if equals:
            found.setdefault(name, value)
    return found


def _text(value: Any) -> Any:
    return value.decode("utf-8", errors="backslashreplace") if isinstance(value, bytes) else value
