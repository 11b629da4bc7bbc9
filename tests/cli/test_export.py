"""`headrace export`: what it refuses before TensorFlow is started, and what it says."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from headrace.cli.app import run

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.loop import Loop

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, loop: Loop) -> Path:
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message", "fix"),
    [
        (["--to", "model"], "version 0 has learned nothing", "headrace train"),
        (["--to", "model", "--version", "7"], "version 7 is not there", "headrace versions list"),
        (["--to", "model", "--format", "keras"], "a Keras archive ends with .keras", "--to model.keras"),
        (["--to", "model.keras", "--format", "saved-model"], "ends with .keras", "--to model"),
        (["--to", "model", "--format", "onnx"], "'onnx' is no format", "--format keras"),
        (["--to", "headrace.toml"], "headrace.toml exists", "--force"),
        (["--to", ".", "--force"], "is no SavedModel: it is not replaced", "another --to"),
    ],
)
def test_refusals_say_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, fix: str
) -> None:
    before = sorted(folder.iterdir())
    assert run(["export", *arguments, "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["error"] == "training.export"
    assert message in said["message"]
    assert fix in said["hint"]
    assert sorted(folder.iterdir()) == before


def test_it_says_what_each_input_holds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from training import export as module

    def written(_loop: Any, _version: Any, path: Path, form: str, **_: Any) -> Any:
        inputs = {"user": {"dtype": "string", "shape": [None], "holds": "the text"}}
        return SimpleNamespace(
            path=str(path), format=form, version=3, rows=1234, bytes=9, difference=1e-7, inputs=inputs
        )

    monkeypatch.setattr(module, "export", written)
    assert run(["export", "--to", "model"]) == 0
    text = capsys.readouterr().out
    assert "version 3  1,234 rows" in text
    assert "user   string  [n]    the text" in text
    assert run(["export", "--to", "a.keras", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "keras"
