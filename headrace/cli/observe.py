"""`/metrics`, `/healthz` and `/readyz` of a process that stays, over HTTP on this machine.

`[observe] port` is the server's; the others have the next ones, in the order of ROLES. Where it is not set, nothing
listens. A port that is taken is said and no reason to stop: predictions and training matter more than being watched.

    /metrics   `docs/metrics.md`, in the text format of Prometheus
    /healthz   200 while the process lives
    /readyz    200 while it does its work: a server has a version to answer from, `up` has all its children, the others
               hold their role; else 503 and why
"""

from __future__ import annotations

import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from headrace import clock, lines, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.config import Settings
    from headrace.status import Heartbeat
    from headrace.store import Store

__all__ = ["ROLES", "observed", "port_of", "unready"]

HOST: Final = "127.0.0.1"
ROLES: Final = ("server", "pipeline", "trainer", "tracker", "up")


def port_of(settings: Settings, role: str) -> int | None:
    """Where a role is watched; None = nowhere."""
    return None if settings.observe.port is None else settings.observe.port + ROLES.index(role)


def unready(role: str, beat: Heartbeat | None) -> str:
    """Why a process that beats like this does not do its work; "" = it does."""
    if beat is None:
        return "it does not have its role yet: it starts, or another process has it"
    if role == "server" and beat.info.get("version") is None:
        return beat.info.get("problem") or "it has no version to answer from yet"
    children = beat.info.get("children", {})
    return ", ".join(f"{name} is {one['state']}" for name, one in children.items() if one["state"] != "running")


@contextmanager
def observed(store: Store, settings: Settings, role: str) -> Iterator[None]:
    """Serves the three pages while the block runs."""
    port = port_of(settings, role)
    server = None if port is None else _server(store, role, port)
    try:
        yield
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()


def _mine(store: Store, role: str) -> Heartbeat | None:
    mine = (beat for beat in status.heartbeats(store) if beat.role == role and beat.nonce == status.NONCE)
    return next((beat for beat in mine if beat.living(clock.now_us())), None)


def _metrics(store: Store, role: str) -> bytes:
    from prometheus_client import generate_latest

    from headrace import metrics

    beat = _mine(store, role)
    metrics.READY.labels(role).set(not unready(role, beat))
    metrics.PROBLEM.labels(role).set(bool(beat is not None and beat.info.get("problem")))
    for child, said in (beat.info.get("children", {}) if beat is not None else {}).items():
        metrics.RESTARTS.labels(child).set(said["restarts"])
    mark = store.path_of("loop.json")
    if mark is not None and mark.parent.exists():
        metrics.DISK_FREE.set(shutil.disk_usage(mark.parent).free)
    return generate_latest()


def _server(store: Store, role: str, port: int):  # type: ignore[no-untyped-def]  # noqa: ANN202  (imported below)
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = self.path.partition("?")[0]
            if page == "/metrics":
                self._say(200, _metrics(store, role), "text/plain; version=0.0.4; charset=utf-8")
            elif page == "/healthz":
                self._say(200, b"ok\n")
            elif page == "/readyz":
                why = unready(role, _mine(store, role))
                self._say(503 if why else 200, f"{why or 'ok'}\n".encode())
            else:
                self._say(404, b"/metrics, /healthz or /readyz\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name in the base)
            """Not a line per scrape."""

        def _say(self, code: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    try:
        server = ThreadingHTTPServer((HOST, port), Pages)
    except OSError as taken:
        why = f"it cannot be used on {HOST} ({taken.strerror}); choose another [observe] port"
        lines.PROCESS_UNWATCHED(why, port=port)
        return None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="observe", daemon=True).start()
    return server
