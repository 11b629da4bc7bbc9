"""`headrace init`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import options, terminal
from headrace.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


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
    from headrace import guess

    text, notes = _written(guess, source, config)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(text, encoding="utf-8")
    if as_json:
        terminal.show_json({"path": str(config), "guessed_from": source, "notes": notes})
        return terminal.Code.OK
    for note in notes:
        terminal.say(f"note: {note}")
    terminal.say(f"wrote {config}; read it, then: headrace config check && headrace backtest")
    return terminal.Code.OK


def _written(guess: object, source: str, config: Path) -> tuple[str, list[str]]:
    raise NotImplementedError
