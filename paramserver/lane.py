"""A lane: one unary method of a gRPC server, answered by one thread straight from a completion queue.

grpcio hands each call from its polling thread to a pool thread and back; the hand-overs are more than half of the CPU
of a small call. A lane does without: its thread takes all events that are ready, answers up to `AT_ONCE` calls, and
looks again. All other methods of the server stay on grpcio's own path, on the same port.

    a call arrives      its message is asked for; the next call may arrive
    its message is here it waits in order, if fewer than `most` do; otherwise it is refused (RESOURCE_EXHAUSTED)
    its turn            its deadline has passed: DEADLINE_EXCEEDED, not handled; else what `handle` gives or raises
    the server drains   grpcio's core refuses new calls (UNAVAILABLE) and waits for those that arrived

This is an interface of grpcio that is not public (`grpc._cython.cygrpc`). So a lane is only used with the versions that
the tests were run with (`TESTED`), after one call through a server of its own worked in this process (`usable`);
otherwise the method stays where all others are. Measured beside that: `benchmarks/bench_predict.py`.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from headrace import lines

if TYPE_CHECKING:
    from collections.abc import Callable

    Handle = Callable[[bytes, float | None], bytes]
    """handle(request, seconds left or None) -> answer; `Refused` for a status."""

TESTED: Final = ("1.85.",)
AT_ONCE: Final = 16  # calls answered before new ones are looked for
ASKED_FOR: Final = 64  # calls that may arrive before the lane looks
_POLL_S: Final = 1.0
_OWN_CALL_S: Final = 5.0
_NEVER_S: Final = 1e12  # a deadline beyond it is none


class Refused(Exception):
    """What a handler raises to answer with a status. metadata: trailing."""

    def __init__(self, code: grpc.StatusCode, message: str, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.metadata = code, message, metadata


@dataclass(frozen=True)
class _Waiting:
    """A call whose message is here. until_s: its deadline, seconds since 1970; None: it has none."""

    call: Any
    message: bytes
    until_s: float | None


class Lane:
    """Answers `method` ("/package.Service/Method") of `server` by `handle`. To be made before the server starts."""

    def __init__(self, server: Any, method: str, handle: Handle, *, most: int) -> None:
        from grpc._cython import cygrpc

        self._core, self._server = cygrpc, server._state.server  # noqa: SLF001  see above
        self._method, self._handle, self._most = method, handle, most
        self._queue = cygrpc.CompletionQueue()
        self._server.register_completion_queue(self._queue)
        self._server.register_method(method)
        self._waiting: deque[_Waiting] = deque()
        self._thread = threading.Thread(target=self._run, name="headrace-lane", daemon=True)

    def start(self) -> None:
        """Once the server has started."""
        for _ in range(ASKED_FOR):
            self._ask()
        self._thread.start()

    def close(self) -> None:
        """Once the server has stopped."""
        self._queue.shutdown()
        if self._thread.is_alive():
            self._thread.join()

    def _ask(self) -> None:
        self._server.request_registered_call(self._queue, self._queue, self._method, self._method)

    def _run(self) -> None:
        core, tag_of_arrival = self._core, self._method
        while True:
            event = self._queue.poll(0.0 if self._waiting else time.time() + _POLL_S)
            if event.completion_type == core.CompletionType.queue_shutdown:
                return
            if event.completion_type == core.CompletionType.queue_timeout:
                self._answer_some()
            elif event.tag == tag_of_arrival:
                self._arrived(event)
            else:
                event.tag(event)
            event = None  # before the next poll: it may hold the last reference to a call

    def _arrived(self, event: Any) -> None:
        if not event.success:  # the server is stopping
            return
        self._ask()
        deadline_s = event.call_details.deadline
        until_s = deadline_s if deadline_s is not None and deadline_s < _NEVER_S else None
        received = functools.partial(self._received, event.call, until_s)
        event.call.start_server_batch((self._core.ReceiveMessageOperation(0),), received)

    def _received(self, call: Any, until_s: float | None, event: Any) -> None:
        message = event.batch_operations[0].message()
        if message is None:  # its client has gone
            self._finish(call, Refused(grpc.StatusCode.CANCELLED, "no message came"))
        elif len(self._waiting) >= self._most:
            self._finish(call, Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._most} calls are waiting already"))
        else:
            self._waiting.append(_Waiting(call, message, until_s))

    def _answer_some(self) -> None:
        for _ in range(min(AT_ONCE, len(self._waiting))):
            one = self._waiting.popleft()
            self._finish(one.call, self._answer(one))

    def _answer(self, one: _Waiting) -> bytes | Refused:
        left_s = None if one.until_s is None else one.until_s - time.time()
        try:
            return self._handle(one.message, left_s)
        except Refused as refused:
            return refused
        except Exception as error:  # noqa: BLE001  the lane outlives what it is given
            lines.SERVER_CALL_FAILED(trace=True, method=self._method)
            return Refused(grpc.StatusCode.INTERNAL, f"this is a defect: {error!r}")

    def _finish(self, call: Any, answer: bytes | Refused) -> None:
        core = self._core
        operations = [core.SendInitialMetadataOperation(None, 0)]
        if isinstance(answer, Refused):
            code, details, metadata = answer.code.value[0], answer.message.encode(), answer.metadata
        else:
            operations.append(core.SendMessageOperation(answer, 0))
            code, details, metadata = core.StatusCode.ok, b"", ()
        operations += [
            core.SendStatusFromServerOperation(metadata, code, details, 0),
            core.ReceiveCloseOnServerOperation(0),
        ]
        call.start_server_batch(operations, _done)


def _done(_event: Any) -> None:
    """The answer is on its way, or nobody wants it any more."""


@functools.cache
def usable() -> bool:
    """Whether a lane can be used in this process: a tested grpcio, and a call of its own that came through."""
    if not grpc.__version__.startswith(TESTED):
        lines.SERVER_NO_LANE("not tested with it, Predict takes the ordinary path", grpcio=grpc.__version__)
        return False
    try:
        return _own_call(b"headrace") == b"headrace"
    except Exception:  # noqa: BLE001  whatever it was, there is another path
        lines.SERVER_NO_LANE("Predict takes the ordinary path", trace=True, grpcio=grpc.__version__)
        return False


def _own_call(message: bytes) -> bytes:
    """What a server with a lane answers that gives back its message."""
    method = "/headrace.lane.Echo/Echo"
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    lane = Lane(server, method, lambda data, _left_s: data, most=1)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    lane.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer: bytes = channel.unary_unary(method)(message, timeout=_OWN_CALL_S)
            return answer
    finally:
        server.stop(None).wait()
        lane.close()
