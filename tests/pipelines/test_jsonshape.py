"""Lines of one shape: what is cut at commas is what a strict JSON parser reads."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.jsonshape import shaped

SCHEMA = pa.schema([("count", pa.int64()), ("good", pa.bool_()), ("id", pa.string()), ("price", pa.float64())])
LINE = '{"id": "a", "count": 1, "price": 0.5, "good": true, "unused": 7}'
KINDS = {"count": int, "good": bool, "id": str, "price": (int, float)}

# values that differ from JSON in one way or another, beside good ones
NUMBERS = "0 -0 7 -12 007 +1 1. .5 0.25 -0.125 1..2 1.2.3 1-2 --1 - 1e3 0x1F NaN nan inf Infinity 0.1234567890123456789"
TEXTS = ['"a"', '""', '"', '"a', 'a"', '"ä"', '"a\\n"', '"a\tb"', '"a,b"', '"a"b"', '"\\""', '"x", "y": "z"']
OTHERS = [
    "true",
    "false",
    "True",
    "null",
    "",
    " 1",
    "1 ",
    "[1]",
    "{}",
    "1}",
    "1}\r",
    "\ufeff1",
    str(2**63 - 1),
    str(2**63),
]
VALUES = st.sampled_from([*NUMBERS.split(), *TEXTS, *OTHERS])


def cut(lines):
    data = "\n".join(lines).encode() + b"\n"
    return shaped(memoryview(data), len(lines), lines[0].encode(), SCHEMA)


def test_lines_of_one_shape_become_columns():
    other = '{"id": "é", "count": -20, "price": 3, "good": false, "unused": 0.25}'
    assert cut([LINE, other]).to_pylist() == [
        {"count": 1, "good": True, "id": "a", "price": 0.5},
        {"count": -20, "good": False, "id": "é", "price": 3.0},
    ]


@pytest.mark.parametrize(
    "other",
    [
        '{"count": 1, "id": "a", "price": 0.5, "good": true, "unused": 7}',
        '{"id": "a", "count": 1, "price": 0.5, "good": true}',
        '{"id": "a", "count": 1, "price": 0.5, "good": true, "unused": 7, "more": 1}',
        '{"id": "a,b", "count": 1, "price": 0.5, "good": true, "unused": 7}',
        '{"id": "a", "count": null, "price": 0.5, "good": true, "unused": 7}',
        '{"id":"a", "count": 1, "price": 0.5, "good": true, "unused": 7}',
        '{"id": ", "count": 1, "price": 0.5, "good": true, "unused": 7}',
    ],
)
def test_other_lines_are_left_to_a_parser(other):
    assert cut([LINE, LINE]) is not None
    assert cut([LINE, other]) is None
    assert cut([other, LINE]) is None


@given(st.lists(st.dictionaries(st.sampled_from(["id", "count", "price", "good", "unused"]), VALUES), max_size=3))
def test_what_is_cut_is_what_json_says(changes):
    good = {"id": '"a"', "count": "1", "price": "0.5", "good": "true", "unused": "7"}
    texts = [{**good, **change} for change in ({}, *changes)]
    lines = ["{" + ", ".join(f'"{key}": {text}' for key, text in one.items()) + "}" for one in texts]
    table = cut(lines)
    if table is None:
        return
    for line, row in zip(lines, table.to_pylist(), strict=True):
        said = json.loads(line)
        assert row == {name: said[name] for name in SCHEMA.names}
        assert all(isinstance(said[name], kind) for name, kind in KINDS.items())


@given(st.lists(st.tuples(st.text(), st.integers(-(2**63), 2**63 - 1), st.floats(-1e15, 1e15), st.booleans())))
def test_numbers_and_texts_are_bit_for_bit_those_of_json(rows):
    lines = [LINE]
    for text, count, price, good in rows:
        row = {"id": text, "count": count, "price": price, "good": good, "unused": 7}
        lines.append(json.dumps(row, ensure_ascii=False))
    try:
        table = cut(lines)
    except UnicodeEncodeError:
        return
    if table is not None:
        said = [json.loads(line) for line in lines]
        assert table.to_pylist() == [{name: one[name] for name in SCHEMA.names} for one in said]
