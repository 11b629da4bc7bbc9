from __future__ import annotations

import random

import farmhash
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import WrongType
from headrace.ids import cross_of, fingerprints, id_of, ids_of, null_id, unknown_id

VALUES = st.one_of(
    st.lists(st.none() | st.text(max_size=8)),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.none() | st.booleans()),
    st.lists(st.none() | st.floats(allow_infinity=False) | st.integers(-5, 5).map(float)),
)


def text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)


def reference(name: str, value: object) -> int:
    missing = value is None or value != value
    return null_id(name) if missing else id_of(name, text(value))


def test_known_answers() -> None:
    assert id_of("user", "42") == 8170751544122350154
    assert null_id("user") == 2238907118710571534
    assert unknown_id("user") == 758484994806749798


def test_ids_are_the_same_whatever_type_carries_the_value() -> None:
    same = [
        pa.array(["7", None]),
        pa.array([7, None], pa.int8()),
        pa.array([7, None], pa.uint64()),
        pa.array([7.0, None], pa.float32()),
        pa.array([7.0, float("nan")]),
        pa.array(["7", None], pa.large_string()),
        pa.array(["7", None]).dictionary_encode(),
        pa.array(["7", None], pa.string_view()),
        pa.chunked_array([["7"], [None]], pa.string()),
    ]
    for column in same:
        assert ids_of("f", column).tolist() == [id_of("f", "7"), null_id("f")], column.type


def test_text_of_values() -> None:
    assert ids_of("f", pa.array([True, False])).tolist() == [id_of("f", "true"), id_of("f", "false")]
    assert ids_of("f", pa.array([1.5, -0.0, 1e20])).tolist() == [
        id_of("f", "1.5"),
        id_of("f", "0"),
        id_of("f", "100000000000000000000"),
    ]
    assert ids_of("f", pa.array([1.1], pa.float32())).tolist() == [id_of("f", "1.1")]
    assert ids_of("f", pa.array(["", "é", "a\0b"])).tolist() == [id_of("f", t) for t in ("", "é", "a\0b")]
    assert ids_of("f", pa.nulls(2)).tolist() == [null_id("f")] * 2
    assert ids_of("f", pa.array([], pa.string())).tolist() == []


@given(VALUES)
def test_a_column_is_hashed_as_its_rows(values: list[object]) -> None:
    assert ids_of("f", pa.array(values)).tolist() == [reference("f", value) for value in values]


@pytest.mark.parametrize("column", [pa.array([b"x"]), pa.array([[1]]), pa.array([0], pa.timestamp("us"))])
def test_other_types_have_no_id(column: pa.Array) -> None:
    with pytest.raises(WrongType, match="feature 'f' is"):
        ids_of("f", column)


def test_infinity_has_no_id() -> None:
    with pytest.raises(WrongType, match="infinite"):
        ids_of("f", pa.array([1.0, float("inf")]))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**63 - 1), st.integers(5, 6))))
def test_a_cross_is_hashed_as_its_rows(rows: list[tuple[int, int, int]]) -> None:
    members = [np.array([row[i] for row in rows], np.int64) for i in range(3)]
    assert cross_of("x", members).tolist() == [id_of("x", f"{a},{b},{c}") for a, b, c in rows]


@pytest.mark.tensorflow
@pytest.mark.xdist_group("tensorflow")
def test_ids_are_tensorflows() -> None:
    from training.runtime import tf  # other tests of this process need it set up so

    rng = random.Random(7)
    texts = [
        "".join(
            chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xA0, 0x2FFF)))) for _ in range(rng.randrange(90))
        )
        for _ in range(100_000)
    ]
    ours = ids_of("user", pa.array(texts))
    theirs = tf.strings.to_hash_bucket_fast([f"user={t}" for t in texts], 2**62).numpy()
    assert (ours & (2**62 - 1) == theirs).all()
    assert (ours >= 0).all()
    assert 0.49 < (ours >> 62).mean() < 0.51  # the 63rd bit is hash, too
    a, b = ours[:1000], ours[1000:2000]
    crossed = tf.strings.to_hash_bucket_fast([f"x={i},{j}" for i, j in zip(a, b, strict=True)], 2**62).numpy()
    assert (cross_of("x", [a, b]) & (2**62 - 1) == crossed).all()


@pytest.mark.parametrize("longest", [7, 16, 32, 64, 100])
def test_fingerprints_of_a_column_are_those_of_farmhash(longest: int) -> None:
    rng = random.Random(longest)
    texts = [rng.randbytes(rng.randrange(longest + 1)) for _ in range(2_000)]
    column = pa.array([b"before", *texts, b"after"]).slice(1, len(texts))
    assert fingerprints(column).tolist() == [farmhash.fingerprint64(text) for text in texts]
