"""Requests as people type them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.cli.predict import parse
from headrace.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {"user": "id", "zip": "category", "price": "number", "age": "bucket", "tags": "ids"}


def test_values_are_read_as_the_kinds_say() -> None:
    assert parse(["user=7", "zip=00123", "price=1.50", "age=3", "tags=a,b"], KINDS) == {
        "user": "7",
        "zip": "00123",
        "price": 1.5,
        "age": 3.0,
        "tags": [["a", "b"]],
    }


def test_json_as_an_argument_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text('{"user": "u", "item": [1, 2]}')
    assert (
        parse([f"@{path}"], KINDS) == parse(['{"user": "u", "item": [1, 2]}'], KINDS) == {"user": "u", "item": [1, 2]}
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["user"], "'user' is not name=value"),
        (["user=1", "user=2"], "given twice"),
        (["price=cheap"], "'price' is a number, 'cheap' is none"),
        (["{'user': 1}"], "line 1, column 2"),
        (["@nowhere.json"], "there is no file nowhere.json"),
    ],
)
def test_what_cannot_be_a_request_is_explained(arguments: list[str], part: str) -> None:
    with pytest.raises(InvalidRequest, match=part) as refused:
        parse(arguments, KINDS)
    assert refused.value.hint
