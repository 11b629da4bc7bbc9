"""`headrace init`: a first headrace.toml, guessed from events, begun from a template, or to fill in."""

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
            "headrace init --template                   lists the templates: feed, ads, fraud, maintenance, flights",
            "headrace init --template fraud             … for card payments, with events to run them on at once",
        ),
    )(init)


def init(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the template.", show_default=False)] = "",
    source: Annotated[str, typer.Option("--from", help="A file or folder of events to look at.")] = "",
    template: Annotated[
        bool, typer.Option("--template", help="Begin with an example, NAME, that runs at once; no NAME lists them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Write a first headrace.toml, guessed from your events or begun from a template."""
    if name and not template:
        raise typer.BadParameter(f"only a template has a name: headrace init --template {name}")
    if template and source:
        raise typer.BadParameter("--template and --from exclude each other")
    if template:
        return _begin(name, config, force=force, as_json=as_json) if name else _list(as_json=as_json)
    _spare([config], force=force, otherwise="name another file with -c")
    text, notes = _guessed(source, config) if source else (_to_fill_in(), [])
    config.parent.mkdir(parents=True, exist_ok=True)
    _write(config, text)
    if as_json:
        terminal.show_json({"path": str(config), "guessed_from": source or None, "notes": notes})
        return terminal.Code.OK
    for note in notes:
        terminal.say(f"note: {note}")
    named = _named(config)
    terminal.say(f"wrote {config}; read it, then: headrace config check{named} && headrace backtest{named}")
    return terminal.Code.OK


def _write(config: Path, text: str) -> None:
    """Whole or not at all: a full disk leaves the settings that are there."""
    aside = config.with_name(f".{config.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(config)
    finally:
        aside.unlink(missing_ok=True)


def _list(*, as_json: bool) -> int:
    from headrace import templates

    questions = {name: templates.said(name)[0] for name in templates.NAMES}
    if as_json:
        terminal.show_json({"templates": questions})
    else:
        terminal.show(terminal.table(questions.items()))
        terminal.say("begin with one in an empty folder: headrace init --template NAME")
    return terminal.Code.OK


def _begin(name: str, config: Path, *, force: bool, as_json: bool) -> int:
    """Copies a template and writes its events beside the settings. Nothing is written unless all of it may be."""
    from headrace import simulate, templates

    templates.check(name)
    folder = config.parent
    elsewhere = "begin in an empty folder"
    _spare([config, folder / templates.EVENTS], force=force, otherwise=elsewhere)
    terminal.say(f"making the events of {name} …")
    until = simulate.midnight()
    tables = templates.events(name, until)
    _spare([folder / file for file in tables], force=force, otherwise=elsewhere)
    rows = simulate.write(tables, until, folder)
    for path, file in ((folder / templates.EVENTS, templates.EVENTS), (config, templates.SETTINGS)):
        path.write_text(templates.place_of(name, file).read_text(encoding="utf-8"), encoding="utf-8")
    if as_json:
        files = {str(folder / file): count for file, count in rows.items()}
        terminal.show_json({"path": str(config), "template": name, "events": files})
        return terminal.Code.OK
    for file, count in rows.items():
        terminal.say(f"wrote {folder / file}: {count:,} events")
    named, (_, command) = _named(config), templates.said(name)
    terminal.say(f"wrote {folder / templates.EVENTS}, which made them, and {config}; read it, then:")
    terminal.say(f"  headrace inspect{named}\n  {command}{named}\n  headrace up{named}")
    return terminal.Code.OK


def _spare(paths: list[Path], *, force: bool, otherwise: str) -> None:
    """SettingsError for a file that is there and may not be replaced."""
    for path in paths:
        if path.exists() and not force:
            raise SettingsError(f"{path} exists already", hint=f"add --force to replace it, or {otherwise}", path=path)


def _named(config: Path) -> str:
    return "" if config == options.DEFAULT else f" -c {config}"


def _to_fill_in() -> str:
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
