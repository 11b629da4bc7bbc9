"""`headrace track`."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from headrace import lines, status
from headrace.address import shown
from headrace.cli import options, resident, terminal
from headrace.cli.journal import journal
from headrace.cli.observe import observed
from headrace.cli.quiet import native_output
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.config import Settings


ROLE: Final = "tracker"
NICE: Final = 10
"""Predictions and training come first: writing a model takes seconds of CPU."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "track",
        epilog=terminal.examples(
            "headrace track --once",
            "headrace ui                        look at them",
        ),
    )(track)


def track(
    *,
    once: Annotated[bool, typer.Option("--once", help="Log what is new, then end.")] = False,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Show every version in MLflow.

    One run a day, versions as steps, snapshots as model versions with the aliases champion and previous, which
    `mlflow.pyfunc.load_model("models:/<loop>@champion")` loads without TensorFlow.
    """
    settings = options.load(config) if once else options.load_for(ROLE, config)
    loop = options.open_loop(settings)
    resident.alone(loop, ROLE, "it logs what is new, too; `headrace status` shows how far it is")
    with native_output("track"), nullcontext() if once else journal(settings, "tracker"):
        from training.tracking import Tracker, open_client

        tracker = Tracker(
            loop, settings, connect=lambda: open_client(settings.track.uri), example=lambda: _example(settings)
        )
        if once:
            with status.Pulse(loop.store, ROLE, dict):
                logged = tracker.once()
            if as_json:
                terminal.show_json({"logged": logged, "uri": shown(settings.track.uri)})
            else:
                terminal.show(f"{logged} versions logged to {shown(settings.track.uri)}")
            return terminal.Code.OK
        os.nice(NICE)
        with (
            resident.until_stopped(f"headrace track -c {config}") as stop,
            observed(loop.store, settings, "tracker"),
        ):
            lines.TRACK_READY(root=settings.loop.root, uri=shown(settings.track.uri))
            tracker.run(stop=stop)
    return terminal.Code.OK


def _example(settings: Settings) -> dict[str, Any] | None:
    """The first event of the source as a request; None where it cannot be read now."""
    from headrace.cli.predict_example import first_request

    try:
        return first_request(settings)
    except HeadraceError:
        return None
