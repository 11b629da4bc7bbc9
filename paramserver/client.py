"""A client of headrace.v1: plain Python values in, scores and their version out.

    with Client("127.0.0.1:8500") as client:
        client.predict({"user": "u7", "item": ["a", "b", "c"]}).scores

A single value is shared by all candidates, a list has one for each; None is missing. A feature of kind `ids` takes a
list (shared) or a list of lists, in which nothing may be None: a request cannot say so. `Ids([...])` are ids that the
caller hashed (`headrace.ids`), with `schema=`.

Every call has a deadline. A call that finds the server starting or stopping (UNAVAILABLE) is tried again, up to four
times within the deadline, by gRPC itself; no other error is. Errors are those of headrace.errors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
import numpy as np
import numpy.typing as npt

from headrace.errors import (
    Draining,
    HeadraceError,
    InvalidRequest,
    InvalidTarget,
    NotFound,
    NotImplementedYet,
    NotReady,
    Overloaded,
    ServingError,
    TooLate,
    UnknownModel,
    Unreachable,
)
from paramserver.servicer import CODE_KEY, HINT_KEY
from protos import headrace_pb2 as wire
from protos import headrace_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DEADLINE_S: Final = 5.0

_RETRY: Final = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE_CONFIG: Final = json.dumps(
    {"methodConfig": [{"name": [{"service": "headrace.v1.HeadraceService"}], "retryPolicy": _RETRY}]}
)
_ERRORS: Final[dict[grpc.StatusCode, type[HeadraceError]]] = {
    grpc.StatusCode.NOT_FOUND: UnknownModel,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: NotReady,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: TooLate,
    grpc.StatusCode.UNAVAILABLE: Draining,
    grpc.StatusCode.CANCELLED: Draining,  # by the server, in the moment in which it stops
    grpc.StatusCode.UNIMPLEMENTED: NotImplementedYet,
}
_HINTS: Final[dict[grpc.StatusCode, str]] = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: "it has too many calls under way: ask fewer at a time, or later",
    grpc.StatusCode.DEADLINE_EXCEEDED: "allow more time (deadline_s), or ask for fewer candidates",
    grpc.StatusCode.CANCELLED: "the server stops: ask another one, or this one later",
    grpc.StatusCode.UNIMPLEMENTED: "server and client are of different versions of headrace",
}
"""For what gRPC says by itself."""
_FORMS: Final[tuple[tuple[set[type], str, Any, type], ...]] = (
    ({str}, "strings", wire.Strings, str),
    ({bool}, "bools", wire.Bools, bool),
    ({int}, "ints", wire.Ints, int),
    ({int, float}, "floats", wire.Floats, float),
)
"""Types of the values, field and message that take them, and their type there; the first that fits is taken."""


@dataclass(frozen=True)
class Ids:
    """Values that the caller has hashed."""

    values: Any


@dataclass(frozen=True)
class Prediction:
    """`scores` float32 [n] by `version`; `watermark_us` and `age_s` are None before anything was learned."""

    scores: npt.NDArray[np.float32]
    version: int
    watermark_us: int | None
    age_s: float | None


@dataclass(frozen=True)
class ServerStatus:
    """`state`: starting, serving, stalled or draining. `version` is None before the first.

    `problem` is what is wrong now, `last_problem` what was wrong last, also once it is over.
    """

    state: str
    version: int | None
    watermark_us: int | None
    age_s: float | None
    problem: str
    hint: str
    applied_version: int
    schema_fingerprint: str
    schema: dict[str, Any]
    rows: int
    instance: str
    max_candidates: int
    last_problem: str
    last_problem_at_us: int


class Client:
    """One connection to the server at `address` (`host:port`), for any number of threads."""

    def __init__(self, address: str, *, deadline_s: float = DEADLINE_S) -> None:
        self._address = address
        self._deadline_s = deadline_s
        options = [("grpc.service_config", _SERVICE_CONFIG), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._stub: Any = headrace_pb2_grpc.HeadraceServiceStub(self._channel)

    def predict(self, features: Mapping[str, Any], *, schema: str = "", deadline_s: float | None = None) -> Prediction:
        """Scores of the candidates. InvalidRequest, NotReady, Overloaded, TooLate, Draining, Unreachable."""
        values = {name: values_of(name, value) for name, value in features.items()}
        request = wire.PredictRequest(features=values, schema_fingerprint=schema)
        answer = self._call(self._stub.Predict, request, deadline_s)
        served = answer.served
        return Prediction(np.array(answer.scores, np.float32), served.version, *_freshness(served))

    def status(self, *, deadline_s: float | None = None) -> ServerStatus:
        """What the server serves and what is wrong."""
        return _status_of(self._call(self._stub.Status, wire.StatusRequest(), deadline_s))

    def lookup(self, table: str, ids: Sequence[int]) -> list[npt.NDArray[np.float32] | None]:
        """The rows of `ids` in `table` of the served version, None for an id without. InvalidRequest, NotReady."""
        answer = self._call(self._stub.Lookup, wire.LookupRequest(table=table, ids=ids), None)
        return [np.array(row.values, np.float32) if row.values else None for row in answer.rows]

    def rollback(self, to: int, *, reason: str = "") -> int:
        """Goes back to version `to`; the number of the record that says so. NotFound, InvalidTarget."""
        return int(self._call(self._stub.Rollback, wire.RollbackRequest(to=to, reason=reason), None).record)

    def pin(self, version: int | None, *, reason: str = "") -> int:
        """Keeps servers at `version`, or (None) ends that; the number of the record. NotFound, InvalidTarget."""
        return int(self._call(self._stub.Pin, wire.PinRequest(version=version, reason=reason), None).record)

    def watch(self) -> Iterator[int]:
        """The served version, now and whenever it changes, until the server stops. Close the iterator to end it."""
        stream = self._stub.Watch(wire.WatchRequest())
        try:
            for answer in stream:
                if answer.HasField("served"):
                    yield answer.served.version
        except grpc.RpcError as error:
            raise self._error_of(error) from None
        finally:
            stream.cancel()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: Any, request: Any, deadline_s: float | None) -> Any:
        try:
            return method(request, timeout=self._deadline_s if deadline_s is None else deadline_s)
        except grpc.RpcError as error:
            raise self._error_of(error) from None

    def _error_of(self, error: Any) -> HeadraceError:
        metadata = dict(error.trailing_metadata() or ())
        if error.code() == grpc.StatusCode.UNAVAILABLE and CODE_KEY not in metadata:  # no headrace said so
            return Unreachable(
                f"no server answers at {self._address}",
                hint="start it: `headrace serve`; or name its address",
                address=self._address,
                details=error.details(),
            )
        told = next((kind for kind in (NotFound, InvalidTarget) if kind.code == metadata.get(CODE_KEY)), None)
        kind = told or _ERRORS.get(error.code(), ServingError)
        return kind(
            error.details() or error.code().name,
            hint=metadata.get(HINT_KEY, _HINTS.get(error.code(), "")),
            status=error.code().name,
        )


def values_of(name: str, value: Any) -> wire.Values:
    """The wire form of one feature's values. InvalidRequest if they are of several types, or of none that is known.

    >>> values_of("age", [1.5, None]).missing
    [1]
    """
    hashed, given = isinstance(value, Ids), value.values if isinstance(value, Ids) else value
    if isinstance(given, np.ndarray):
        given = given.tolist()
    items: Sequence[Any] = given if isinstance(given, list | tuple) else [given]
    lengths: list[int] = []
    missing = [place for place, item in enumerate(items) if item is None]
    if any(isinstance(item, list | tuple | np.ndarray) for item in items):
        lists = [[] if item is None else _list(name, item) for item in items]
        lengths, items = [len(item) for item in lists], [part for item in lists for part in item]
    return wire.Values(**_typed(name, items, hashed=hashed), lengths=lengths, missing=missing)


def _list(name: str, item: Any) -> list[Any]:
    """The list of one candidate. InvalidRequest if it is none, or a value in it is missing."""
    if not isinstance(item, list | tuple | np.ndarray):
        raise InvalidRequest(
            f"feature '{name}' has lists and, beside them, {item!r}",
            hint="give every candidate a list, or None where there is none",
            feature=name,
        )
    values = item.tolist() if isinstance(item, np.ndarray) else list(item)
    if any(value is None for value in values):
        raise InvalidRequest(
            f"feature '{name}' has a missing value (None) inside a list",
            hint=f"leave it out, or send Ids with what training has in its place: headrace.ids.null_id('{name}')",
            feature=name,
        )
    return values


def _typed(name: str, items: Sequence[Any], *, hashed: bool) -> dict[str, Any]:
    if hashed:
        return {"ids": wire.Ids(values=[item or 0 for item in items])}
    types = {_type_of(item) for item in items if item is not None}
    for known, field, message, plain in _FORMS:
        if types <= known:
            return {field: message(values=[plain() if item is None else plain(item) for item in items])}
    names = ", ".join(sorted(kind.__name__ for kind in types))
    raise InvalidRequest(
        f"feature '{name}' has values of the type{'s' if len(types) > 1 else ''} {names}",
        hint="send strings, integers, floats or booleans, all of one type",
        feature=name,
    )


def _type_of(item: Any) -> type:
    if isinstance(item, bool | np.bool_):
        return bool
    if isinstance(item, int | np.integer):
        return int
    if isinstance(item, float | np.floating):
        return float
    return type(item)


def _freshness(served: wire.Served) -> tuple[int | None, float | None]:
    return (served.watermark_us, served.age_s) if served.HasField("watermark_us") else (None, None)


def _status_of(answer: wire.StatusResponse) -> ServerStatus:
    watermark_us, age_s = _freshness(answer.served)
    return ServerStatus(
        state=wire.State.Name(answer.state).removeprefix("STATE_").lower(),
        version=answer.served.version if answer.HasField("served") else None,
        watermark_us=watermark_us,
        age_s=age_s,
        problem=answer.problem,
        hint=answer.hint,
        applied_version=answer.applied_version,
        schema_fingerprint=answer.schema_fingerprint,
        schema=json.loads(answer.schema_json or "{}"),
        rows=answer.rows,
        instance=answer.instance,
        max_candidates=answer.max_candidates,
        last_problem=answer.last_problem,
        last_problem_at_us=answer.last_problem_at_us,
    )
