"""`headrace train` and `headrace retrain`."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace import clock, lines
from headrace.cli import options, resident, terminal
from headrace.cli.answer import answered
from headrace.cli.journal import journal
from headrace.cli.observe import observed
from headrace.cli.quiet import native_output

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.log import Entry, Log
    from headrace.loop import Loop
    from headrace.version import VersionRecord


STARTING = "starting TensorFlow (10 to 30 s)"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(
        "train",
        epilog=terminal.examples(
            "headrace train             learn what the shard log has, then end",
            "headrace train --watch     stay, and publish a version for every shard record",
        ),
    )(train)
    app.command(
        "retrain",
        epilog=terminal.examples("headrace retrain", "headrace retrain --json --timeout 60"),
    )(retrain)


def train(
    *,
    once: Annotated[bool, typer.Option("--once", help="Learn what there is, then end (the default).")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and follow the shard log.")] = False,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Learn from new shards and publish versions.

    Every shard is learned once. Exit code 3 if the gate held a candidate.
    """
    if once and watch:
        raise typer.BadParameter("--once and --watch exclude each other")
    settings = options.load_for("trainer", config) if watch else options.load(config)
    loop = options.open_loop(settings, create=True)
    if watch:
        return _watch(loop, settings, f"headrace train --watch -c {config}")
    resident.alone(loop, "trainer", "it learns what is new by itself; `headrace retrain` asks it for a version now")
    with native_output("train"):
        terminal.say(f"{STARTING} …")
        from training.trainer import Trainer

        trainer = Trainer(loop, settings)
        _say_lineage(trainer.record, loop.version_log())
        made: list[Entry] = []
        while (entry := trainer.step()) is not None:
            made.append(entry)
            if not as_json:
                terminal.show(_line(entry))
        trainer.collect()
        trainer.close()
    if as_json:
        terminal.show_json({"versions": [_summary(entry) for entry in made]})
    elif not made:
        terminal.say("nothing to learn: every shard record has been trained; `headrace pipeline run --once` makes more")
    return terminal.Code.REFUSED if any(entry.kind == "hold" for entry in made) else terminal.Code.OK


def _watch(loop: Loop, settings: Settings, again: str) -> int:
    with native_output("train"), journal(settings, "trainer", STARTING):
        resident.say_waiting(loop, "trainer")
        from training.trainer import Trainer

        trainer = Trainer(loop, settings)
        _say_lineage(trainer.record, loop.version_log())
        with resident.until_stopped(again) as stop, observed(loop.store, settings, "trainer"):
            lines.TRAINER_READY(root=settings.loop.root)
            trainer.run(stop=stop)
    return terminal.Code.OK


def retrain(
    *,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for a resident trainer.")] = 600.0,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Ask for a new version now.

    The resident trainer (`headrace train --watch`) makes it; where none runs, it is made here.
    """
    from headrace import requests

    settings = options.load(config)
    loop = options.open_loop(settings, create=True)
    before = loop.version_log().head()
    request = requests.ask(loop, "retrain", {}, getpass.getuser(), clock.now_us())
    entry = answered(loop, settings, request, before, timeout_s)
    if as_json:
        terminal.show_json({"request": request.seq, **_summary(entry)})
    else:
        terminal.show(_line(entry))
    return terminal.Code.REFUSED if entry.kind == "hold" else terminal.Code.OK


def _say_lineage(record: VersionRecord, log: Log) -> None:
    """Tells that a lineage began, if it did just now and is not the first."""
    if record.kind != "start":
        return
    if record.checkpoint is not None:
        terminal.say(f"version {record.version} begins with imported rows; what is learned starts from them")
        return
    if not record.version:
        return
    before = log.read(record.version - 1).body
    old, new = ({one["name"] for one in schema["features"]} for schema in (before["schema"], record.schema))
    changes = [f"without '{name}'" for name in sorted(old - new)] + [f"with '{name}'" for name in sorted(new - old)]
    if before["model"] != record.model:
        changes.append(f"model {before['model'].get('kind')} -> {record.model.get('kind')}")
    terminal.say(
        f"version {record.version} begins a new lineage ({', '.join(changes) or 'features changed'}): it learns anew, "
        "from shard records that have its features; those made before, with others, are left out"
    )
    if log.read(record.version - 1).kind == "start" and before["checkpoint"]:
        terminal.say("it begins without the rows that were imported: `headrace import` again gives it some")


def _summary(entry: Entry) -> dict[str, Any]:
    body = entry.body
    names = ("watermark_us", "trained", "held", "evaluation", "gate")
    return {"version": entry.seq, "kind": entry.kind, **{name: body[name] for name in names}}


def _line(entry: Entry) -> str:
    body = entry.body
    rows = body["digest"].get("rows", 0)
    until = clock.iso(body["watermark_us"]) if body["watermark_us"] else "-"
    if entry.kind == "delta" and not body["trained"]:
        return f"version {entry.seq}  nothing new to learn: the parameters are those of version {body['base']}"
    return f"version {entry.seq}  {entry.kind}  events up to {until}  {rows} rows published"
