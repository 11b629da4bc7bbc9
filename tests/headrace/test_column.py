import uuid

import numpy as np
import pyarrow as pa
import pytest

from headrace.column import plain

WORDS = pa.array(["a", None, "b", "a"])


@pytest.mark.parametrize(
    "column",
    [
        WORDS,
        WORDS.dictionary_encode(),
        WORDS.cast(pa.string_view()),
        pa.chunked_array([WORDS[:1].dictionary_encode(), WORDS[1:].dictionary_encode()]),
        pa.ExtensionArray.from_storage(pa.json_(), WORDS),
    ],
)
def test_text_is_text_however_it_is_kept(column):
    assert plain(column).equals(WORDS)


def test_what_is_plain_is_given_back_as_it_is():
    assert plain(WORDS) is WORDS


@pytest.mark.parametrize("start", [0, 3])
def test_uuids_are_text_as_python_writes_it(start):
    made = [uuid.UUID(bytes=np.random.default_rng(i).bytes(16)) for i in range(50)]
    made[5] = None
    column = pa.array([None if one is None else one.bytes for one in made], pa.uuid())[start:]
    assert plain(column).to_pylist() == [None if one is None else str(one) for one in made[start:]]
    plain(column).validate(full=True)


def test_what_lists_and_structs_hold_becomes_plain():
    lists = pa.ListArray.from_arrays(pa.array([0, 1, None, 4], pa.int32()), WORDS.dictionary_encode())
    assert lists.null_count == 1
    assert plain(lists).to_pylist() == lists.to_pylist()
    structs = pa.StructArray.from_arrays(
        [WORDS.dictionary_encode(), WORDS.cast(pa.string_view())],
        ["x", "y"],
        mask=pa.array([False, True, False, False]),
    )
    assert plain(structs).to_pylist() == structs.to_pylist()
    assert plain(structs).type == pa.struct([("x", pa.string()), ("y", pa.string())])
    assert plain(structs[1:]).to_pylist() == structs[1:].to_pylist()
    assert plain(lists[1:]).to_pylist() == lists[1:].to_pylist()
