"""`headrace report`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from headrace import clock
from headrace.cli import options, terminal
from headrace.errors import SettingsError

DEFAULT = Path("headrace-report.html")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "report",
        epilog=terminal.examples(
            "headrace report                          headrace-report.html and .png, of all that is kept",
            "headrace report --hours 6 --out today.html",
            "headrace report --json | jq .freshness   the figures, no page",
        ),
    )(report)


def report(
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help=f"The page; its pictures go beside it as PNG.  [default: {DEFAULT}]", dir_okay=False
        ),
    ] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0.01, help="Only the last so many hours.")] = None,
    rows: Annotated[
        int, typer.Option("--rows", min=0, help="Score so many of the newest rows again for calibration; 0 = none.")
    ] = 20_000,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Show how a loop does, on one page: freshness, log-loss, calibration, counts, gates.

    Reads what the root holds, while the loop runs or after. The page needs no network and no script. With --json only
    the figures are printed, unless --out names a page, too.
    """
    path = out or (None if as_json else DEFAULT)
    if path is not None:
        _check(path)
    settings = options.load(config)
    loop = options.open_loop(settings)
    from headrace.cli.freshness.progress import progress
    from headrace.cli.quiet import native_output
    from headrace.cli.report.records import total_of
    from headrace.cli.report.summary import report as look
    from headrace.cli.report.summary import words

    with native_output("report"), progress("reading records", total_of(loop)) as advance:
        found = look(
            loop,
            settings,
            span_us=None if hours is None else round(hours * 3_600 * clock.SECOND_US),
            rows=rows,
            now_us=clock.now_us(),
            advance=advance,
        )
    if path is not None:
        from headrace.cli.report import figures, page

        picture = path.with_suffix(".png")
        _write(picture, figures.poster(found))
        _write(path, page.page(found, figures.pictures(found)).encode())
        terminal.say(f"wrote {path} and {picture}")
    if as_json:
        terminal.show_json(found.to_json())
    else:
        terminal.show(words(found))
    return terminal.Code.OK


def _check(path: Path) -> None:
    """SettingsError unless a page can be written there."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(
            f"--out {path} is no name of a page",
            hint=f"name one such as {path.with_suffix('.html')}; the picture goes beside it as PNG",
            out=path,
        )
    folder = path.parent
    if not folder.is_dir():
        raise SettingsError(f"--out {path}: there is no folder {folder}", hint=f"make it: mkdir -p {folder}", out=path)
    if not os.access(folder, os.W_OK):
        raise SettingsError(f"--out {path}: {folder} cannot be written", hint="name another folder", out=path)


def _write(path: Path, data: bytes) -> None:
    """Written aside and renamed: who reloads the page never sees half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
