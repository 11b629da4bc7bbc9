"""All commands on one tree, and the one place where what goes wrong is told."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Annotated, Final

import typer

from headrace import __version__
from headrace.cli import (
    backtest,
    config,
    control,
    demo,
    doctor,
    export,
    gc,
    importing,
    init,
    journal,
    log,
    pipeline,
    predict,
    probe,
    quarantine,
    release,
    serve,
    status,
    terminal,
    track,
    train,
    ui,
    up,
    versions,
)
from headrace.cli.inspect import command as inspect
from headrace.cli.report import command as report
from headrace.errors import HeadraceError, StoreFull

if TYPE_CHECKING:
    from collections.abc import Sequence

_UsageError: type[Exception]
_ClickException: type[Exception]
_UsageError, _ClickException = typer.BadParameter.__mro__[1:3]  # typer brings its own click: found through its heir

GROUPS = (pipeline, versions, log, quarantine, config)
COMMANDS = (
    demo,
    init,
    inspect,
    up,
    control,
    train,
    release,
    serve,
    predict,
    track,
    ui,
    status,
    report,
    probe,
    doctor,
    gc,
    backtest,
    export,
    importing,
)


REFUSALS: Final = {
    errno.ENOSPC: "free space on that disk; `headrace doctor` says where it is short",
    errno.EDQUOT: "free space: what this user may store is used up",
    errno.EROFS: "that file system is read-only: run this in another folder, or name a place that can be written",
    errno.EACCES: "give this user the right to it, or name another place",
    errno.EPERM: "give this user the right to it, or name another place",
}


def build() -> typer.Typer:
    """The tree of commands."""
    app = typer.Typer(
        name="headrace",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog=terminal.examples(
            "headrace backtest --example flights     what would retraining be worth? (on 2013's flights)",
            "headrace init --from events.parquet     first settings for your own events",
            "headrace doctor                         is everything here that is needed?",
        )
        + "\n\n"
        + terminal.EXIT_CODES,
    )
    app.callback()(_root)
    for module in COMMANDS:
        module.register(app)
    for module in GROUPS:
        app.add_typer(module.group, name=module.NAME)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        terminal.show(f"headrace {__version__}")
        raise typer.Exit


def _root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_show_version)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and everything that libraries print.")
    ] = False,
) -> None:
    """headrace keeps a TensorFlow model as fresh as the log it learns from."""
    if debug:
        os.environ["HEADRACE_DEBUG"] = "1"


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; the exit code."""
    try:
        return _run(arguments)
    finally:
        journal.close()


def _run(arguments: Sequence[str]) -> int:
    own = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    as_json = "--json" in own
    try:
        result = build()(args=list(arguments), prog_name="headrace", standalone_mode=False)
    except HeadraceError as error:
        if os.environ.get("HEADRACE_DEBUG"):
            terminal.say(_trace(error))
        return terminal.report(error, as_json=as_json)
    except _UsageError as error:
        return _usage(error, as_json=as_json)
    except _ClickException as error:
        return terminal.report_usage(str(error), command="headrace", as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        result = terminal.Code.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # `| head` has gone: nothing more to say
        return terminal.Code.OK
    except Exception as error:  # noqa: BLE001 the last line of defence: a short text instead of a traceback
        return _unexpected(error, as_json=as_json)
    if result == terminal.Code.INTERRUPTED:  # typer makes this code of Ctrl-C itself
        terminal.say("interrupted")
    return int(result or 0)


def _usage(error: BaseException, *, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "headrace"
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    if text.startswith("Usage:"):  # no arguments at all: the help is the answer
        terminal.show(text)
        return terminal.Code.USAGE
    return terminal.report_usage(text, command=command, as_json=as_json)


def _unexpected(error: Exception, *, as_json: bool) -> int:
    """A system that takes no file is no defect, wherever it was met."""
    if not isinstance(error, OSError) or error.errno not in REFUSALS:
        return terminal.report_defect(error, as_json=as_json, debug=bool(os.environ.get("HEADRACE_DEBUG")))
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    refused = StoreFull(f"{place}{error.strerror or error}", hint=REFUSALS[error.errno])
    with contextlib.suppress(OSError):  # JSON goes to stdout, which may be what is full
        terminal.report(refused, as_json=as_json)
    return terminal.Code.FAILED


def _trace(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
