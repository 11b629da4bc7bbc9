"""`headrace.v1` over gRPC: from wire to Python and back, and every error to its status code."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import grpc

from headrace import control, metrics
from headrace.errors import (
    Draining,
    EventError,
    HeadraceError,
    InvalidRequest,
    InvalidTarget,
    NotFound,
    NotReady,
    Overloaded,
    TooLate,
    UnknownModel,
)
from paramserver.lane import Refused
from protos import headrace_pb2 as wire
from protos import headrace_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.clock import Now
    from headrace.loop import Loop
    from paramserver.predict import Predictor

CODES: Final[dict[type[HeadraceError], grpc.StatusCode]] = {
    UnknownModel: grpc.StatusCode.NOT_FOUND,
    NotFound: grpc.StatusCode.NOT_FOUND,
    InvalidTarget: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    EventError: grpc.StatusCode.INVALID_ARGUMENT,
    NotReady: grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooLate: grpc.StatusCode.DEADLINE_EXCEEDED,
    Draining: grpc.StatusCode.UNAVAILABLE,
}
CODE_KEY: Final = "headrace-code"
HINT_KEY: Final = "headrace-hint"

MOST_WATCHERS: Final = 8
_Answer = TypeVar("_Answer")
_WATCH_S: Final = 0.5  # how often a stream looks whether its client is still there


def status_of(error: HeadraceError) -> grpc.StatusCode:
    """The status code of an error; INTERNAL for one that no caller can cause.

    >>> status_of(InvalidRequest("no candidates")).name
    'INVALID_ARGUMENT'
    """
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


class Servicer(headrace_pb2_grpc.HeadraceServiceServicer):  # type: ignore[misc]  # generated, untyped
    """The six methods, named by the wire. Once it drains, only Status and Watch answer."""

    def __init__(self, predictor: Predictor, loop: Loop, now_us: Now) -> None:
        self.draining = threading.Event()
        self._under_way = 0
        self._fewer = threading.Condition()
        self._predictor, self._loop, self._now_us = predictor, loop, now_us
        self._replica = predictor.replica
        self._instance = secrets.token_hex(4)
        self._started_at_us = now_us()
        self._watchers = threading.BoundedSemaphore(MOST_WATCHERS)
        self._answered = metrics.PREDICTIONS.labels("OK")

    def drain(self, grace_s: float) -> bool:
        """Refuse new calls; whether those under way ended within `grace_s`."""
        self.draining.set()
        with self._fewer:
            return self._fewer.wait_for(lambda: self._under_way == 0, grace_s)

    def Predict(self, request: bytes, context: grpc.ServicerContext) -> bytes:  # noqa: N802
        """Bytes of a PredictRequest to bytes of a PredictResponse: see `handlers`."""
        return _answered(context, lambda: self._whole(lambda: self.predict(request, context.time_remaining())))

    def predict(self, request: bytes, left_s: float | None) -> bytes:
        """What `Predict` answers; left_s: until the deadline, None = there is none. UnknownModel, NotReady, …"""
        began = time.perf_counter()
        try:
            if left_s is not None and left_s <= 0:
                raise TooLate("the deadline had passed before the call was scored", hint="allow more time, or ask less")
            response, candidates = self._predictor.answer(request)
        except HeadraceError as error:
            metrics.PREDICTIONS.labels(status_of(error).name).inc()
            raise
        finally:
            metrics.PREDICT_SECONDS.observe(time.perf_counter() - began)
        self._answered.inc()
        metrics.CANDIDATES.inc(candidates)
        return response

    def predict_in_lane(self, request: bytes, left_s: float | None) -> bytes:
        """`predict` for a lane (paramserver/lane.py)."""
        try:
            return self._whole(lambda: self.predict(request, left_s))
        except HeadraceError as error:
            raise Refused(status_of(error), error.message, _metadata_of(error)) from None

    def Status(self, request: wire.StatusRequest, context: grpc.ServicerContext) -> wire.StatusResponse:  # noqa: N802
        return _answered(context, lambda: self._status(request))

    def Watch(self, request: wire.WatchRequest, context: grpc.ServicerContext) -> Iterator[wire.WatchResponse]:  # noqa: N802
        _answered(context, lambda: self._predictor.check_model(request.model))
        if not self._watchers.acquire(blocking=False):
            refused = Overloaded(f"{MOST_WATCHERS} clients are watching already", hint="poll Status instead")
            _abort(context, refused)
        try:
            yield from self._watched(context)
        finally:
            self._watchers.release()

    def Lookup(self, request: wire.LookupRequest, context: grpc.ServicerContext) -> wire.LookupResponse:  # noqa: N802
        return _answered(context, lambda: self._whole(lambda: self._predictor.lookup(request)))

    def Rollback(self, request: wire.RollbackRequest, context: grpc.ServicerContext) -> wire.RollbackResponse:  # noqa: N802
        return _answered(context, lambda: self._whole(lambda: self._rollback(request, context.peer())))

    def Pin(self, request: wire.PinRequest, context: grpc.ServicerContext) -> wire.PinResponse:  # noqa: N802
        return _answered(context, lambda: self._whole(lambda: self._pin(request, context.peer())))

    def _whole(self, answer: Callable[[], _Answer]) -> _Answer:
        """The answer of a call that draining waits for; Draining if it comes too late."""
        with self._fewer:
            self._under_way += 1
        try:
            if self.draining.is_set():
                raise Draining("the server is about to stop", hint="ask another one, or this one later")
            return answer()
        finally:
            with self._fewer:
                self._under_way -= 1
                if self.draining.is_set():
                    self._fewer.notify_all()

    def _rollback(self, request: wire.RollbackRequest, by: str) -> wire.RollbackResponse:
        self._predictor.check_model(request.model)
        now_us = self._now_us()
        entry = control.rollback(self._loop, request.to, by=by, reason=request.reason, now_us=now_us)
        return wire.RollbackResponse(served=self._served_now(), record=entry.seq)

    def _pin(self, request: wire.PinRequest, by: str) -> wire.PinResponse:
        self._predictor.check_model(request.model)
        to = request.version if request.HasField("version") else None
        entry = control.pin(self._loop, to, by=by, reason=request.reason, now_us=self._now_us())
        return wire.PinResponse(served=self._served_now(), record=entry.seq)

    def _served_now(self) -> wire.Served | None:
        """What is served once the replica has looked at the log again."""
        self._replica.poll()
        generation = self._replica.served
        return self._predictor.served(generation) if generation is not None else None

    def _status(self, request: wire.StatusRequest) -> wire.StatusResponse:
        self._predictor.check_model(request.model)
        generation, problem = self._replica.served, self._replica.problem
        response = wire.StatusResponse(
            state=self._state(),
            problem=problem.message if problem else "",
            hint=problem.hint if problem else "",
            applied_version=self._replica.applied_version or 0,
            instance=self._instance,
            started_at_us=self._started_at_us,
            max_candidates=self._predictor.max_candidates,
        )
        if self._replica.last_problem is not None:
            at_us, last = self._replica.last_problem
            response.last_problem, response.last_problem_at_us = last.message, at_us
        if generation is not None:
            response.served.CopyFrom(self._predictor.served(generation))
            response.schema_fingerprint = generation.schema.fingerprint
            response.schema_json = generation.schema_json
            response.rows = generation.rows
            response.swapped_at_us = self._replica.swapped_at_us
        return response

    def _state(self) -> wire.State:
        if self.draining.is_set():
            return wire.STATE_DRAINING
        if self._replica.served is None:
            return wire.STATE_STARTING
        return wire.STATE_STALLED if self._replica.problem else wire.STATE_SERVING

    def _watched(self, context: grpc.ServicerContext) -> Iterator[wire.WatchResponse]:
        told = None
        while context.is_active():
            changes = self._replica.changes
            now = (self._replica.served, self._state(), str(self._replica.problem or ""))
            if now != told:
                yield self._watch_response()
                told = now
            if self.draining.is_set():
                return
            self._replica.wait(changes, _WATCH_S)

    def _watch_response(self) -> wire.WatchResponse:
        generation, problem = self._replica.served, self._replica.problem
        response = wire.WatchResponse(state=self._state(), problem=problem.message if problem else "")
        if generation is not None:
            response.served.CopyFrom(self._predictor.served(generation))
        return response


def handlers(servicer: Servicer, *, lane: bool) -> dict[str, grpc.RpcMethodHandler]:
    """By name of the method. Messages are those of the service, but Predict takes and gives their bytes.

    lane: without Predict, which a lane answers.
    """
    streams = {"Watch": grpc.unary_stream_rpc_method_handler}
    found = {} if lane else {"Predict": grpc.unary_unary_rpc_method_handler(servicer.Predict)}
    for method in wire.DESCRIPTOR.services_by_name["HeadraceService"].methods:
        if method.name not in found and not (lane and method.name == "Predict"):
            made = streams.get(method.name, grpc.unary_unary_rpc_method_handler)
            found[method.name] = made(
                getattr(servicer, method.name),
                request_deserializer=getattr(wire, method.input_type.name).FromString,
                response_serializer=getattr(wire, method.output_type.name).SerializeToString,
            )
    return found


def _answered(context: grpc.ServicerContext, answer: Callable[[], _Answer]) -> _Answer:
    try:
        return answer()
    except HeadraceError as error:
        _abort(context, error)


def _abort(context: grpc.ServicerContext, error: HeadraceError) -> NoReturn:
    context.set_trailing_metadata(_metadata_of(error))
    context.abort(status_of(error), error.message)
    raise AssertionError("abort raises")


def _metadata_of(error: HeadraceError) -> tuple[tuple[str, str], ...]:
    code = ((CODE_KEY, error.code),)
    return (*code, (HINT_KEY, error.hint.encode("ascii", "replace").decode())) if error.hint else code
