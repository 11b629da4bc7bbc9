"""`headrace serve`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import options, resident, terminal
from headrace.cli.journal import journal
from headrace.cli.observe import observed
from headrace.cli.quiet import native_output
from headrace.errors import LostRace, StoreError

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.loop import Loop


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("serve", epilog=terminal.examples("headrace serve", "headrace serve --port 8501"))(serve)


def serve(
    *,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65_535, help="Instead of the settings'; 0 = any free one.")
    ] = None,
    config: options.Config = options.DEFAULT,
) -> int:
    """Answer predictions over gRPC.

    Always from the newest version, which is swapped in without a pause. Loopback only.
    """
    settings = options.load_for("server", config)
    loop = options.open_loop(settings, create=True)
    again = f"headrace serve -c {config}"
    with native_output("serve"), journal(settings, "server"), resident.until_stopped(again) as stop:
        from headrace.arrow import without_pandas
        from paramserver.server import Server

        without_pandas()
        _write_version_0(loop, settings)
        server = Server(loop, settings, port=port)
        server.start()
        try:
            with observed(loop.store, settings, "server"):
                while not stop():
                    time.sleep(0.1)
        finally:
            server.stop()
    return terminal.Code.OK


def _write_version_0(loop: Loop, settings: Settings) -> None:
    """A new loop answers its prior at once, before a trainer has started. Without the right to write, it waits."""
    if loop.version_log().head() is not None:
        return
    from training.start import write_start

    try:
        write_start(loop, settings)
    except LostRace:
        return  # a trainer was first
    except StoreError as refused:
        terminal.say(f"waiting for a first version: {refused.message}")
