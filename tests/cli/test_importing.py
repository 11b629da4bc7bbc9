"""`headrace import`: what it asks for, what it refuses, what it says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from settings import PRICE, USER, settings_text

from headrace import config
from headrace.cli.app import run
from headrace.ids import id_of
from headrace.loop import open_loop
from headrace.store import open_store
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.xdist_group("tensorflow"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),  # Keras 3.15 on numpy 2.4
]

SETTINGS = settings_text(USER, PRICE)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings, and old.keras: `words` reads a lookup of a, b, c; `numbered` reads numbers."""
    from training.runtime import tf

    keras = tf.keras
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    text, number = keras.Input((), dtype="string"), keras.Input((), dtype="int64")
    lookup = keras.layers.StringLookup(vocabulary=["a", "b", "c"])
    words, numbered = keras.layers.Embedding(4, 8, name="words"), keras.layers.Embedding(3, 1, name="numbered")
    keras.Model([text, number], [words(lookup(text)), numbered(number)]).save(tmp_path / "old.keras")
    return tmp_path


def head() -> VersionRecord | None:
    loop = open_loop(open_store(config.load("headrace.toml").loop.root), "feed", create=True)
    entry = loop.version_log().head()
    return VersionRecord.from_entry(entry) if entry is not None else None


def test_without_pairs_it_says_what_there_is(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run(["import", "old.keras"]) == 0
    said = capfd.readouterr()
    assert "words        4      8  3 texts: a, b, c" in said.out
    assert "user     id    1 or 8" in said.out
    assert "price" not in said.out
    assert "--map LAYER=FEATURE" in said.err
    assert not (folder / "loop").exists()


def test_it_begins_a_loop(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "words.txt").write_text("x\ny\nz\n")
    pairs = ["--map", "words=user", "--map", "numbered=user", "--vocabulary", "numbered=words.txt"]
    assert run(["import", "old.keras", *pairs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "version": 0,
        "imported": [
            {"layer": "words", "feature": "user", "table": "embedding", "rows": 3},
            {"layer": "numbered", "feature": "user", "table": "linear", "rows": 3},
        ],
    }
    record = head()
    assert record is not None
    assert (record.kind, record.digest["rows"]) == ("start", 0)
    assert record.checkpoint is not None
    with np.load(folder / "loop" / record.checkpoint.path) as arrays:
        assert arrays["table/linear/weights"].shape == (6, 1)
    assert run(["log", "verify", "--deep"]) == 0
    capsys.readouterr()
    assert run(["versions", "show", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["gate"]
    assert (told["action"], told["model"], [one["layer"] for one in told["taken"]]) == (
        "import",
        "old.keras",
        ["words", "numbered"],
    )
    assert run(["versions", "list"]) == 0
    assert "start (import)" in capsys.readouterr().out


def test_another_import_says_what_it_leaves_and_a_mark_of_utf_8_is_no_text(
    capfd: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert run(["import", "old.keras", "--map", "words=user"]) == 0
    assert "the import before" not in capfd.readouterr().err
    (folder / "words.txt").write_bytes(b"\xef\xbb\xbfx\r\ny\r\nz\r\n")
    assert run(["import", "old.keras", "--map", "numbered=user", "--vocabulary", "words.txt"]) == 0
    said = capfd.readouterr().err
    assert "the rows of the import before, version 0, are left: name all pairs in one import" in said
    record = head()
    assert record is not None
    assert record.checkpoint is not None
    with np.load(folder / "loop" / record.checkpoint.path) as arrays:
        ids = set(arrays["table/linear/ids"].tolist())
        assert ids - {-1} == {id_of("user", text) for text in "xyz"}


@pytest.mark.parametrize(
    ("arguments", "message", "fix"),
    [
        (["none.keras"], "there is no none.keras", ".keras file"),
        (["old.keras", "--map", "words"], "is no LAYER=FEATURE", "user_embedding=user"),
        (["old.keras", "--map", "word=user"], "no Embedding layer 'word'", "did you mean 'words'?"),
        (["old.keras", "--map", "numbered=user"], "the model has no words for them", "--vocabulary numbered=FILE"),
        (["old.keras", "--map", "words=user", "--vocabulary", "none.txt"], "cannot be read", "UTF-8"),
        (["old.keras", "--map", "words=user", "--vocabulary", "w=a.txt"], "'w' is not mapped", "mapped are: words"),
        (["old.keras", "--vocabulary", "words=a.txt"], "'words' is not mapped", "--map words=FEATURE"),
    ],
)
def test_refusals_say_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, fix: str
) -> None:
    assert run(["import", *arguments, "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["error"] == "training.import"
    assert message in said["message"]
    assert fix in said["hint"]
    assert head() is None
