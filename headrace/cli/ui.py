"""`headrace ui`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from headrace.address import shown
from headrace.cli import options, resident, terminal
from headrace.errors import NotFound, PortInUse, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

HOST: Final = "127.0.0.1"
LOOPBACK: Final = (HOST, "::1", "localhost")
SQLITE: Final = "sqlite:///"
READY_S: Final = 180.0
TRIM: Final = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # else seven more processes
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
API: Final = "api/2.0/mlflow/experiments/get-by-name"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "ui",
        epilog=terminal.examples("headrace ui", "headrace ui --port 5001"),
    )(ui)


def ui(
    *,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 = any free one.")] = 5000,
    logs: Annotated[Path, typer.Option("--logs", help="Folder of the server's log file.")] = Path("logs"),
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Show MLflow's pages for this loop.

    Starts MLflow's server with one worker and without its job runners: 2 processes and 0.5 GB instead of 15 and 3.2.
    Loopback only. Where [track] uri is a server, that one is named.
    """
    settings = options.load(config)
    uri, experiment = settings.track.uri, settings.track.experiment or settings.loop.name
    if uri.startswith(("http://", "https://")):
        _say(shown(page(uri.rstrip("/"), experiment)), as_json=as_json)
        return terminal.Code.OK
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        raise NotFound(
            f"there is no {uri.removeprefix(SQLITE)} yet: nothing was tracked",
            hint=f"run `headrace track --once -c {config}`, or `headrace up`, first",
        )
    address = f"http://{HOST}:{_free(port)}"
    with resident.until_stopped(f"headrace ui -c {config}") as stop:
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / "ui.log"
        server = _start(uri, address.rpartition(":")[2], log)
        try:
            terminal.say("MLflow starts, which takes some 20 s")
            if _ready(server, address, stop):
                _say(page(address, experiment), as_json=as_json)
                terminal.say("Ctrl-C ends it")
            elif server.poll() is None and not stop():
                terminal.say(f"after {READY_S:g} s nothing answers at {address}: {log} says more; Ctrl-C ends it")
            while not stop() and server.poll() is None:
                time.sleep(0.1)
        finally:
            _end(server)
        if server.returncode and not stop():
            raise TrainingError(f"MLflow's server ended by itself: {last_line(log)}", hint=f"{log} says more")
    return terminal.Code.OK


def _say(url: str, *, as_json: bool) -> None:
    if as_json:
        terminal.show_line({"url": url})
    else:
        terminal.show(url)


def page(address: str, experiment: str) -> str:
    """The address of the table of runs; of the list of experiments where the experiment is not there yet."""
    import json
    from urllib.parse import urlencode

    try:
        answer = _get(f"{address}/{API}?{urlencode({'experiment_name': experiment})}", 10)
        found = json.loads(answer)["experiment"]["experiment_id"]
    except (OSError, ValueError, KeyError):
        return f"{address}/#/experiments"
    return f"{address}/#/experiments/{found}/runs?workflowType=machine_learning"


def last_line(log: Path) -> str:
    """The last line of a file that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _start(uri: str, port: str, log: Path) -> subprocess.Popen[bytes]:
    """The server, in a session of its own: Ctrl-C reaches this process, which ends it with its workers.

    The address of the database goes by the environment, since everybody may read the arguments of a process.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", port, "--workers", "1"]
    environment = os.environ | TRIM | {"MLFLOW_BACKEND_STORE_URI": uri}
    with log.open("wb") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)


def _ready(server: subprocess.Popen[bytes], address: str, stop: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s and server.poll() is None and not stop():
        try:
            _get(f"{address}/health", 2)
        except OSError:
            time.sleep(0.2)
        else:
            return True
    return False


def _get(url: str, timeout_s: float) -> bytes:
    """What is at a URL. A proxy of the environment is not asked for what is on loopback."""
    from urllib.parse import urlsplit
    from urllib.request import ProxyHandler, build_opener

    here = (urlsplit(url).hostname or "") in LOOPBACK
    opener = build_opener(ProxyHandler({})) if here else build_opener()
    with opener.open(url, timeout=timeout_s) as answer:  # http or https, as the settings say
        data: bytes = answer.read()
        return data


def _end(server: subprocess.Popen[bytes]) -> None:
    """Asks the server and its workers to end, then makes them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            continue
    server.wait()


def _free(port: int) -> int:
    """The port itself, or any free one for 0. PortInUse."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise PortInUse(
                f"port {port} is taken by another process", hint="`headrace ui --port 0` takes any free one", port=port
            ) from None
        free: int = probe.getsockname()[1]
        return free
