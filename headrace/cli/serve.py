"""`headrace serve`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from headrace import clock
from headrace.cli import options, resident, terminal
from headrace.cli.observe import observed
from headrace.cli.quiet import native_output
from headrace.errors import LostRace, StoreError

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.loop import Loop
    from paramserver.replica import Replica


FIRST_S = 1.0
"""How long the first version may take before it is said that there is none."""


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
    settings = options.load(config)
    loop = options.open_loop(settings, create=True)
    with native_output("serve"), resident.until_stopped(f"headrace serve -c {config}") as stop:
        from headrace.arrow import without_pandas
        from paramserver.server import Server

        without_pandas()
        _write_version_0(loop, settings)
        server = Server(loop, settings, port=port)
        server.start()
        try:
            terminal.say(f"serving {settings.loop.name} on {server.address}; try: headrace predict --help")
            server.wait_until_serving(FIRST_S)
            server.replica.watch(Narrator(server.replica).tell)
            with observed(loop.store, settings, "server"):
                while not stop():
                    time.sleep(0.1)
        finally:
            server.stop()
    return terminal.Code.OK


class Narrator:
    """Says what a replica serves, a line per swap, and what keeps it from the newest version."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._version: int | None = None
        self._problem = ""

    def tell(self) -> None:
        """Called after every change."""
        served, problem = self._replica.served, self._replica.problem
        if served is not None and served.version != self._version:
            self._version = served.version
            until = served.record.watermark_us
            reach = f"events up to {clock.iso(until)}" if until else "nothing learned yet: it answers the prior"
            terminal.say(f"version {served.version}: {reach}")
        text = problem.message if problem is not None else ""
        if problem is not None and text != self._problem:
            goes_on = "nothing is answered" if served is None else f"version {served.version} goes on answering"
            terminal.say(f"PROBLEM: {text}; {goes_on}")
            if problem.hint:
                terminal.say(f"    fix: {problem.hint}")
        elif not text and self._problem:
            terminal.say("the problem is over")
        self._problem = text


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
