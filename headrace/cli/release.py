"""`headrace release`: held shard records are to be learned after all."""

from __future__ import annotations

import getpass
import re
from typing import TYPE_CHECKING, Annotated

import typer

from headrace import clock
from headrace.cli import options, terminal
from headrace.errors import GateRefused, InvalidTarget

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.version import Ranges

SHOWN = 8


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "release",
        epilog=terminal.examples(
            "headrace release 17           shard record 17 is to be believed",
            "headrace release 17 20-24     several",
            "headrace status               says what is held",
        ),
    )(release)


def release(
    shards: Annotated[list[str], typer.Argument(help="Held shard records: 17, or 20-24.", metavar="SHARD...")],
    *,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for a resident trainer.")] = 600.0,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Learn shard records that a gate or a rollback holds.

    One version releases and trains them. Their labels are taken as they are; a candidate that cannot be served is still
    refused, and they stay held (exit code 3).
    """
    from headrace import requests
    from headrace.cli.answer import answered, outcome_of

    wanted = ranges_of(shards)
    settings = options.load(config)
    loop = options.open_loop(settings)
    before = loop.version_log().head()
    _check_held(wanted, loop.version_log(), loop.shard_log())
    request = requests.ask(
        loop, "release", {"shards": [list(pair) for pair in wanted]}, getpass.getuser(), clock.now_us()
    )
    entry = answered(loop, settings, request, before, timeout_s)
    outcome = outcome_of(entry, request)
    if outcome != "released":
        raise GateRefused(
            outcome, hint="they stay held; `headrace versions show` has the details", version=entry.seq, shards=wanted
        )
    if as_json:
        terminal.show_json({"request": request.seq, "version": entry.seq, "outcome": outcome, "shards": wanted})
    else:
        terminal.show(f"version {entry.seq}: released and learned shard records {said(wanted)}")
    return terminal.Code.OK


def ranges_of(words: list[str]) -> Ranges:
    """Numbers and spans as half-open ranges.

    >>> ranges_of(["17", "20-24", "18"])
    ((17, 19), (20, 25))
    """
    from headrace.version import union

    found = []
    for word in words:
        parts = re.fullmatch(r"(\d+)(?:-(\d+))?", word, re.ASCII)
        low, high = (int(parts[1]), int(parts[2] or parts[1])) if parts else (1, 0)
        if high < low:
            raise typer.BadParameter(f"{word!r} is neither a number of a shard record nor a span such as 20-24")
        found.append((low, high + 1))
    return union(found)


def said(ranges: Ranges) -> str:
    """As a user writes them, some of them.

    >>> said(((17, 18), (20, 25)))
    '17, 20-24'
    """
    words = [f"{low}-{high - 1}" if high - low > 1 else f"{low}" for low, high in ranges]
    return ", ".join(words[:SHOWN]) + (" …" if len(words) > SHOWN else "")


def _check_held(wanted: Ranges, versions: Log, shards: Log) -> None:
    """InvalidTarget where it is known before the trainer is asked that a record cannot be released."""
    from headrace.version import VersionRecord, difference

    entry, newest = versions.head(), shards.head()
    held = VersionRecord.from_entry(entry).held_now if entry is not None else ()
    others = difference(wanted, held)
    if not others:
        return
    first = others[0][0]
    known = newest is not None and first <= newest.seq
    raise InvalidTarget(
        f"shard record {first} is not held" if known else f"there is no shard record {first}",
        hint=f"held are: {said(held)}" if held else "no shard record is held",
        shard=first,
    )
