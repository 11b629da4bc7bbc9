"""Tables, JSON that parses everywhere, and versions of libraries."""

from __future__ import annotations

import json

import pytest

from headrace.cli.doctor import within
from headrace.cli.terminal import clean, table


def test_tables_align_text_left_and_numbers_right() -> None:
    assert table([("a", 1, "x"), ("bcd", 23, "yz")], ("name", "rows", "what")).splitlines() == [
        "name  rows  what",
        "a        1  x",
        "bcd     23  yz",
    ]
    assert table([]) == ""
    assert table([], ("only", "head")) == "only  head"


def test_what_json_has_no_word_for_becomes_null() -> None:
    value = clean({"a": float("nan"), "b": [float("inf"), 1.5], "c": (None, "x")})
    assert json.dumps(value, allow_nan=False) == '{"a": null, "b": [null, 1.5], "c": [null, "x"]}'


@pytest.mark.parametrize(
    ("version", "bounds", "kept"),
    [
        ("2.77.0", ">=2.77,<2.78", True),
        ("2.78.0", ">=2.77,<2.78", False),
        ("1.85.1", ">=1.81,<2", True),
        ("0.0.3", "==0.0.3", True),
        ("0.0.4", "==0.0.3", False),
        ("6", ">=6", True),
        ("2026.9.0", ">=2026.9", True),
        ("2.21.0+cpu", ">=2.21,<2.22", True),
    ],
)
def test_bounds_of_libraries(version: str, bounds: str, kept: bool) -> None:
    assert within(version, bounds) is kept
