"""The messages of `headrace.v1` as their bytes stand on the wire: no Python object for each number.

A packed `repeated fixed64`, `double` or `float` has the same bytes as a field `bytes` of the same number. So a request
is parsed as a message in which the values of `Ids` and `Floats` are bytes, derived here from the generated descriptor,
and handed to numpy as they are; the scores of an answer are appended as they are. That costs 1 us for 50 ids, where
going through the generated message costs 26.

A writer may split a packed field into several chunks, of which a field of bytes keeps the last one only, or send it
unpacked, which leaves its numbers among the unknown fields. The first makes the parsed message smaller than what was
received (`parsed` then takes the generated message), the second makes `Values` larger than its bytes (`content_of` then
says None, and `typed` gives the generated message of these values).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from headrace.errors import InvalidRequest
from protos import headrace_pb2 as wire

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PACKAGE: Final = "headrace.packed"
_AS_BYTES: Final = ("Ids", "Floats")
_SCORES: Final = bytes([wire.PredictResponse.DESCRIPTOR.fields_by_name["scores"].number << 3 | 2])


def _derived() -> Any:
    file = descriptor_pb2.FileDescriptorProto()
    wire.DESCRIPTOR.CopyToProto(file)
    given = f".{file.package}."
    file.name, file.package = "headrace_packed.proto", _PACKAGE
    del file.service[:]
    for kind in file.message_type:
        for field in (*kind.field, *(field for nested in kind.nested_type for field in nested.field)):
            if field.type_name:
                field.type_name = field.type_name.replace(given, f".{_PACKAGE}.")
        if kind.name in _AS_BYTES:
            (values,) = kind.field
            values.type, values.label = values.TYPE_BYTES, values.LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.PredictRequest"))


_PredictRequest: Final = _derived()


@dataclass(frozen=True)
class Request:
    """A PredictRequest; `packed` if the values of its features are to be read by `content_of`."""

    message: Any
    packed: bool


def parsed(data: bytes) -> Request:
    """InvalidRequest if these are not the bytes of a PredictRequest."""
    try:
        found = _PredictRequest.FromString(data)
        if found.ByteSize() == len(data):
            return Request(found, packed=True)
        return Request(wire.PredictRequest.FromString(data), packed=False)
    except message.DecodeError as wrong:
        raise InvalidRequest(f"this is no PredictRequest of headrace.v1: {wrong}") from None


def content_of(values: Any, kind: str) -> bytes | None:
    """The bytes of packed `values` that are `kind` (`ids` or `floats`) and nothing else; None if they are not."""
    content: bytes = getattr(values, kind).values
    return content if content and values.ByteSize() == _values_bytes(len(content)) else None


def typed(values: Any) -> wire.Values:
    """The generated message of packed `values`. InvalidRequest if it cannot be parsed as that."""
    try:
        return wire.Values.FromString(values.SerializeToString())
    except message.DecodeError as wrong:
        raise InvalidRequest(f"the values of a feature cannot be read: {wrong}") from None


def answer(served: wire.Served, scores: npt.NDArray[np.float32]) -> bytes:
    """The bytes of a PredictResponse."""
    head: bytes = wire.PredictResponse(served=served).SerializeToString()
    content = scores.astype("<f4", copy=False).tobytes()
    return b"".join((head, _SCORES, _varint(len(content)), content))


@functools.lru_cache(1024)
def _values_bytes(content: int) -> int:
    """Size of a `Values` whose ids or floats have `content` bytes: a field in a field.

    >>> _values_bytes(400)
    406
    """
    for _ in ("values", "ids"):
        content += 1 + len(_varint(content))  # all of these have numbers below 16
    return content


def _varint(number: int) -> bytes:
    """
    >>> _varint(400).hex()
    '9003'
    """
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
