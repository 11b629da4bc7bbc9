"""`headrace release`: what it asks, what it refuses before it asks, what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from headrace.cli import answer
from headrace.cli.app import run
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from headrace.loop import Loop


@pytest.fixture
def loop(loop: Loop) -> Loop:
    """With shard records 3 to 5 held."""
    log = loop.version_log()
    head = log.head()
    assert head is not None
    held = replace(VersionRecord.from_entry(head), held=((3, 6),), held_now=((3, 6),), base=0)
    log.append("hold", held.to_body(), head)
    return loop


@pytest.fixture
def trainer(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Answers the request with the first of these outcomes."""
    outcomes: list[Any] = []

    def answered(_loop: Loop, _settings: Any, request: Any, _seen: int, _timeout_s: float) -> Any:
        log = loop.version_log()
        head = log.head()
        assert head is not None
        requests = {"cursor": request.cursor().to_json(), "outcomes": [{"seq": request.seq, "outcome": outcomes[0]}]}
        record = replace(VersionRecord.from_entry(head), requests=requests, base=head.seq)
        return log.append("delta", record.to_body(), head)

    monkeypatch.setattr(answer, "answered", answered)
    return outcomes


def test_it_asks_the_trainer_and_says_what_came_of_it(
    loop: Loop, trainer: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.append("released")
    assert run(["release", "3", "4-5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["version"], said["outcome"], said["shards"]) == (2, "released", [[3, 6]])
    head = loop.requests().head()
    assert head is not None
    assert (head.kind, head.body["args"]) == ("release", {"shards": [[3, 6]]})


def test_what_the_gate_refuses_stays_held(loop: Loop, trainer: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    trainer.append("refused: G0: a weight is not finite")
    assert run(["release", "3", "--json"]) == 3
    assert "G0: a weight is not finite" in json.loads(capsys.readouterr().out)["message"]


@pytest.mark.parametrize("words", [["2"], ["3", "7"], ["1-4"], ["99"]])
def test_what_was_never_held_is_refused_before_anything_is_written(
    loop: Loop, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["release", *words, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)
    assert "held are: 3-5" in error["hint"]
    assert loop.requests().head() is None


@pytest.mark.parametrize("word", ["x", "5-3", "-", "3-", "1.5"])
def test_what_is_no_number_is_a_usage_error(loop: Loop, word: str) -> None:
    assert run(["release", "--", word]) == 2
    assert loop.requests().head() is None
