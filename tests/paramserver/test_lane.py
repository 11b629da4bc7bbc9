"""A lane answers as grpcio does: statuses, deadlines, order, its bound, draining."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from paramserver import lane
from paramserver.lane import Lane, Refused, usable

METHOD = "/test.Service/Echo"
MOST = 3


class Echo:
    """A server whose handler gives back its message; `hold` keeps it busy until `go_on` is set."""

    def __init__(self):
        self.handled, self.left_s = [], []
        self.under_way, self.go_on = threading.Event(), threading.Event()
        self.server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        self.lane = Lane(self.server, METHOD, self.handle, most=MOST)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.lane.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.call = self.channel.unary_unary(METHOD)

    def handle(self, message, left_s):
        self.handled.append(message)
        self.left_s.append(left_s)
        if message == b"hold":
            self.under_way.set()
            assert self.go_on.wait(10)
        if message == b"refuse":
            raise Refused(grpc.StatusCode.NOT_FOUND, "no such thing: ö", (("headrace-code", "x"),))
        if message == b"break":
            raise ZeroDivisionError
        return message

    def hold(self):
        """A call that is under way."""
        call = self.call.future(b"hold", timeout=20)
        assert self.under_way.wait(10)
        return call

    def close(self):
        self.go_on.set()
        self.server.stop(None).wait()
        self.lane.close()
        self.channel.close()


@pytest.fixture
def echo():
    made = Echo()
    yield made
    made.close()


def code_of(future):
    error = future.exception(timeout=20)
    return error.code() if error is not None else grpc.StatusCode.OK


def test_a_call_comes_back_with_its_message_and_knows_its_deadline(echo):
    assert echo.call(b"one", timeout=20) == b"one"
    assert 0 < echo.left_s[0] < 20 * 1.02  # gRPC rounds a timeout up on the wire, to about 1 %
    assert echo.call(b"") == b""
    assert echo.left_s[1] is None


def test_a_refusal_has_code_text_and_metadata(echo):
    with pytest.raises(grpc.RpcError) as caught:
        echo.call(b"refuse", timeout=20)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing: ö")
    assert dict(caught.value.trailing_metadata()) == {"headrace-code": "x"}


def test_a_defect_of_the_handler_is_an_internal_error_and_the_next_call_is_answered(echo):
    with pytest.raises(grpc.RpcError, match="ZeroDivisionError") as caught:
        echo.call(b"break", timeout=20)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert echo.call(b"next", timeout=20) == b"next"


def test_many_calls_of_many_clients_are_each_answered_once(echo):
    with ThreadPoolExecutor(8) as clients:
        messages = [b"%d" % i for i in range(300)]
        semaphore = threading.BoundedSemaphore(MOST)  # never more at a time than the lane takes

        def ask(message):
            with semaphore:
                return echo.call(message, timeout=20)

        assert list(clients.map(ask, messages)) == messages
    assert sorted(echo.handled) == sorted(messages)


def test_more_calls_than_may_wait_are_refused_and_those_that_wait_are_answered(echo):
    """How many are refused depends on how many the lane finds at once when it looks again."""
    held = echo.hold()
    waiting = [echo.call.future(b"%d" % i, timeout=20) for i in range(200)]
    echo.go_on.set()
    codes = [code_of(future) for future in (held, *waiting)]
    assert codes[0] == grpc.StatusCode.OK
    assert codes.count(grpc.StatusCode.OK) >= 1 + MOST
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) >= 1
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(echo.handled) == codes.count(grpc.StatusCode.OK)


def test_a_call_whose_deadline_passes_while_it_waits_is_given_to_the_handler_as_late(echo):
    held = echo.hold()
    late = echo.call.future(b"late", timeout=0.05)
    assert code_of(late) == grpc.StatusCode.DEADLINE_EXCEEDED
    time.sleep(0.05)  # the server's deadline is a little later than the client's: it was rounded up on the wire
    echo.go_on.set()
    assert held.result(timeout=20) == b"hold"
    assert echo.call(b"after", timeout=20) == b"after"
    assert dict(zip(echo.handled, echo.left_s, strict=True)).get(b"late", -1) < 0


def test_draining_ends_the_call_under_way_and_takes_no_new_one(echo):
    held = echo.hold()
    stopped = echo.server.stop(20)
    with pytest.raises(grpc.RpcError) as caught:
        echo.call(b"new", timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not stopped.is_set()
    echo.go_on.set()
    assert held.result(timeout=20) == b"hold"
    assert stopped.wait(20)
    assert b"new" not in echo.handled


def test_other_versions_of_grpcio_are_not_trusted(monkeypatch):
    assert usable()
    usable.cache_clear()
    monkeypatch.setattr(grpc, "__version__", "1.99.0")
    assert not usable()
    usable.cache_clear()


@pytest.mark.parametrize("broken", [lambda _message: b"other", lambda _message: 1 / 0])
def test_a_lane_whose_own_call_fails_is_not_used(monkeypatch, broken):
    usable.cache_clear()
    monkeypatch.setattr(lane, "_own_call", broken)
    assert not usable()
    usable.cache_clear()
