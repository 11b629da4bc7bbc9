"""Plain Python values to the wire."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.errors import InvalidRequest
from paramserver.client import Ids, values_of


@pytest.mark.parametrize(
    ("value", "kind", "wire_values", "lengths", "missing"),
    [
        ("a", "strings", ["a"], [], []),
        (["a", None], "strings", ["a", ""], [], [1]),
        (3, "ints", [3], [], []),
        ([-(2**63), 2**63 - 1], "ints", [-(2**63), 2**63 - 1], [], []),
        (True, "bools", [True], [], []),
        ([1, 2.5, None], "floats", [1.0, 2.5, 0.0], [], [2]),
        (np.array([1, 2]), "ints", [1, 2], [], []),
        (np.float32(0.5), "floats", [0.5], [], []),
        ([["a", "b"], [], None], "strings", ["a", "b"], [2, 0, 0], [2]),
        (None, "strings", [""], [], [0]),
        (Ids([1, None]), "ids", [1, 0], [], [1]),
        (Ids([[1], [2, 3]]), "ids", [1, 2, 3], [1, 2], []),
    ],
)
def test_values_on_the_wire(value, kind, wire_values, lengths, missing):
    values = values_of("f", value)
    assert values.WhichOneof("values") == kind
    assert list(getattr(values, kind).values) == wire_values
    assert (list(values.lengths), list(values.missing)) == (lengths, missing)


@pytest.mark.parametrize("value", [[["a", None]], [None, ["a"], [1, None]], [np.array([None])], Ids([[1, None]])])
def test_nothing_inside_a_list_may_be_missing(value):
    with pytest.raises(InvalidRequest, match="feature 'f' has a missing value") as refused:
        values_of("f", value)
    assert "null_id('f')" in refused.value.hint


def test_beside_lists_there_are_lists_alone():
    with pytest.raises(InvalidRequest, match="has lists and, beside them, 'bc'"):
        values_of("f", [["a"], "bc"])
    assert list(values_of("f", [np.array(["a"]), ("b",)]).strings.values) == ["a", "b"]


@pytest.mark.parametrize("value", [["a", 1], [True, 1], [object()], [b"x"]])
def test_values_of_no_one_known_type_are_refused(value):
    with pytest.raises(InvalidRequest, match="feature 'f' has values of the type"):
        values_of("f", value)
