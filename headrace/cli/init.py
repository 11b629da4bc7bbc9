"""`headrace init`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import options, terminal
from headrace.errors import SettingsError


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "init",
        epilog=terminal.examples(
            "headrace init                              settings with comments, to fill in",
            "headrace init --from events.parquet        … guessed from your events (also .csv, .jsonl, a folder)",
        ),
    )(init)


def init(
    *,
    source: Annotated[str, typer.Option("--from", help="A file or folder of events to look at.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a settings file that is there.")] = False,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Write a first headrace.toml, guessed from your events."""
    if config.exists() and not force:
        raise SettingsError(
            f"{config} exists already", hint="add --force to replace it, or name another file with -c", path=config
        )
    text, notes = _guessed(source, config) if source else (_template(), [])
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(text, encoding="utf-8")
    if as_json:
        terminal.show_json({"path": str(config), "guessed_from": source or None, "notes": notes})
        return terminal.Code.OK
    for note in notes:
        terminal.say(f"note: {note}")
    named = "" if config == options.DEFAULT else f" -c {config}"
    terminal.say(f"wrote {config}; read it, then: headrace config check{named} && headrace backtest{named}")
    return terminal.Code.OK


def _template() -> str:
    from headrace.guess import TEMPLATE

    return TEMPLATE


def _guessed(source: str, config: Path) -> tuple[str, list[str]]:
    """The text and notes. Paths in a settings file are relative to its folder."""
    from headrace.cli.sample import sample_of
    from headrace.guess import guess

    place = Path(source)
    folder = config.absolute().parent
    shown = place if place.is_absolute() else Path(os.path.relpath(place.absolute(), folder))
    found = guess(sample_of(source), str(shown) + ("/" if place.is_dir() else ""))
    return found.text, list(found.notes)
