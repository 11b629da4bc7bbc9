"""`headrace inspect`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (typer reads it)
from typing import Annotated

import typer

from headrace import clock
from headrace.cli import options, terminal


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "inspect",
        epilog=terminal.examples(
            "headrace inspect                         rows, joins, delays, features, drift",
            "headrace inspect --rows 2000000          of more events",
            "headrace inspect --plot look.png --json",
        ),
    )(inspect)


def inspect(
    *,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many events of each stream to look at.")] = 200_000,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write a picture (PNG, SVG, PDF) here.")] = None,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Look at your events before you loop: refused rows, joins, delay of feedback, features, drift.

    Nothing is written to the loop. Exit code 4 if the pipeline would stop on what was seen.
    """
    settings = options.load(config)
    from headrace.cli.inspect import report

    found = report.inspect(settings, rows, now_us=clock.now_us())
    if plot is not None:
        report.plot(found, plot, wait_s=settings.label.wait_s)
        terminal.say(f"wrote {plot}")
    if as_json:
        terminal.show_json(terminal.clean(found.to_json()))
    else:
        terminal.show(report.as_text(found, settings))
    return terminal.Code.OK if found.ok else terminal.Code.UNHEALTHY
