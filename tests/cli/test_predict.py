"""Requests as people type them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from headrace.cli.app import run
from headrace.cli.predict import parse
from headrace.errors import InvalidRequest
from paramserver.client import Client, Prediction

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


def test_nothing_after_the_equals_sign_is_a_missing_value() -> None:
    assert parse(['tags=["a","b"]'], KINDS) == parse(["tags=a,b"], KINDS)
    with pytest.raises(InvalidRequest, match=r"feature 'tags': '\[a,b\]' is no list"):
        parse(["tags=[a,b]"], KINDS)
    assert parse(["user=", "price=", "tags="], KINDS) == {"user": None, "price": None, "tags": [[]]}


def test_an_answer_says_how_old_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = Prediction(np.array([0.25], np.float32), 3, 1_388_534_399_000_000, 700.0)
    monkeypatch.setattr(Client, "predict", lambda *_: answer)
    assert run(["predict", "user=7"]) == 0
    assert capsys.readouterr().err == "version 3, events up to 2013-12-31T23:59:59Z: 12 minutes old\n"
