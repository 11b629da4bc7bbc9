"""`headrace pipeline run`, `plan` and `replay`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace import clock, lines
from headrace.cli import options, resident, terminal
from headrace.cli.journal import journal
from headrace.cli.observe import observed
from headrace.cli.quiet import native_output
from headrace.cli.reason import not_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.config import Settings
    from headrace.log import Entry
    from headrace.loop import Loop
    from headrace.status import Heartbeat

NAME = "pipeline"
group = typer.Typer(help="Turn events into shards.", no_args_is_help=True, rich_markup_mode=None)

BeamFlags = Annotated[list[str] | None, typer.Argument(metavar="[-- BEAM_FLAGS]", help="Flags for Apache Beam.")]


@group.command(
    "run",
    epilog=terminal.examples(
        "headrace pipeline run                     stay, one tick a second",
        "headrace pipeline run --once              read what there is, then end",
        "headrace pipeline run --once --drain      … and take the streams as ended: nothing stays pending",
        "headrace pipeline run -- --runner=FlinkRunner --flink_master=localhost:8081",
    ),
)
def run(
    beam: BeamFlags = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Read what there is, then end.")] = False,
    drain: Annotated[bool, typer.Option("--drain", help="Take all streams as ended (with --once).")] = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Read the sources, join labels, write windowed shards."""
    flags = _flags(beam)
    settings = options.load_for("pipeline", config)
    loop = options.open_loop(settings, create=True)
    _require_sources(loop, settings)
    if once or drain:
        resident.alone(loop, "pipeline", "it reads what is new by itself; to do it here, stop that one first")
    with native_output("pipeline"), journal(settings, "pipeline"):
        from pipelines.pipeline import Pipeline

        pipeline = Pipeline(loop, settings, beam_args=flags)
        _say_runner(flags)
        with (
            resident.until_stopped(f"headrace pipeline run -c {config}") as stop,
            nullcontext() if once or drain else observed(loop.store, settings, "pipeline"),
        ):
            lines.PIPELINE_READY(root=settings.loop.root)
            pipeline.run(stop=stop, once=once or drain, drain=drain, on_record=_tell, on_wait=_tell_waiting)
    if loop.shard_log().head() is None:
        terminal.say("no events yet: nothing was written; `headrace config check` looks at the sources")
    return terminal.Code.OK


@group.command("plan", epilog=terminal.examples("headrace pipeline plan", "headrace pipeline plan --json"))
def plan(*, as_json: options.Json = False, config: options.Config = options.DEFAULT) -> int:
    """What the next tick would read, without reading it."""
    settings = options.load(config)
    loop = options.open_loop(settings, create=True)
    _require_sources(loop, settings)
    with native_output("pipeline"):
        from pipelines.pipeline import Pipeline

        planned = Pipeline(loop, settings).plan()
    if as_json:
        terminal.show_json(planned.to_json())
    else:
        terminal.show(_plan(planned.to_json()))
    return terminal.Code.OK


@group.command("replay", epilog=terminal.examples("headrace pipeline replay 42", "headrace pipeline replay 42 --json"))
def replay(
    seq: Annotated[int, typer.Argument(help="The shard record.", metavar="RECORD")],
    *,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Run one committed tick again from its ranges and compare the bytes. Commits nothing."""
    settings = options.load(config)
    loop = options.open_loop(settings, create=True)
    with native_output("pipeline"):
        from pipelines.pipeline import Pipeline

        found = Pipeline(loop, settings).replay(seq)
    shards = [{"path": shard.path, "sha256": shard.sha256, "rows": shard.rows} for shard in found.recorded.shards]
    if as_json:
        terminal.show_json({"record": seq, "same": found.same, "shards": shards})
    else:
        rows = sum(shard.rows for shard in found.recorded.shards)
        terminal.show(f"record {seq}: {rows:,} rows, " + ("the same bytes again" if found.same else "DIFFERENT"))
    return terminal.Code.OK if found.same else terminal.Code.UNHEALTHY


def _require_sources(loop: Loop, settings: Settings) -> None:
    """Before anything was read, a missing source is a slip in the settings; later the pipeline knows better."""
    from headrace.cli import sources

    if loop.shard_log().head() is None:
        sources.require(settings)


def _flags(beam: Sequence[str] | None) -> tuple[str, ...]:
    flags = tuple(beam or ())
    if flags and not flags[0].startswith("--"):
        raise typer.BadParameter(f"{flags[0]!r} is not a Beam flag; those start with -- and come after --")
    return flags


def _say_runner(flags: Sequence[str]) -> None:
    if any(flag.split("=")[-1] in ("DirectRunner", "direct") for flag in flags):
        terminal.say("DirectRunner here is Beam's in-process FnApiRunner: it needs no download and no other process")


def _tell(head: Entry) -> None:
    body = head.body
    until = clock.iso(body["watermark_us"]) if body["watermark_us"] else None
    emitted = sum(counts.get("emitted", 0) for counts in body["counts"].values())
    lines.SHARD_COMMITTED(record=head.seq, emitted=emitted, until=until)


def _tell_waiting(other: Heartbeat) -> None:
    lines.PROCESS_WAITING("this one waits until it ends", role=other.role, pid=other.pid, host=other.host)


def _plan(plan: dict[str, Any]) -> str:
    size = f"about {plan['bytes']:,} bytes" if plan["bytes"] else "no new events, but rows fall due"
    idle = "every source is read to its end" if plan["complete"] else "a source does not answer at present"
    idle = "what is left is not whole" if plan["awaited"] else idle
    lines = [f"record {plan['seq']}: {size}" if plan["due"] else f"nothing to do: {idle}"]
    for part in plan["ranges"]:
        key = f"{part['stream']}/{part['partition']}"
        lines.append(f"  {key}: {_position(part['from'])} to {_position(part['to'])}")
        if key in plan["awaited"]:
            lines.append(f"    {not_whole(plan['awaited'][key])}")
    return "\n".join(lines)


def _position(at: Any) -> str:
    """Such as `a.jsonl at 4,711`; of sources that are no files as they say it."""
    if not isinstance(at, dict) or not {"file", "offset"} <= at.keys():
        return str(at)
    torn = f", what lies behind it cannot be read ({at['torn']:,} bytes in all)" if "torn" in at else ""
    return f"{at['file']} at {at['offset']:,}{torn}" if at["file"] else "the beginning"
