"""gRPC reflection with a cap: a stream of it holds a thread for as long as its client likes, and tools hang."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_reflection.v1alpha import reflection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_STREAMS: Final = 4


class Reflection(reflection.ReflectionServicer):  # type: ignore[misc]  # no types
    """Tells tools such as grpcurl what the services are; to `MOST_STREAMS` of them at a time."""

    def __init__(self, services: Sequence[str]) -> None:
        super().__init__(services)
        self._streams = threading.BoundedSemaphore(MOST_STREAMS)

    def ServerReflectionInfo(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        if not self._streams.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_STREAMS} clients are asking already")
        try:
            yield from super().ServerReflectionInfo(request_iterator, context)
        finally:
            self._streams.release()
