"""The wire in other spellings: every reader of protobuf must take them, and none may change a score."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidRequest
from headrace.features import Feature
from headrace.schema import Schema
from paramserver import convert
from paramserver.packed import answer, parsed
from protos import headrace_pb2 as wire

SCHEMA = Schema((Feature("user", "id", ("user",)), Feature("price", "number", ("price",))))
IDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5)


def field(number: int, content: bytes) -> bytes:
    """A field with a length."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def fixed(ids: list[int]) -> bytes:
    return b"".join(struct.pack("<Q", one) for one in ids)


def values(message: bytes, number: int = 5) -> bytes:
    """`Values` with the field `ids` (5) or `floats` (3)."""
    return field(number, message)


def request(*users: bytes, prices: bytes) -> bytes:
    """Bytes of a PredictRequest; the entry of `user` has these `Values`, one after the other."""
    entry = field(1, b"user") + b"".join(field(2, one) for one in users)
    other = field(1, b"price") + field(2, prices)
    return field(2, entry) + field(2, other) + field(3, SCHEMA.fingerprint.encode())


def read(data: bytes) -> tuple[list[int], list[float]]:
    inputs = convert.inputs_of(parsed(data), SCHEMA, 100)
    return inputs.ids["user"].tolist(), inputs.numbers["price"].tolist()


def price(n: int) -> bytes:
    return values(field(1, struct.pack(f"<{n}d", *range(n))), 3)


@given(IDS)
def test_packed_unpacked_and_split_ids_are_the_same(ids: list[int]) -> None:
    n = len(ids)
    one = b"".join(bytes([1 << 3 | 1]) + fixed([id_]) for id_ in ids)  # unpacked: a tag for each
    split = b"".join(field(1, fixed(part)) for part in (ids[: n // 2], ids[n // 2 :]))
    mixed = field(1, fixed(ids[:1])) + b"".join(bytes([1 << 3 | 1]) + fixed([id_]) for id_ in ids[1:])
    for spelling in (field(1, fixed(ids)), one, split, mixed):
        assert read(request(values(spelling), prices=price(n))) == (ids, [float(at) for at in range(n)])


@given(IDS)
def test_the_generated_message_says_the_same(ids: list[int]) -> None:
    given_ = wire.PredictRequest(schema_fingerprint=SCHEMA.fingerprint)
    given_.features["user"].ids.values.extend(ids)
    given_.features["price"].floats.values.extend(range(len(ids)))
    assert read(given_.SerializeToString()) == (ids, [float(at) for at in range(len(ids))])


def test_of_a_value_that_is_said_twice_the_last_counts() -> None:
    """Messages of one field merge: what was said first comes first."""
    twice = request(values(field(1, fixed([1]))), values(field(1, fixed([2]))), prices=price(2))
    assert read(twice) == ([1, 2], [0.0, 1.0])
    other = request(values(field(1, struct.pack("<d", 9.0)), 3), values(field(1, fixed([2]))), prices=price(1))
    assert read(other) == ([2], [0.0])


@pytest.mark.parametrize("length", [1, 7, 9, 15])
def test_half_an_id_is_refused(length: int) -> None:
    with pytest.raises(InvalidRequest):
        read(request(values(field(1, b"x" * length)), prices=price(1)))


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no PredictRequest"):
        parsed(b"\xff\xff\xff")


def test_an_answer_can_be_read_by_everybody() -> None:
    scores = np.array([0.25, 0.5, 1.0] * 50, np.float32)
    served = wire.Served(model="default", version=7, watermark_us=9, age_s=1.5)
    found = wire.PredictResponse.FromString(answer(served, scores))
    assert (list(found.scores), found.served) == (scores.tolist(), served)
