"""`headrace serve`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from headrace.cli import options, resident, terminal
from headrace.cli.quiet import native_output


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("serve", epilog=terminal.examples("headrace serve", "headrace serve --port 8501"))(serve)


def serve(
    *,
    port: Annotated[int | None, typer.Option("--port", help="Instead of the settings'; 0 = any free one.")] = None,
    config: options.Config = options.DEFAULT,
) -> int:
    """Answer predictions over gRPC.

    Always from the newest version, which is swapped in without a pause. Loopback only.
    """
    settings = options.load(config)
    loop = options.open_loop(settings)
    with native_output("serve"), resident.until_stopped(f"headrace serve -c {config}") as stop:
        from paramserver.server import Server

        server = Server(loop, settings, port=port)
        server.start()
        try:
            terminal.say(f"serving {settings.loop.name} on {server.address}; try: headrace predict --help")
            while not stop():
                time.sleep(0.1)
        finally:
            server.stop()
    return terminal.Code.OK
