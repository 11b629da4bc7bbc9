"""`headrace quarantine retry`: refused events whose cause is mended are read again."""

from __future__ import annotations

import getpass
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from headrace import clock
from headrace.cli import options, terminal
from headrace.cli.answer import answer_in, awaited
from headrace.cli.quiet import native_output
from headrace.cli.release import ranges_of
from headrace.errors import NotFound, SettingsError, SourceError
from headrace.log import Follower

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.log import Entry
    from headrace.loop import Loop
    from headrace.shard import ShardRecord
    from headrace.status import Heartbeat
    from headrace.version import Ranges
    from pipelines.retry import Wanted

EVERY_S: Final = 2.0
STAY: Final = {
    "late": "their time is more than attribution_s + lateness_s before the watermark: they cannot be joined any more",
    "gone": "their file is not there, or holds them no more: put it back, then retry",
    "damaged": "the file that keeps them is damaged or gone (`headrace log verify --deep`): restore it from a copy",
    "broken_file": "install its codec, or write what it holds anew under a name that sorts after those already read",
    "broken_piece": "write what it held anew, under a name that sorts after those already read",
}


def register(group: typer.Typer) -> None:
    """Adds the command."""
    group.command(
        "retry",
        epilog=terminal.examples(
            "headrace quarantine retry --dry-run            what would be read by the settings of now, and what not",
            "headrace quarantine retry                      read it again",
            "headrace quarantine retry 17 20-24             only what these shard records refused",
            "headrace quarantine retry --reason bad_time    only these",
        ),
    )(retry)


def retry(
    records: Annotated[
        list[str] | None, typer.Argument(help="Shard records: 17, or 20-24. Default: all.", metavar="[RECORD...]")
    ] = None,
    *,
    reason: Annotated[list[str] | None, typer.Option("--reason", help="Only events refused for this.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be read, and read nothing.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for a running pipeline.")] = 120.0,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Read refused events again, once their cause is mended (a setting, a file that is back).

    Each is read at most once more. What would still be refused stays where it is, and so does what is too late to be
    joined. A running pipeline does it in its next tick; without one it is done here, together with what is new.
    """
    from headrace import requests, status
    from headrace.shard import ShardRecord
    from pipelines.retry import Wanted

    settings = options.load(config)
    loop = options.open_loop(settings)
    head = loop.shard_log().head()
    if head is None:
        raise NotFound("nothing was read yet, so nothing was refused", hint="start `headrace up` first")
    wanted = Wanted(_records(records, head.seq), _reasons(reason or []))
    trial = _trial(loop, settings, ShardRecord.from_entry(head), wanted)
    living = next((b for b in status.heartbeats(loop.store) if b.role == "pipeline" and b.living(clock.now_us())), None)
    _show(trial, as_json=as_json, watermark_us=head.body["watermark_us"])
    if dry_run or not trial.read:
        if as_json:
            terminal.show_json(trial.to_json())
        return terminal.Code.OK
    if living is not None and living.info.get("settings") != settings.reading:
        raise SettingsError(
            f"the pipeline that runs (process {living.pid} on {living.host}) has other settings than {config}",
            hint="start it again (`headrace up`), so that it reads by the settings of now; then retry",
            pid=living.pid,
        )
    request = requests.ask(loop, "retry", wanted.to_json(), getpass.getuser(), clock.now_us())
    answer = _answered(loop, settings, request, head, living, timeout_s)
    read = _read_by(loop, request, head.seq, answer.seq)
    if as_json:
        terminal.show_json({"request": request.seq, "record": answer.seq, "read": read, "kept": _kept(answer, request)})
    else:
        terminal.show(f"{_events(read)} read again, up to shard record {answer.seq}")
    return terminal.Code.OK


@dataclass
class Trial:
    """By the reason of before: how many events would be read, and why the others stay ("" = would be read)."""

    read: int = 0
    by_reason: dict[str, Counter[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        kept: Counter[str] = Counter()
        for fates in self.by_reason.values():
            kept.update({fate: count for fate, count in fates.items() if fate})
        was = {reason: {fate or "read": n for fate, n in fates.items()} for reason, fates in self.by_reason.items()}
        return {"would_read": self.read, "kept": dict(sorted(kept.items())), "was": was}


def _trial(loop: Loop, settings: Settings, head: ShardRecord, wanted: Wanted) -> Trial:
    from pipelines.retry import look
    from pipelines.setup import setup_of

    trial = Trial()
    told = time.monotonic()
    for found in look(setup_of(loop.store, settings), loop.shard_log(), head, wanted, clock.now_us()):
        for row, reason in found.was.items():
            fate = found.fate(row)
            trial.by_reason.setdefault(reason, Counter())[fate] += 1
            trial.read += not fate
        if time.monotonic() - told > EVERY_S:
            told = time.monotonic()
            terminal.say(f"looked at record {found.seq} of {head.seq} …")
    return trial


def _show(trial: Trial, *, as_json: bool, watermark_us: int) -> None:
    if as_json:
        return
    if not trial.by_reason:
        terminal.say("nothing is in quarantine that was not read again already")
        return
    rows = []
    for reason, fates in sorted(trial.by_reason.items()):
        stay = {fate: n for fate, n in sorted(fates.items()) if fate}
        because = ", ".join(f"{fate} {n:,}" for fate, n in stay.items())
        rows.append((reason, f"{fates.total():,}", f"{fates['']:,}", f"{sum(stay.values()):,}", because))
    terminal.show(terminal.table(rows, ("refused for", "events", "read now", "stay", "because")))
    for fate in sorted({fate for fates in trial.by_reason.values() for fate in fates} & STAY.keys()):
        until = f" ({clock.iso(watermark_us)})" if fate == "late" else ""
        terminal.say(f"{fate}: {STAY[fate]}{until}")
    if not trial.read:
        terminal.say("none can be read by the settings of now: correct them first (`headrace quarantine list`)")


def _answered(
    loop: Loop, settings: Settings, request: Entry, before: Entry, living: Heartbeat | None, timeout_s: float
) -> Entry:
    """The shard record after `before` that says that the request is done."""
    if living is None:
        return _read_here(loop, settings, request, before)
    terminal.say(f"asked the pipeline on {living.host} (process {living.pid}); waiting …")
    entry = awaited(loop.shard_log(), request, before, timeout_s)
    if entry is None:
        raise SourceError(
            f"request {request.seq} was not answered within {clock.duration(timeout_s)}",
            hint="the request stays, and the next tick takes it; `headrace status` shows whether the pipeline lives",
            request=request.seq,
        )
    return entry


def _read_here(loop: Loop, settings: Settings, request: Entry, before: Entry) -> Entry:
    news = Follower(loop.shard_log(), before.cursor())
    terminal.say("no pipeline is running: reading here, with what is new …")
    with native_output("pipeline"):
        from pipelines.pipeline import Pipeline

        pipeline = Pipeline(loop, settings)
        try:
            while pipeline.tick() is not None:
                if (entry := answer_in(news.poll(), request)) is not None:
                    return entry
        finally:
            pipeline.close()
    raise SourceError("the pipeline did not answer", hint="run `headrace doctor`", request=request.seq)


def _read_by(loop: Loop, request: Entry, seen: int, answer: int) -> int:
    """Events that the records after `seen` read for a request."""
    log, read = loop.shard_log(), 0
    for seq in range(seen + 1, answer + 1):
        for one in log.read(seq).body["ranges"]:
            if isinstance(one["identity"], dict) and one["identity"].get("request") == request.seq:
                read += one["to"] - one["from"]
    return read


def _kept(answer: Entry, request: Entry) -> dict[str, int]:
    return next(one["kept"] for one in answer.body["requests"]["outcomes"] if one["seq"] == request.seq)


def _records(words: list[str] | None, head: int) -> Ranges:
    if not words:
        return ((0, head + 1),)
    found = ranges_of(words)
    if found[-1][1] > head + 1:
        raise NotFound(
            f"there is no shard record {found[-1][1] - 1}: the newest is {head}", hint="see `headrace quarantine list`"
        )
    return found


def _reasons(words: list[str]) -> tuple[str, ...]:
    from headrace.features import nearest
    from pipelines.events import REASONS

    for word in words:
        if word not in REASONS:
            near = nearest(word, list(REASONS)) or f"they are {', '.join(REASONS)}"
            raise typer.BadParameter(f"{word!r} is no reason; {near}", param_hint="--reason")
    return tuple(words)


def _events(count: int) -> str:
    return f"{count:,} event" + ("" if count == 1 else "s")
