"""`headrace config check`."""

from __future__ import annotations

from typing import Any

import typer

from headrace.cli import options, terminal

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

    Exit code 4 if so many are refused that the pipeline would stop.
    """
    from headrace.cli import sources

    settings = options.load(config)
    schema = settings.schema()
    tried: dict[str, Any] = {stream: sources.try_stream(settings, stream, rows) for stream in settings.streams}
    ok = all(found["ok"] for found in tried.values())
    if as_json:
        features = [{"name": feature.name, "kind": feature.kind} for feature in schema.features]
        terminal.show_json({"ok": ok, "schema": schema.fingerprint, "features": features, "streams": tried})
        return terminal.Code.OK if ok else terminal.Code.UNHEALTHY
    word = "good" if ok else "too many events are refused"
    terminal.show(f"{config}: {word}; {len(schema.features)} features, schema {schema.fingerprint}")
    for stream, found in tried.items():
        terminal.show(f"{stream}: {found['summary']}")
    return terminal.Code.OK if ok else terminal.Code.UNHEALTHY
