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
    """Read the settings and try them on the first events of each source."""
    from headrace.cli import sources

    settings = options.load(config)
    schema = settings.schema()
    tried: dict[str, Any] = {stream: sources.try_stream(settings, stream, rows) for stream in settings.streams}
    if as_json:
        features = [{"name": feature.name, "kind": feature.kind} for feature in schema.features]
        terminal.show_json({"ok": True, "schema": schema.fingerprint, "features": features, "streams": tried})
        return terminal.Code.OK
    terminal.show(f"{config}: good; {len(schema.features)} features, schema {schema.fingerprint}")
    for stream, found in tried.items():
        terminal.show(f"{stream}: {found['summary']}")
    return terminal.Code.OK
