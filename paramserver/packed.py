"""The messages of `headrace.v1` as their bytes stand on the wire: no Python object for each number.

A message in a field has the same bytes as a field `bytes` of the same number, and the numbers of a packed `repeated
fixed64`, `double` or `float` stand there as numpy has them. So a request is parsed as a message whose `Values` are
bytes, derived here from the generated descriptor. The bytes of ids (or floats) and nothing else begin with a few that
their length alone decides (`content_of`), and what follows is handed to numpy as it is; the scores of an answer are
appended as they are. That costs 1 us for 50 ids, where going through the generated message costs 26.

A writer may split a packed field into several chunks, send it unpacked, or add fields: then the first bytes differ, and
`typed` gives the generated message of these values. It may say the `Values` of a feature twice, of which a field of
bytes keeps the last one only: then the parsed message is smaller than what was received, and `parsed` takes the
generated message.
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
_VALUES: Final = "Values"
_SCORES: Final = bytes([wire.PredictResponse.DESCRIPTOR.fields_by_name["scores"].number << 3 | 2])


def _derived() -> Any:
    file = descriptor_pb2.FileDescriptorProto()
    wire.DESCRIPTOR.CopyToProto(file)
    given = f".{file.package}."
    file.name, file.package = "headrace_packed.proto", _PACKAGE
    del file.service[:]
    for kind in file.message_type:
        for field in (*kind.field, *(field for nested in kind.nested_type for field in nested.field)):
            if field.type_name == given + _VALUES:
                field.type = field.TYPE_BYTES
                field.ClearField("type_name")
            elif field.type_name:
                field.type_name = field.type_name.replace(given, f".{_PACKAGE}.")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.PredictRequest"))


_PredictRequest: Final = _derived()


@dataclass(frozen=True)
class Request:
    """A PredictRequest; `packed` if the values of its features are bytes, to be read by `content_of` or `typed`."""

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


def content_of(values: bytes, kind: str) -> bytes | None:
    """The numbers of packed `values` that are `kind` (`ids` or `floats`) and nothing else; None if they are not."""
    head = _head(kind, len(values))
    return values[len(head) :] if head and values.startswith(head) else None


def typed(values: bytes) -> wire.Values:
    """The generated message of packed `values`. InvalidRequest if it cannot be parsed as that."""
    try:
        return wire.Values.FromString(values)
    except message.DecodeError as wrong:
        raise InvalidRequest(f"the values of a feature cannot be read: {wrong}") from None


def answer(served: wire.Served, scores: npt.NDArray[np.float32]) -> bytes:
    """The bytes of a PredictResponse."""
    head: bytes = wire.PredictResponse(served=served).SerializeToString()
    content = scores.astype("<f4", copy=False).tobytes()
    return b"".join((head, _SCORES, _varint(len(content)), content))


@functools.lru_cache(4096)
def _head(kind: str, size: int) -> bytes:
    """What `Values` of `size` bytes begin with that are ids or floats and nothing else; empty if there are none.

    Field `kind`, its length, field 1 (packed numbers), their length: the rest are numbers.

    >>> _head("ids", 406).hex(" ")
    '2a 93 03 0a 90 03'
    """
    field = bytes([wire.Values.DESCRIPTOR.fields_by_name[kind].number << 3 | 2])
    for content in range(size - 4, max(0, size - 14), -1):
        inner = b"\x0a" + _varint(content)
        head = field + _varint(len(inner) + content) + inner
        if len(head) + content == size:
            return head
    return b""


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
