"""One process that answers gRPC from one model: listen, follow the version log, stop gracefully.

Start: refuse an address that is not loopback; take the port (a second server on it is refused); listen, with health
NOT_SERVING; follow; health SERVING with the first generation. Stop: health NOT_SERVING, new calls UNAVAILABLE, calls
under way end within `GRACE_S`; then gRPC stops. Store, trainer and pipeline may be away: what was loaded is served.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from headrace import clock, lines, metrics, status
from headrace.errors import PortInUse, ServingError, SettingsError
from paramserver.lane import Lane, usable
from paramserver.predict import Predictor
from paramserver.reflection import MOST_STREAMS, Reflection
from paramserver.replica import RETRY_S, Replica
from paramserver.servicer import MOST_WATCHERS, Servicer, handlers
from protos import headrace_pb2 as wire

if TYPE_CHECKING:
    from headrace.clock import Now
    from headrace.config import Settings
    from headrace.loop import Loop

MODEL: Final = "default"
SERVICE: Final = wire.DESCRIPTOR.services_by_name["HeadraceService"].full_name

POLL_S: Final = 0.05
POLL_LOCAL_S: Final = 0.02  # where a look is one system call: 0.3 % of a core
FIRST_S: Final = 1.0  # how long the first version may take before it is said that there is none
GRACE_S: Final = 5.0
LINGER_S: Final = 0.2  # new calls are refused so long before gRPC stops, which cancels what comes at that moment
LAST_S: Final = 1.0  # for watchers
THREADS: Final = 8 + MOST_WATCHERS + MOST_STREAMS  # a watcher, and a stream of reflection, hold a thread
MOST_CALLS: Final = 128  # under way or waiting for a thread; more are refused with RESOURCE_EXHAUSTED
MESSAGE_BYTES: Final = 4 * 2**20
PING_S: Final = 20.0  # a client that has calls under way, and says nothing, is asked so often whether it is there
PING_TIMEOUT_S: Final = 20.0  # one that does not answer has gone, or hangs: its calls end, and what they hold is free


class Server:
    """Serves `loop` at `settings.serve`. Port 0 takes a free one. With `follow=False` the caller polls the replica."""

    def __init__(
        self,
        loop: Loop,
        settings: Settings,
        *,
        port: int | None = None,
        follow: bool = True,
        now_us: Now = clock.now_us,
    ) -> None:
        self.host = loopback(settings.serve.host)
        self.port = settings.serve.port if port is None else port
        self.replica = Replica(loop.store, loop.version_log(MODEL), now_us=now_us)
        self._loop = loop
        self._now_us = now_us
        self._follow = follow
        self._poll_s = POLL_S if loop.store.path_of("loop.json") is None else POLL_LOCAL_S
        self._told_version: int | None = None
        self._told_problem = ""
        self._first_until_s = 0.0
        self._stopping = threading.Event()
        self._follower = threading.Thread(target=self._run, name="headrace-follower", daemon=True)
        self._health = health.HealthServicer()
        most = settings.serve.max_candidates
        self._servicer = Servicer(
            Predictor(self.replica, model=MODEL, max_candidates=most, now_us=now_us), loop, now_us
        )
        self._lane: Lane | None = None
        self._grpc = self._made(lane=settings.serve.lane and usable())

    @property
    def address(self) -> str:
        """`host:port`, as a client takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def start(self) -> Self:
        """Listen and follow; returns at once, before the first generation serves. PortInUse."""
        self._take_port()
        self._first_until_s = time.monotonic() + FIRST_S
        self._tell_health(serving=False)
        self._grpc.start()
        if self._lane is not None:
            self._lane.start()
        self.replica.watch(lambda: self._tell_health(serving=self.replica.served is not None))
        if self._follow:
            self._follower.start()
        lines.SERVER_LISTENING("try: headrace predict --help", address=self.address)
        return self

    def wait_until_serving(self, timeout_s: float) -> bool:
        """Whether a generation serves, waiting for one up to `timeout_s`."""
        end_s = time.monotonic() + timeout_s
        while self.replica.served is None and time.monotonic() < end_s:
            self.replica.wait(self.replica.changes, POLL_S)
        return self.replica.served is not None

    def wait(self) -> None:
        """Returns when the server has stopped."""
        self._grpc.wait_for_termination()

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Refuse new calls, let those under way end within `grace_s`, stop."""
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        ended = self._servicer.drain(grace_s)
        time.sleep(min(LINGER_S, grace_s))
        self._grpc.stop(min(LAST_S, grace_s) if ended else None).wait()
        if self._lane is not None:
            self._lane.close()
        if self._follower.is_alive():
            self._follower.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _made(self, *, lane: bool) -> Any:
        server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="headrace-call"),
            maximum_concurrent_rpcs=MOST_CALLS,
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_send_message_length", MESSAGE_BYTES),
                ("grpc.keepalive_time_ms", round(PING_S * 1_000)),
                ("grpc.keepalive_timeout_ms", round(PING_TIMEOUT_S * 1_000)),
                ("grpc.http2.ping_timeout_ms", round(PING_TIMEOUT_S * 1_000)),
            ],
        )
        server.add_registered_method_handlers(SERVICE, handlers(self._servicer, lane=lane))
        if lane:
            self._lane = Lane(server, f"/{SERVICE}/Predict", self._servicer.predict_in_lane, most=MOST_CALLS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        services = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(Reflection(services), server)
        return server

    def _take_port(self) -> None:
        in_use = PortInUse(
            f"port {self.port} of {self.host} is in use",
            hint="stop the server that listens there, or choose another port: serve.port, or --port",
            port=self.port,
        )
        if self.port and _listens(self.host, self.port):  # gRPC would write its own lines to stderr
            raise in_use
        try:
            self.port = self._grpc.add_insecure_port(self.address)
        except RuntimeError:
            raise in_use from None

    def _tell_health(self, *, serving: bool) -> None:
        kind = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            self._health.set(name, kind)

    def _run(self) -> None:
        """The follower's thread."""
        with status.Pulse(self._loop.store, "server", self._info, now_us=self._now_us):
            while not self._stopping.is_set():
                self._poll()
                self._stopping.wait(self._poll_s)

    def _poll(self) -> None:
        began = time.monotonic()
        first = self.replica.served is None
        try:
            swapped = self.replica.poll()
        except Exception as error:  # noqa: BLE001  predictions go on whatever the log holds
            lines.SERVER_POLL_FAILED(trace=True)
            self.replica.report(ServingError(f"following failed: {error!r}", hint="this is a defect: please report it"))
            self._stopping.wait(RETRY_S)
            return
        if swapped:
            generation = self.replica.generation()
            metrics.SWAP_SECONDS.observe(time.monotonic() - began)
            if not first:
                waited_us = self.replica.swapped_at_us - generation.record.created_at_us
                metrics.SERVED_SECONDS.observe(max(0, waited_us) / clock.SECOND_US)
            metrics.SERVED_VERSION.set(generation.version)
            metrics.SERVED_WATERMARK.set((generation.record.watermark_us or 0) / clock.SECOND_US)
        self._tell()

    def _tell(self) -> None:
        """A line for another version served, another problem, the end of one; for having none at all after a while."""
        served, problem = self.replica.served, self.replica.problem
        if served is not None and served.version != self._told_version:
            self._told_version, until_us = served.version, served.record.watermark_us
            message = "" if until_us else "nothing learned yet: it answers the prior"
            lines.SERVER_SWAPPED(message, version=served.version, until=clock.iso(until_us) if until_us else None)
        text = problem.message if problem is not None else ""
        if text == self._told_problem or (served is None and time.monotonic() < self._first_until_s):
            return
        self._told_problem = text
        version = None if served is None else served.version
        if problem is not None:
            lines.SERVER_STALLED(text, version=version, fix=problem.hint)
        else:
            lines.SERVER_RECOVERED(version=version)

    def _info(self) -> dict[str, Any]:
        served, problem = self.replica.served, self.replica.problem
        watermark_us = served.record.watermark_us if served else None
        return {
            "address": self.address,
            "version": served.version if served else None,
            "applied": self.replica.applied_version,
            "watermark_us": watermark_us,
            "age_s": None if watermark_us is None else (self._now_us() - watermark_us) / clock.SECOND_US,
            "problem": problem.message if problem else "",
            "hint": problem.hint if problem else "",
        }


def loopback(host: str) -> str:
    """`host` if it is of this machine only. SettingsError: others need TLS, which this version does not have.

    >>> loopback("127.0.0.1")
    '127.0.0.1'
    """
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise SettingsError(
            f"serve.host = {host!r} is not a loopback address, and anyone could reach it: there is no TLS yet",
            hint='use serve.host = "127.0.0.1", and a proxy that speaks TLS for other machines',
            host=host,
        )
    return host


def _listens(host: str, port: int) -> bool:
    """Whether the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
