"""`headrace config check`."""

from __future__ import annotations

from typing import Any

import typer

from headrace import clock
from headrace.cli import options, terminal
from headrace.errors import EventError, SourceError

NAME = "config"
group = typer.Typer(help="The settings file.", no_args_is_help=True, rich_markup_mode=None)


@group.callback()
def _keep_as_group() -> None: ...


@group.command("check", epilog=terminal.examples("headrace config check", "headrace config check -c feed.toml --json"))
def check(
    *,
    rows: int = typer.Option(10_000, "--rows", min=1, help="How many events to try."),
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Try the settings on the first events of each source.

    Exit code 4 if the pipeline would stop on them, or would not find what the settings name.
    """
    from headrace.cli import trial
    from headrace.cli.inspect import report

    settings = options.load(config)
    schema = settings.schema()
    try:
        found = report.inspect(settings, rows, now_us=clock.now_us())
    except (EventError, SourceError) as wrong:
        terminal.report(wrong, as_json=as_json)
        return terminal.Code.UNHEALTHY
    ok, tried = found.ok, found.sample.trials
    if as_json:
        features = [{"name": feature.name, "kind": feature.kind} for feature in schema.features]
        streams: dict[str, Any] = {name: one.to_json() for name, one in tried.items()}
        told = {"labels": found.labels.to_json(), "notes": found.notes}
        terminal.show_json({"ok": ok, "schema": schema.fingerprint, "features": features, "streams": streams, **told})
        return terminal.Code.OK if ok else terminal.Code.UNHEALTHY
    word = "good" if ok else "not good"
    terminal.show(f"{config}: {word}; {len(schema.features)} features, schema {schema.fingerprint}")
    for name, one in tried.items():
        terminal.show(f"{name}: {trial.summary(one, labelled=settings.streams[name].label is not None)}")
    terminal.show("labels: " + "\n  ".join(report.label_words(found.labels, settings)))
    for note in found.notes:
        terminal.show(f"LOOK  {note}")
    return terminal.Code.OK if ok else terminal.Code.UNHEALTHY
