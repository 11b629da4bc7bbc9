"""`headrace up`: the whole loop from one terminal.

Start order: the server first, which writes version 0 and answers the prior within seconds; pipeline and trainer side by
side; the tracker once the first trained version is served, so that it never competes with the first swap. What the
children print goes to `logs/<role>.log`; the terminal has one table, or a line per change where it is no terminal.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace import clock, lines, status
from headrace.cli import board, options, resident, sources, terminal
from headrace.cli.journal import is_open, journal
from headrace.cli.observe import observed
from headrace.cli.status import watched
from headrace.cli.supervise import Child, stop_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.config import Settings
    from headrace.loop import Loop

ROLE = "up"
REFRESH_S = 1.0
WATCH_S = 0.2


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "up",
        epilog=terminal.examples(
            "headrace up                    pipeline, trainer, server and MLflow tracker; Ctrl-C stops all four",
            "headrace up --no-track         without MLflow",
            "headrace up --json             one JSON object a second, for programs",
        ),
    )(up)


def up(
    *,
    no_track: Annotated[bool, typer.Option("--no-track", help="Without the MLflow tracker.")] = False,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65_535, help="The server's, instead of the settings'.")
    ] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0, help="End after so long.")] = None,
    logs: Annotated[Path, typer.Option("--logs", help="Folder of the log files.")] = Path("logs"),
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Run the whole loop: pipeline, trainer, server, tracker.

    A process that dies is started again. Ctrl-C stops all; the next `headrace up` goes on.
    """
    settings = options.load_for(ROLE, config)
    loop = options.open_loop(settings, create=True)
    if loop.shard_log().head() is None:
        sources.require(settings)
    resident.alone(loop, ROLE, "`headrace status --watch` shows it, `headrace down` ends it")
    stage = Stage(loop, settings, config, logs, port=port, track=not no_track)
    until_s = None if seconds is None else time.monotonic() + seconds
    drawn = sys.stderr.isatty() and settings.observe.log == "text"
    screen = _json if as_json else board.screen(None if drawn else _tell)
    with (
        nullcontext() if drawn else journal(settings, ROLE),
        resident.until_stopped(f"headrace up -c {config}") as stop,
        ExitStack() as ending,
    ):
        ending.callback(screen, None)
        stage.watch(time.monotonic())  # before the first heartbeat, which says that they start
        ending.enter_context(status.Pulse(loop.store, ROLE, stage.info))
        ending.enter_context(observed(loop.store, settings, ROLE))
        ending.callback(stop_all, stage.children.values())
        watch(stage, screen, lambda: stop() or (until_s is not None and time.monotonic() >= until_s))
    return terminal.Code.OK


def watch(stage: Stage, screen: Callable[[dict[str, Any] | None], None], stop: Callable[[], bool]) -> None:
    """Keeps the children running and the screen fresh until `stop()`."""
    shown_s = float("-inf")
    while not stop():
        stage.watch(time.monotonic())
        if time.monotonic() - shown_s >= REFRESH_S:
            shown_s = time.monotonic()
            screen(stage.state())
        time.sleep(WATCH_S)


class Stage:
    """The four children of one loop, and what is known of it."""

    def __init__(
        self, loop: Loop, settings: Settings, config: Path, logs: Path, *, port: int | None = None, track: bool = True
    ) -> None:
        self.loop, self.settings = loop, settings
        of = ["-c", str(config)]
        commands: dict[str, Sequence[str]] = {
            "server": ["serve", *of, *(() if port is None else ("--port", str(port)))],
            "pipeline": ["pipeline", "run", *of],
            "trainer": ["train", "--watch", *of],
            **({"tracker": ["track", *of]} if track else {}),
        }
        self.children = {role: Child(role, arguments, logs / f"{role}.log") for role, arguments in commands.items()}

    def watch(self, now_s: float) -> None:
        """Starts what is due, notices what died."""
        for role, child in self.children.items():
            if child.fate.state == "waiting" and (role != "tracker" or self._learned_is_served()):
                child.start(now_s)
            before = child.fate
            child.watch(now_s)
            if child.fate.state in ("pausing", "failed") and child.fate.state != before.state and is_open():
                again_s = round(child.fate.resume_s - now_s, 1) if child.fate.state == "pausing" else None
                words = " | ".join(child.last_words())
                lines.PROCESS_DIED(words, role=role, exit_code=child.fate.exit_code, again_s=again_s)

    def state(self) -> dict[str, Any]:
        """All that the table and `--json` show."""
        return watched(self.loop, self.settings) | {"children": self.info()["children"]}

    def info(self) -> dict[str, Any]:
        """Of the heartbeat."""
        now_s = time.monotonic()
        return {
            "children": {
                role: {
                    "state": child.fate.state,
                    "pid": child.pid,
                    "restarts": child.fate.restarts,
                    "exit_code": child.fate.exit_code,
                    "resume_s": max(0.0, child.fate.resume_s - now_s) if child.fate.state == "pausing" else None,
                    "last_words": child.last_words() if child.fate.state in ("pausing", "failed") else [],
                    "log": str(child.log),
                }
                for role, child in self.children.items()
            }
        }

    def _learned_is_served(self) -> bool:
        """Whether the server answers from a version that has learned something."""
        for beat in status.heartbeats(self.loop.store):
            if beat.role == "server" and beat.living(clock.now_us()) and beat.info.get("watermark_us") is not None:
                return True
        return False


def _tell(what: str, line: str) -> None:
    lines.LOOP_CHANGED(line, what=what)


def _json(state: dict[str, Any] | None) -> None:
    if state is not None:
        terminal.show_line(state)
